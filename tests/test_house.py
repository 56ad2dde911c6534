"""The house: which box of the package imports which, and which libraries stay where."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "featx"
ROOT_FILES = {"errors", "version", "durable", "progress", "parallel"}
PILLARS = {"data", "backbones", "features"}
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "durable": {"errors"},
    "progress": {"errors"},
    "parallel": {"errors"},
    "backbones": {"errors", "durable"},
    "data": ROOT_FILES,
    "features": ROOT_FILES,
    "extraction": PILLARS | ROOT_FILES,
    "analysis": {"features"} | ROOT_FILES,
    "training": {"features"} | ROOT_FILES,
    "commands": {"extraction", "analysis", "training"} | PILLARS | ROOT_FILES,
    "cli": {"commands"} | ROOT_FILES,
    "__main__": {"cli"},
}
"""For each folder and each file at the root, the others that it may import."""

KNOWING = {
    "lightning": ("extraction", "training", "commands.predict", "commands.bench"),
    "h5py": ("features", "commands.inspect", "commands.verify", "commands.bench"),
    "sklearn": ("analysis",),
    "plotly": ("commands.inspect",),
    "fsspec": ("data.remote",),
    "pyarrow": ("data",),
    "torchcodec": ("data.media.torchcodec",),
    "av": ("data.media.decoder", "data.media.clip", "data.media.survey"),
}
"""Where a library may be known."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).name != "__init__.py"
}


def box(module: str) -> str:
    """The folder, or the file at the root, that a module is in."""
    return module.partition(".")[0]


def imports(module: str) -> Iterator[str]:
    """What a module imports, anywhere in it; what is of the package, without its name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module}: imports are absolute"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name.removeprefix("featx.") in MODULES for name in found]
            names = [n if k else node.module for n, k in zip(found, known, strict=True)]
        else:
            continue
        yield from (name.removeprefix("featx.") for name in names)


GRAPH = {module: {*imports(module)} for module in MODULES}


def test_every_box_has_its_place() -> None:
    """There are as many as a person can hold in mind, on few floors."""
    assert {box(module) for module in MODULES} == MAY_IMPORT.keys()
    assert len(MAY_IMPORT) + 1 <= 15  # with the package's own __init__, the public surface
    floors: dict[str, int] = {}
    for name in MAY_IMPORT:  # the table goes from below upwards
        floors[name] = 1 + max((floors[other] for other in MAY_IMPORT[name]), default=0)
    assert max(floors.values()) + 1 <= 8


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    """A module imports from its own box, and from those that its box may import."""
    assert "featx" not in GRAPH[module]  # the public surface is for others
    used = {box(other) for other in GRAPH[module] if other in MODULES}
    assert used - MAY_IMPORT[box(module)] - {box(module)} == set()


def test_no_folder_is_a_heap() -> None:
    """A folder has at most 14 files, so that a person finds the file of a subject."""
    folders = [path.parent for path in MODULES.values()]
    assert {str(f) for f in folders if folders.count(f) > 14} == set()


def test_no_circle() -> None:
    """No module imports itself by way of others."""
    left = {module: used & GRAPH.keys() for module, used in GRAPH.items()}
    while leaves := {module for module, used in left.items() if not used}:
        left = {module: used - leaves for module, used in left.items() if module not in leaves}
    assert left == {}


@pytest.mark.parametrize("library", KNOWING)
def test_libraries_stay_where_they_are_known(library: str) -> None:
    """Files, rows and maths are tested without a Trainer, and decoding is one file's business."""
    knowing = {m for m, used in GRAPH.items() if any(box(name) == library for name in used)}
    assert knowing
    assert {m for m in knowing if not m.startswith(KNOWING[library])} == set()


def test_the_maths_knows_no_disk() -> None:
    """It imports only torch and numpy, beside what the language has for types."""
    roots = {box(name) for name in GRAPH["extraction.temporal"]}
    assert roots == {"collections", "typing", "numpy", "torch"}
