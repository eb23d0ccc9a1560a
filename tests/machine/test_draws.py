"""csl.machine.draws: no purpose has a stream of another."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest

import csl
from csl.machine.draws import PURPOSES, generator


def test_no_two_purposes_share_a_stream():
    owners = {}
    numbers = [some for length in (1, 2, 3) for some in itertools.product((0, 1, 7, 2**32 + 1), repeat=length)]
    for purpose in PURPOSES:
        for some in numbers:
            owners.setdefault(generator(purpose, *some).random(), set()).add(purpose)
    for some in numbers:
        owners.setdefault(np.random.default_rng(some).random(), set()).add("seeds alone")  # the drawn garments
    assert all(len(purposes) == 1 for purposes in owners.values())
    assert set().union(*owners.values()) == {*PURPOSES, "seeds alone"}
    assert generator("order", 7, 3).random() == generator("order", 7, 3).random()
    with pytest.raises(ValueError, match="not in tuple"):
        generator("shuffle", 7)


def test_every_generator_of_the_package_is_made_for_a_purpose():
    package, made = Path(csl.__file__).parent, {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name.endswith("default_rng"):
                made.setdefault("default_rng", []).append(str(path.relative_to(package)))
            elif name == "generator":
                made.setdefault(node.args[0].value, []).append(path.name)
    assert sorted(made.pop("default_rng")) == ["garments/dataset.py", "machine/draws.py"]
    assert set(made) == set(PURPOSES)
