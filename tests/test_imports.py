"""Data flows one way, and so do imports; importing csl is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import csl

PACKAGE = Path(csl.__file__).parent

# Low to high: a part may import what stands on a line above its own, and itself.
LAYERS = [
    {"errors"},
    {"machine"},
    {"ops", "labels", "metrics"},
    {"losses", "models", "data", "prior", "garments"},
    {"checkpoint", "runs"},
    {"predict"},
    {"plots"},
    {"inference", "preparation"},
    {"export"},
    {"training"},
    {"cli"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Parts of csl that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "csl":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            yield from (name for name in names if name not in ("InputError", "Stopped"))
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("csl."))


def test_imports_go_from_high_to_low():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        part = part_of(path)
        if part == "__init__":
            continue
        for imported in imports_of(path):
            if imported != part and LEVEL[imported] >= LEVEL[part]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {imported}")
    assert not wrong


def test_importing_is_cheap():
    code = (
        "import sys, csl, csl.losses, csl.models, csl.labels, csl.metrics, csl.prior, csl.checkpoint, csl.predict;"
        "import torch; assert not torch.cuda.is_initialized();"
        "print([m for m in ('matplotlib', 'pycocotools', 'tensorboard', 'inplace_abn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
