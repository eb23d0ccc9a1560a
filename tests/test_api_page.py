"""docs/api.md: its blocks run, and it has an example of every public name."""

import re
from pathlib import Path

import pytest

import csl

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_blocks_run_in_order(tmp_path, monkeypatch, no_pictures):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    namespace = {}
    for block in BLOCK.finditer(page):
        lines_before = page[: block.start(1)].count("\n")  # so that a traceback names the line of the page
        exec(compile("\n" * lines_before + block[1], str(PAGE), "exec"), namespace)
    assert 0 <= namespace["best"]["mAP"] <= 100
    assert namespace["numbers"]["mAP"] == pytest.approx(namespace["best"]["mAP"])
    assert namespace["scores"].shape == (12, 21)
    assert (tmp_path / "outputs" / "results" / "predictions.csv").is_file()


@pytest.mark.parametrize("name", csl.__all__)
def test_every_public_name_has_an_example(name):
    code = "".join(BLOCK.findall(PAGE.read_text()))
    assert re.search(rf"\bcsl\.{name}\b", code), f"docs/api.md has no example of csl.{name}"
    assert getattr(csl, name).__name__ == name
