"""The structure of the package: imports go down, and modules stay small."""

import ast
from pathlib import Path

import pytest

LAYERS = (
    {
        "errors",
        "temporal",
        "random_weights",
        "allocator",
        "progress",
        "transforms",
        "precision",
        "quiet",
        "cores",
    },
    {"disk", "ranks", "compilation", "weights"},
    {
        "archive",
        "architectures",
        "feature_file",
        "validation",
        "clips",
        "parsing",
        "lock",
        "plotting",
        "checkpoint",
        "summary_table",
    },
    {"headers", "staging", "backbones"},
    {"videos", "dataset", "manifest", "streaming", "parts", "plain_loop"},
    {"folders", "analysis", "record", "loading", "survey"},
    {"scan", "clip_folder", "figures"},
    {"clip_source"},
    {"datamodule", "extractor", "interruption", "training", "devices"},
    {"writer", "preprocess", "report", "recomputation"},
    {"job", "predict", "contenders", "verify"},
    {"demo", "bench_report"},
    {"contest"},
    {"bench"},
    {"cli"},
    {"__main__"},
)
PACKAGE = Path(__file__).parent.parent / "featx"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def imports(name: str) -> set[str]:
    """What a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_module_has_a_layer() -> None:
    """The layers above have every module, and no other."""
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    """A module imports only from layers below its own."""
    height = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    used = {module.removeprefix("featx.") for module in imports(name) if "featx." in module}
    assert {module for module in used if height[module] >= height[name]} == set()


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_small(name: str) -> None:
    """A module has at most 250 lines."""
    assert len(MODULES[name].read_text().splitlines()) <= 250


def test_few_modules_know_lightning() -> None:
    """Files, parts and maths can be tested without a Trainer."""
    knowing = {name for name in MODULES if any("lightning" in module for module in imports(name))}
    assert knowing == {
        "datamodule",
        "extractor",
        "interruption",
        "training",
        "writer",
        "job",
        "predict",
        "contenders",
        "devices",
    }


def test_the_maths_knows_no_disk() -> None:
    """It imports only torch and numpy."""
    assert imports("temporal") == {"collections.abc", "itertools", "numpy", "numpy.typing", "torch"}
