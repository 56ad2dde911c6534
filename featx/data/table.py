"""A table of videos, in whichever format people keep such tables: its cells, by column."""

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, MissingInputError, UsageError, first_line, require, shorten

Cell = str | int | float | None

KNOWN = (
    *("path", "split", "label", "id", "start", "end", "start_frame", "end_frame"),
    *("left", "top", "right", "bottom"),
)
"""The columns that have a meaning. Whatever else there is, is kept."""

_DELIMITERS = ",;\t|"
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_FEW = ("path", "split", "label")  # columns whose values recur


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a table.

    Attributes:
        path: The file.
        columns: The cells of each column `[num_rows]`, by name; None where there is none.
        lines: The line of each row in the file, or its number, from 1.
        is_text: Whether all cells are text, so that it has to be guessed which are numbers.
    """

    path: Path
    columns: dict[str, list[Cell]]
    lines: Sequence[int]
    is_text: bool

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """The place of a row, for a person."""
        return f"{self.path.name}:{self.lines[row]}"

    def find_extra(self) -> dict[str, NDArray[Any]]:
        """The columns without a meaning, by a name that HDF5 takes: text or numbers."""
        extra: dict[str, NDArray[Any]] = {}
        for name, cells in self.columns.items():
            short = name.replace("/", "_").replace("\0", "").strip()
            if name not in KNOWN and short not in ("", ".", ".."):
                extra[short] = to_array(cells, self.is_text)
        return extra


def read_table(path: Path, columns: Mapping[str, str], root: Path) -> Table:
    """Read a table: .csv, .tsv, .jsonl, .json, .parquet, or lines of a path and a label.

    Args:
        path: The file.
        columns: What columns are called in it, by what they are.
        root: What paths in it are relative to, to tell a header from a path.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, or lacks a column.
        UsageError: `columns` has a name that means nothing, or is not in the table.
    """
    if unknown := sorted({*columns} - {*KNOWN}):
        raise UsageError(
            f"columns: expected some of {', '.join(KNOWN)}, found {', '.join(unknown)}."
        )
    if not path.is_file():
        raise MissingInputError(f"{path}: expected a table, found no file. Check the path.")
    suffix = path.suffix.lower()
    read = _READERS.get(suffix)
    if read is None:
        raise InputError(
            f"{path}: expected a table named {', '.join(_READERS)}, found {suffix or 'no suffix'}. "
            "Rename it, or save it as one of these."
        )
    try:
        table = read(path, columns.get("path", "path"), root)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected text in UTF-8, found a byte {error.object[error.start]:#04x} that "
            "is not. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable table, found: {first_line(error)}. Check its permissions."
        ) from error
    return _rename(table, columns)


def to_array(cells: Sequence[Cell], is_text: bool) -> NDArray[Any]:
    """A column as numbers, if all of its cells are; otherwise as text.

    Integers with a leading zero are text: it means something.
    """
    kinds = {type(cell) for cell in cells if cell is not None and cell != ""}
    if is_text:
        kinds = {_find_kind(cell) for cell in cells if isinstance(cell, str) and cell.strip()}
    lacks = any(cell is None or cell == "" for cell in cells)
    with np.errstate(all="ignore"):
        if kinds == {int} and not lacks:
            return np.array([int(cell or 0) for cell in cells], np.int64)
        if kinds and kinds <= {int, float}:
            numbers = (np.nan if cell is None or cell == "" else float(cell) for cell in cells)
            return np.fromiter(numbers, np.float64, len(cells))
    return np.array(["" if cell is None else str(cell) for cell in cells], dtype=object)


def _find_kind(cell: str) -> type:
    if _INTEGER.fullmatch(cell.strip()):
        return int
    if re.fullmatch(r"[+-]?0[0-9]+", cell.strip()):
        return str
    try:
        float(cell)
    except ValueError:
        return str
    return float


def is_integer(cell: Cell) -> bool:
    """Whether a cell is an integer, or the text of one."""
    return isinstance(cell, int) or (
        isinstance(cell, str) and bool(_INTEGER.fullmatch(cell.strip()))
    )


def _rename(table: Table, columns: Mapping[str, str]) -> Table:
    """The table with the names that have a meaning."""
    found = [*table.columns]
    if missing := [name for name in columns.values() if name not in found]:
        raise UsageError(
            f"columns: expected columns of {table.path.name} ({shorten(found, 20)}), found "
            f"{', '.join(missing)}."
        )
    names = {theirs: ours for ours, theirs in columns.items()}
    renamed: dict[str, list[Cell]] = {}
    for name, cells in table.columns.items():
        # What has the name of a column that was said to be another is not that.
        kept = f"{name}_" if name in columns and name not in names else name
        renamed[names.get(name, kept)] = cells
    if "path" not in renamed:
        raise InputError(
            f"{table.path}: expected a column path, found the columns {shorten(found, 20)}. "
            "Say with columns which one it is, such as columns: {path: video}."
        )
    return Table(table.path, renamed, table.lines, table.is_text)


def _read_delimited(path: Path, path_column: str, root: Path) -> Table:
    """A table whose first line names its columns; or lines of a path and a label, without that."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)
    [names] = [*csv.reader([header], delimiter=delimiter)] or [[]]
    names = [name.strip() for name in names]
    if path_column not in names:
        first = names[0] if len(names) == 2 else _split_line(header)[0]
        if len(names) <= 2 and first and (root / first).exists():
            return _read_lines(path, path_column, root, delimiter if len(names) == 2 else None)
    if double := sorted({name for name in names if name and names.count(name) > 1}):
        raise InputError(
            f"{path}: expected columns of different names, found two of {shorten(double)}. "
            "Rename one."
        )
    cells: list[list[Cell]] = [[] for _ in names]
    same: list[dict[str, str]] = [{} for _ in names]  # one string for cells that recur
    recurs = [name in _FEW or name == path_column for name in names]
    lines = array("q")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            next(reader, None)
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(names):
                    raise InputError(
                        f"{path.name}:{reader.line_num}: expected {len(names)} fields, as the "
                        f"first line has, found {len(row)}. Mend the line; text with a "
                        f"{delimiter!r} in it needs quotes."
                    )
                lines.append(reader.line_num)
                for column, recurring, known, cell in zip(cells, recurs, same, row, strict=True):
                    column.append(known.setdefault(cell, cell) if recurring else cell or None)
        except csv.Error as error:
            raise InputError(
                f"{path.name}:{reader.line_num}: expected a line of a table, found: {error}. "
                "Mend the line."
            ) from error
    return Table(path, dict(zip(names, cells, strict=True)), lines, is_text=True)


def _read_lines(path: Path, path_column: str, root: Path, delimiter: str | None = None) -> Table:
    """Lines of a path and a label, or of a path alone."""
    paths: list[Cell] = []
    labels: list[Cell] = []
    lines = array("q")
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                name, label = _split_line(line, delimiter)
                if label and (root / line.strip()).exists():  # a path with a space, and no label
                    name, label = line.strip(), None
                lines.append(number)
                paths.append(name)
                labels.append(label)
    columns = {path_column: paths}
    if any(labels):
        columns["label"] = labels
    return Table(path, columns, lines, is_text=True)


def _split_line(line: str, delimiter: str | None = None) -> tuple[str, str | None]:
    """The path of a line, which may have spaces in it, and its label."""
    head, *rest = line.strip().rsplit(delimiter, maxsplit=1) or [""]
    return head.strip(), rest[0].strip() if rest else None


def _read_objects(path: Path, path_column: str, root: Path) -> Table:
    """Objects of JSON: one a line, or a list of them."""
    with path.open(encoding="utf-8-sig") as file:
        if path.suffix.lower() == ".json":
            return _join(path, enumerate(_load_list(path, file.read()), start=1))
        return _join(path, _load_lines(path, file))


def _load_list(path: Path, text: str) -> list[Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, found: {first_line(error)}. Mend it.") from error
    if not isinstance(content, list):
        raise InputError(
            f"{path}: expected a list of objects, found {type(content).__name__}. Make a table of "
            "it, a row for each video."
        )
    return content


def _load_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"{path.name}:{number}: expected an object of JSON, found: "
                    f"{first_line(error)}. Mend the line."
                ) from error


def _join(path: Path, objects: Iterable[tuple[int, Any]]) -> Table:
    """Columns of objects; where one lacks a name, its cell is empty."""
    columns: dict[str, list[Cell]] = {}
    lines = array("q")
    same: dict[str, str] = {}
    for number, row in objects:
        if not isinstance(row, dict):
            raise InputError(
                f"{path.name}:{number}: expected an object, found {type(row).__name__}. "
                "Mend the line."
            )
        for name in row.keys() - columns.keys():
            columns[name] = [None] * len(lines)
        for name, cells in columns.items():
            cell = _to_cell(row.get(name))
            cells.append(same.setdefault(cell, cell) if isinstance(cell, str) else cell)
        lines.append(number)
    return Table(path, columns, lines, is_text=False)


def _to_cell(value: Any) -> Cell:  # noqa: ANN401  # whatever JSON or Parquet holds
    if value is None or isinstance(value, (str, int, float)):
        return None if isinstance(value, float) and np.isnan(value) else value
    return json.dumps(value, ensure_ascii=False, default=str)


def _read_parquet(path: Path, path_column: str, root: Path) -> Table:
    with require("pyarrow", "a table in Parquet"):
        from pyarrow import ArrowInvalid, parquet
    try:
        content = parquet.read_table(path)
    except ArrowInvalid as error:
        raise InputError(
            f"{path}: expected a table in Parquet, found: {first_line(error)}. Save it again."
        ) from error
    columns = {
        name: [_to_cell(cell) for cell in column.to_pylist()]
        for name, column in zip(content.column_names, content.columns, strict=True)
    }
    return Table(path, columns, range(1, len(content) + 1), is_text=False)


_READERS: dict[str, Callable[[Path, str, Path], Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_objects,
    ".ndjson": _read_objects,
    ".json": _read_objects,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
    ".lst": _read_lines,
    ".list": _read_lines,
}
