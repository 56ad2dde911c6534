"""The shape of the house: imports go down, and a room is small."""

import ast
from pathlib import Path

import pytest

FLOORS = (
    ("errors", "temporal"),
    ("archive", "backbones", "feature_file"),
    ("videos", "staging"),
    ("manifest", "decoding", "streaming"),
    ("analysis",),
    ("datamodule", "extractor"),
    ("writer",),
    ("job", "preprocess", "report", "parsing"),
    ("demo", "predict"),
    ("cli",),
    ("__main__",),
)
PACKAGE = Path(__file__).parent.parent / "featx"
ROOMS = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_room_is_on_a_floor() -> None:
    """The plan above has every module, and no other."""
    assert sorted(ROOMS) == sorted(name for floor in FLOORS for name in floor)


@pytest.mark.parametrize("name", ROOMS)
def test_imports_go_down(name: str) -> None:
    """A room imports from floors below its own alone."""
    height = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    rooms = [module.partition(".")[2] for module in imports(ROOMS[name]) if "featx." in module]
    assert [room for room in rooms if height[room] >= height[name]] == []


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_small(name: str) -> None:
    """At most 250 lines."""
    assert len(ROOMS[name].read_text().splitlines()) <= 250


def test_only_lightnings_rooms_know_lightning() -> None:
    """Files, parts and maths are tested without a Trainer."""
    knowing = {name for name, path in ROOMS.items() if any("lightning" in m for m in imports(path))}
    assert knowing == {"datamodule", "extractor", "writer", "job", "predict"}


def test_pure_rooms_know_no_disk() -> None:
    """The maths opens no file."""
    assert not {"pathlib", "os", "h5py", "io"} & imports(ROOMS["temporal"])
