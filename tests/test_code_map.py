"""The pages name files that exist; docs/code.md has every room and the layers, and its steps for a new loss work."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_imports import LAYERS
from torch import Tensor, nn

import csl
from csl.losses import LOSSES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "csl"
PAGE = (ROOT / "docs" / "code.md").read_text()
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]


def paths_in(page):
    """The files, and in the map the rooms, that stand in backticks; files of results; and where links lead."""
    text = page.read_text()
    ends = (".py", ".md", "/") if page.name == "code.md" else (".py", ".md")
    yield from (word for word in re.findall(r"`([^`\s]+)`", text) if word.endswith(ends))
    yield from re.findall(r"benchmarks/[\w/]+\.(?:py|json)", text)
    yield from (link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http"))


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))], ids=lambda page: page.name)
def test_every_path_on_a_page_exists(page):
    bases = (PACKAGE, ROOT, ROOT / "tests", page.parent)
    missing = {path for path in paths_in(page) if not any((base / path).exists() for base in bases)}
    assert not missing, f"{page.name} names what does not exist: {', '.join(sorted(missing))}"


def test_every_room_is_in_the_tree():
    rooms = {f"{p.name}/" for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    rooms |= {p.name for p in PACKAGE.glob("*.py")}
    first_cells = re.findall(r"^\| (`[^|]+`) \|", PAGE, re.MULTILINE)
    listed = [name for cell in first_cells for name in re.findall("`([^`]+)`", cell)]
    assert len(listed) == len(set(listed))
    assert not rooms ^ set(listed), f"docs/code.md and src/csl differ in {sorted(rooms ^ set(listed))}"


def test_the_layers_are_those_that_are_enforced():
    (text,) = re.findall(r"^    errors <[^`]*?__main__$", PAGE, re.MULTILINE)
    assert [set(layer.split()) for layer in text.split("<")] == LAYERS


def test_the_page_is_one_screen():
    assert len(PAGE.splitlines()) <= 80


def test_a_loss_added_by_the_steps_of_the_page_trains(monkeypatch, no_pictures, tmp_path, garments):
    for name in set(re.findall(r"# in (losses/\w+\.py)", CODE)) - {"losses/cross_entropy.py"}:
        assert (PACKAGE / name).exists(), f"docs/code.md names what does not exist: {name}"
    monkeypatch.setitem(LOSSES, "wce", None)  # taken out again when the test ends
    exec(CODE, {"nn": nn, "Tensor": Tensor, "torch": torch, "F": F, "LOSSES": LOSSES})
    losses = {}
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        config = csl.TrainConfig(
            data=str(garments), loss="wce", alpha_unann=weight, model_name="test_resnet", image_size=32, batch_size=4,
            epochs=1, max_steps=1, workers=0, device="cpu", path_dest=str(folder),
        )  # fmt: skip
        csl.train(config, say=lambda line: None)
        losses[weight] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["loss"]
    assert 0 < losses[0.0] < losses[1.0]
