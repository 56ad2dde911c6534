"""Tables as people keep them: every format gives the same cells, and what is wrong is said."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featx.data.cells import Cell
from featx.data.table import Table, read_table
from featx.errors import FeatxError, InputError, UsageError

ROWS: list[dict[str, Any]] = [
    {"path": "a b.mp4", "label": "hello", "note": 'says "hi", twice'},
    {"path": "ü.mp4", "label": "bye", "note": "two lines"},
    {"path": "c.mp4", "label": "hello", "note": None},
]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A file."""
    path.write_bytes(text.encode(encoding))
    return path


def read_cells(table: Table) -> dict[str, list[Cell]]:
    """The cells of each column."""
    return {name: column.to_pylist() for name, column in table.columns.items()}


def to_csv(delimiter: str, end: str = "\n") -> str:
    """The rows, quoted where they have to be."""
    lines = [delimiter.join(ROWS[0])]
    for row in ROWS:
        cells = ("" if cell is None else str(cell).replace('"', '""') for cell in row.values())
        lines.append(delimiter.join(f'"{cell}"' for cell in cells))
    return end.join([*lines, ""])


TEXTS = {
    "comma.csv": to_csv(","),
    "semicolon.csv": to_csv(";"),
    "pipe.csv": to_csv("|"),
    "windows.csv": to_csv(",", "\r\n"),
    "tab.tsv": to_csv("\t"),
    "marked.csv": "\ufeff" + to_csv(","),
    "gaps.csv": to_csv(",") + "\n\n",
    "lines.jsonl": "\n".join(map(json.dumps, ROWS)) + "\n\n",
    "list.json": json.dumps(ROWS),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_has_the_same_cells(tmp_path: Path, name: str) -> None:
    """Whatever the delimiter, the quotes, the ends of lines, a mark of the encoding."""
    table = read_table(write(tmp_path / name, TEXTS[name]), {}, tmp_path)
    assert read_cells(table) == {key: [row[key] for row in ROWS] for key in ROWS[0]}
    assert table.where(0) == f"{name}:{1 if 'json' in name else 2}"


QUOTES: dict[str, list[list[Cell]]] = {
    'v0\t"Hi\tx\nv1\tyou"\ty\nv2\tok\tz\n': [['"Hi', "x"], ['you"', "y"], ["ok", "z"]],
    'v0\tx\t"And then.\nv1\ty\tno\nv2\tz\tsaid."\n': [
        ["x", '"And then.'],
        ["y", "no"],
        ["z", 'said."'],
    ],
    'v0\t"Go" he said\t"x"\n': [['"Go" he said', "x"]],
    'v0\t"he said ""Go"""\t"Go" or "stop"\n': [['he said "Go"', '"Go" or "stop"']],
    'v0\t"a\tb"\tx\r\nv1\t"\t""\r\n': [["a\tb", "x"], ['"', None]],
    '"v0"\t5"\t"5"""\n\n\t\t\n': [['5"', '5"']],
}


@pytest.mark.parametrize("text", QUOTES)
@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_quotes_that_are_letters(tmp_path: Path, delimiter: str, text: str) -> None:
    """In TSV and with `|`; a cell that is quoted whole, in one line, is unquoted."""
    rows = QUOTES[text]
    path = tmp_path / {"\t": "t.tsv", "|": "t.csv"}[delimiter]
    table = read_table(write(path, f"path\tb\tc\n{text}".replace("\t", delimiter)), {}, tmp_path)
    found = read_cells(table)
    assert found["path"] == [f"v{row}" for row in range(len(rows))]
    assert [[*cells] for cells in zip(found["b"], found["c"], strict=True)] == [
        [cell and str(cell).replace("\t", delimiter) for cell in row] for row in rows
    ]
    assert not table.bad


def test_a_quoted_cell_of_two_lines(tmp_path: Path) -> None:
    """In TSV, no row is lost: the rest of the cell is a bad row."""
    table = read_table(write(tmp_path / "t.tsv", 'path\tb\nv0\t"x\ny"\nv1\tz\n'), {}, tmp_path)
    assert read_cells(table) == {"path": ["v0", "v1"], "b": ['"x', "z"]}
    assert [*table.bad] == [3]


def test_parquet(tmp_path: Path) -> None:
    """Its numbers stay numbers, and its lists become text."""
    import pyarrow
    from pyarrow import parquet

    content = {"path": ["a", "b"], "start": [0.5, None], "glosses": [["x", "y"], []], "n": [1, 2]}
    parquet.write_table(pyarrow.table(content), tmp_path / "t.parquet")
    assert read_cells(read_table(tmp_path / "t.parquet", {}, tmp_path)) == {
        "path": ["a", "b"],
        "start": [0.5, None],
        "glosses": ['["x", "y"]', "[]"],
        "n": [1, 2],
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.txt", "a b.mp4 hello\nc.mp4 bye\n"),
        ("t.csv", "a b.mp4,hello\nc.mp4,bye\n"),
        ("t.csv", "a_b.mp4 hello\nc.mp4 bye\n"),
        ("t.list", "a b.mp4\thello\n\nc.mp4\tbye"),
    ],
)
def test_lines_of_a_path_and_a_label(tmp_path: Path, name: str, text: str) -> None:
    """Without a header, as UCF101 and many loaders have it."""
    for clip in ("a b.mp4", "a_b.mp4", "c.mp4"):
        (tmp_path / clip).touch()
    table = read_table(write(tmp_path / name, text), {}, tmp_path)
    cells = read_cells(table)
    assert [str(cell).replace("_", " ") for cell in cells["path"]] == ["a b.mp4", "c.mp4"]
    assert cells["label"] == ["hello", "bye"]


def test_lines_of_paths_alone(tmp_path: Path) -> None:
    """Be there spaces in them or not."""
    for clip in ("a b.mp4", "c.mp4"):
        (tmp_path / clip).touch()
    table = read_table(write(tmp_path / "t.txt", "a b.mp4\nc.mp4\n"), {}, tmp_path)
    assert read_cells(table) == {"path": ["a b.mp4", "c.mp4"]}


def test_other_names(tmp_path: Path) -> None:
    """What has the name of a column, but is said to be another, is kept beside it."""
    text = "video,gloss,label,start\nv.mp4,hello,17,4\n"
    columns = {"path": "video", "label": "gloss"}
    table = read_table(write(tmp_path / "t.csv", text), columns, tmp_path)
    assert read_cells(table) == {
        "path": ["v.mp4"],
        "label": ["hello"],
        "label_": ["17"],
        "start": ["4"],
    }
    assert {name: cells.to_pylist() for name, cells in table.find_extra().items()} == {
        "label_": [17]
    }


@pytest.mark.parametrize(
    ("cells", "is_text", "expected"),
    [
        (["1", "-2"], True, [1, -2]),
        (["1", "2.5", None], True, [1, 2.5, np.nan]),
        (["1", None], True, [1, np.nan]),
        (["007", "12"], True, ["007", "12"]),
        (["1", "x", None], True, ["1", "x", ""]),
        ([None, None], True, ["", ""]),
        (["1", "2"], False, ["1", "2"]),
        ([1, 2], False, [1, 2]),
        ([1, 2.5, None], False, [1, 2.5, np.nan]),
        ([True, False], False, ["True", "False"]),
        ([1, "x"], False, ["1", "x"]),
        (["123456789012345678901"], True, ["123456789012345678901"]),
        ([2**70, 1], False, [str(2**70), "1"]),
        (["1", " "], True, [1, np.nan]),
        (["1e-05", "0.5"], True, [1e-05, 0.5]),
        (["nan", "inf"], True, ["nan", "inf"]),
        (["1_000"], True, ["1_000"]),
        (["."], True, ["."]),
        (["e5", "+.e6"], True, ["e5", "+.e6"]),
        (["+5", "-.5", "7.", "+1.5E+3"], True, [5, -0.5, 7, 1500]),
    ],
)
def test_numbers_and_text(
    tmp_path: Path, cells: list[Cell], is_text: bool, expected: list[Any]
) -> None:
    """A column is of numbers if all of it is; a leading zero means something."""
    if is_text:
        text = "path,x\n" + "".join(f"a,{'' if cell is None else cell}\n" for cell in cells)
        path = write(tmp_path / "t.csv", text)
    else:
        rows = [{"path": "a", "x": cell} for cell in cells]
        path = write(tmp_path / "t.json", json.dumps(rows))
    found = read_table(path, {}, tmp_path).find_extra()["x"].to_pylist()
    np.testing.assert_array_equal(found, expected)
    assert [isinstance(cell, str) for cell in found] == [isinstance(cell, str) for cell in expected]


WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "no such column": ("t.csv", "video,label\na,b\n", "expected a column path, found the columns"),
    "another encoding": ("t.csv", "path,label\na,caf\xe9\n".encode("latin-1"), "in UTF-8, found a"),
    "an open quote": (
        "t.csv",
        'path,label\na,b\nc,"d\ne,f\n',
        "t.csv:3: expected a line of a table, found: unexpected end of data",
    ),
    "deep JSON": ("t.json", "[" * 100_000, "expected JSON, found: maximum recursion"),
    "one name twice": ("t.csv", "path,label,label\na,b,c\n", "found two of label"),
    "an empty file": ("t.csv", "", "expected a column path, found no columns"),
    "a header alone": ("t.csv", "path,label\n", "expected rows, found none"),
    "broken JSON": ("t.jsonl", '{"path": "a"}\n{"path"', "t.jsonl:2: expected an object of JSON"),
    "JSON of another kind": ("t.jsonl", '{"path": "a"}\n[1]\n', "t.jsonl:2: expected an object"),
    "a JSON object": ("t.json", '{"path": "a"}', "expected a list of objects, found dict"),
    "no Parquet": ("t.parquet", "path\na\n", "expected a table in Parquet"),
    "a spreadsheet": ("t.xlsx", "PK", "expected a table named .csv, .tsv"),
    "a pickle": ("t.pkl", "", "expected a table named .csv, .tsv"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(tmp_path: Path, case: str) -> None:
    """One line that names the file or its line, what was expected and found, and the way out."""
    name, text, message = WRONG[case]
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_table(path, {}, tmp_path)
    assert "\n" not in str(caught.value)
    assert re.search(r"\. [A-Z].*\.$", str(caught.value))


def test_lines_of_other_lengths(tmp_path: Path) -> None:
    """They are told as rows are, by the line on which they begin."""
    text = 'path,label\n"a\nb",c\nd\n\n"e\nf",g,h\ni,j\n'
    table = read_table(write(tmp_path / "t.csv", text), {}, tmp_path)
    assert read_cells(table)["path"] == ["a\nb", "i"]
    assert [*table.lines] == [2, 8]
    assert {line: str(error).partition(": ")[2][:34] for line, error in table.bad.items()} == {
        4: "expected 2 fields, as the first li",
        6: "expected 2 fields, as the first li",
    }


def test_spreadsheets(tmp_path: Path) -> None:
    """A note of the delimiter, capitals, spaces around cells, other delimiters in quotes."""
    for name, text in {
        "note.csv": "\ufeffsep=;\r\nPath; Label;Notes\r\n a.mp4 ;x ;1,5\r\n",
        "quoted.csv": '"path";"label";"Notes"\n"a.mp4";"x";"1,5"\n',
        "others.csv": 'path;label;"Notes"\na.mp4;x;1,5\n',
    }.items():
        cells = read_cells(read_table(write(tmp_path / name, text), {}, tmp_path))
        assert cells == {"path": ["a.mp4"], "label": ["x"], "Notes": ["1,5"]}


def test_decimal_commas(tmp_path: Path) -> None:
    """Where a spreadsheet writes them, semicolons are between the cells."""
    text = "path;start;end;note\na.mp4;0,25;1;0,5\n"
    cells = read_cells(read_table(write(tmp_path / "t.csv", text), {}, tmp_path))
    assert cells == {"path": ["a.mp4"], "start": ["0.25"], "end": ["1"], "note": ["0,5"]}


def test_long_cells(tmp_path: Path) -> None:
    """As long as they like; the limit of the module of the process stays what it was."""
    before = csv.field_size_limit()
    table = read_table(write(tmp_path / "t.csv", f"path,x\na,{'b' * 200_000}\n"), {}, tmp_path)
    assert len(str(read_cells(table)["x"][0])) == 200_000
    assert csv.field_size_limit() == before


def test_the_order_of_columns(tmp_path: Path) -> None:
    """That of their names, whatever the order of the keys of each object."""
    rows = [{"path": "a", "z": 1, "b": 2}, {"b": 3, "y": 4, "path": "b", "z": 5}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    table = read_table(path, {}, tmp_path)
    assert [*table.columns] == ["path", "z", "b", "y"]
    assert [*table.find_extra()] == ["b", "y", "z"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "a", "x": "b\0c"}, r"t.jsonl:1: expected text in UTF-8 without NUL in x, found"),
        ({"path": "a", "x": "\ud800"}, r"t.jsonl:1: expected text in UTF-8 without NUL in x"),
        ({"path": "a", "\0": 1}, "expected columns of different names in UTF-8"),
        ({"path": "a", "b/c": 1, "b_c": 2}, "expected columns of different names in UTF-8, found"),
    ],
)
def test_what_a_file_cannot_hold(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    """It is told before anything is computed."""
    table = read_table(write(tmp_path / "t.jsonl", json.dumps(row)), {}, tmp_path)
    with pytest.raises(InputError, match=message):
        table.find_extra()


def test_what_is_asked_wrongly(tmp_path: Path) -> None:
    """Columns that mean nothing, or are not there; a table that is not there."""
    path = write(tmp_path / "t.csv", "path,label\na,b\n")
    for columns, message in (
        ({"video": "path"}, "columns: expected some of path, split, .*found video"),
        ({"label": "gloss"}, r"columns: expected columns of t.csv \(path, label\), found gloss"),
    ):
        with pytest.raises(UsageError, match=message):
            read_table(path, columns, tmp_path)
    with pytest.raises(FeatxError, match="expected a table, found no file"):
        read_table(tmp_path / "none.csv", {}, tmp_path)
