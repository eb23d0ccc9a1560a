"""Data flows one way, and so do imports; importing csl is cheap."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import csl

PACKAGE = Path(csl.__file__).parent

# Low to high: a part may import what stands on a line above its own, and itself.
LAYERS = [
    {"errors"},
    {"ranges"},
    {"machine", "ops"},
    {"labels", "metrics"},
    {"losses", "models", "data", "prior", "garments"},
    {"checkpoint", "runs", "decisions"},
    {"engines"},
    {"predict"},
    {"plots"},
    {"inference", "preparation", "review"},
    {"report"},
    {"training"},
    {"export", "suggest"},
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


def test_ops_imports_errors_and_ranges_alone():
    imported = {part for path in PACKAGE.glob("ops/*.py") for part in imports_of(path)}
    assert imported <= {"ops", "errors", "ranges"}


def modules_imported(path, modules):
    """Modules of csl, by dotted name, that a file imports itself: lazy imports inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "csl":
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from parts & modules
            if parts - modules and node.module != "csl":
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("csl."))


def test_no_files_import_each_other_in_a_circle():
    paths = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {name: set(modules_imported(path, paths.keys())) & paths.keys() for name, path in paths.items()}
    while ends := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - ends for name, imported in graph.items() if name not in ends}
    # What is left lies on a circle or imports one: only the former reach themselves.
    reached = {name: set(imported) for name, imported in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    assert not {name for name in graph if name in reached[name]}


def test_no_function_has_the_name_of_a_module_beside_it():
    shadowed = set()
    for path in PACKAGE.rglob("__init__.py"):
        package = importlib.import_module(".".join(path.parent.relative_to(PACKAGE.parent).parts))
        for module in path.parent.glob("[!_]*.py"):
            if not isinstance(getattr(package, module.stem, package), ModuleType):
                shadowed.add(f"{package.__name__}.{module.stem}")
    assert not shadowed


def test_importing_is_cheap():
    code = (
        "import sys, csl, csl.losses, csl.models, csl.labels, csl.metrics, csl.prior, csl.checkpoint, csl.predict;"
        "import torch; assert not torch.cuda.is_initialized();"
        "print([m for m in ('matplotlib', 'pycocotools', 'tensorboard', 'inplace_abn', 'torch._dynamo') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_help_takes_no_pytorch():
    code = """
import contextlib, sys
from csl.__main__ import main
for words in (
    "--help", "prepare --help", "validate --help", "infer --help", "inspect --help", "suggest --help", "review --help",
):  # fmt: skip
    with contextlib.suppress(SystemExit):
        assert main(words.split()) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def unannotated(path):
    """Public functions and methods of a file with an argument or a result that has no type."""

    def of(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from of(node.body, f"{prefix}{node.name}.")
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if any(ast.unparse(decorator) == "triton.jit" for decorator in node.decorator_list):
                continue  # Triton reads annotations itself
            arguments = [
                *node.args.posonlyargs,
                *node.args.args,
                *node.args.kwonlyargs,
                node.args.vararg,
                node.args.kwarg,
            ]
            bare = [a.arg for a in arguments if a is not None and a.annotation is None and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {prefix}{node.name}: {', '.join(bare) or 'result'}"

    return of(ast.parse(path.read_text()).body, "")


def test_public_names_are_annotated():
    assert not [line for path in PACKAGE.rglob("*.py") for line in unannotated(path)]
