"""What the rows of a table ask for: names that tell videos apart, labels, and bad rows."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from featx.data.sources.table_rows import Rows, read_rows
from featx.data.table import read_table
from featx.errors import InputError


def read(folder: Path, rows: list[dict[str, Any]], splits: tuple[str, ...] = ("all",)) -> Rows:
    """The rows of a table in JSON."""
    (folder / "t.json").write_text(json.dumps(rows))
    return read_rows(read_table(folder / "t.json", {}, folder), splits)


def name_one_by_one(rows: list[dict[str, Any]]) -> dict[int, str]:
    """The names of rows, by a plain loop; rows with an id that is taken are left out."""
    names: dict[int, str] = {}
    taken: set[tuple[str, str]] = set()
    for number, row in enumerate(rows):
        name = row["id"] or row["path"]
        if row["id"] and (row["split"], name) in taken:
            continue
        count = 1
        while (row["split"], name) in taken:
            count += 1
            name = f"{row['path']} ({count})"
        taken.add((row["split"], name))
        names[number] = name
    return names


@pytest.mark.parametrize("seed", range(20))
def test_names_tell_videos_apart(tmp_path: Path, seed: int) -> None:
    """By numbers, which no id and no path has, and which count from 2 in each split."""
    choose = random.Random(seed)
    names = ["a", "b", "a (2)", "a (3)", "a (2) (2)", "b (2)"]
    rows = [
        {
            "path": choose.choice(names),
            "split": choose.choice(["train", "dev"]),
            "id": choose.choice([*names, None, None, None, None, None]),
        }
        for _ in range(40)
    ]
    found = read(tmp_path, rows, ("train", "dev"))
    expected = name_one_by_one(rows)
    assert {row: found.names[row].as_py() for row in found.good.tolist()} == expected
    assert sorted(found.errors) == sorted({*range(40)} - {*expected})


def test_texts_that_are_not_utf_8(tmp_path: Path) -> None:
    """JSON can spell half a surrogate pair: the row is bad, and the others are not."""
    found = read(tmp_path, [{"path": "a"}, {"path": "\udc80"}, {"path": "b\0"}])
    assert found.good.tolist() == [0]
    assert [str(error)[:44] for _, error in found.errors.values()] == [
        f"t.json:{line}: expected an id in UTF-8 without NUL"[:44] for line in (2, 3)
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([3, 7, -1], [3, 7, -1]),
        ([3.0, 7, -1], [3, 7, -1]),
        (["3", "7", "3"], [0, 1, 0]),
        ([" b", "a", "b"], [1, 0, 1]),
        ([2.5, 0.5, 2.5], [1, 0, 1]),
        ([True, False, True], [1, 0, 1]),
    ],
)
def test_labels_of_json(tmp_path: Path, labels: list[Any], expected: list[int]) -> None:
    """Integers are kept; whatever else there is, is a name."""
    found = read(tmp_path, [{"path": "a", "label": label} for label in labels])
    categories = [found.home(row).category for row in range(3)]
    assert [-1 if name is None else found.categories[name] for name in categories] == expected


@pytest.mark.parametrize("labels", [[1, "two"], [1, 2.5], ["two", 1]])
def test_labels_of_two_kinds(tmp_path: Path, labels: list[Any]) -> None:
    """They are refused, and a row of each kind is named."""
    with pytest.raises(InputError, match=r"t.json:\d: expected integers as labels, as t.json:\d"):
        read(tmp_path, [{"path": "a", "label": label} for label in labels])


def test_only_rows_of_the_splits_asked_for_are_bad(tmp_path: Path) -> None:
    """And rows without a split, which belong to the first one."""
    rows = [{"path": "a", "split": split, "start": "x"} for split in ("train", "dev", None, "a/b")]
    found = read(tmp_path, rows, ("dev",))
    assert found.good.tolist() == []
    assert {row: split for row, (split, _) in found.errors.items()} == {
        1: "dev",
        2: "dev",
        3: "dev",
    }
