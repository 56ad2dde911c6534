"""A table of videos, in whichever format people keep such tables: its cells, by column."""

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featx.data.cells import Cell, Cells, to_column
from featx.data.columns import Column, Texts
from featx.data.folders import is_name
from featx.data.storage import Place, at_hand, exists, is_file, is_remote, join, name_of
from featx.errors import InputError, MissingInputError, UsageError, first_line, shorten

KNOWN = (
    *("path", "split", "label", "id", "start", "end", "start_frame", "end_frame"),
    *("left", "top", "right", "bottom"),
)
"""The columns that have a meaning. Whatever else there is, is kept."""

_DELIMITERS = ",;\t|"
_TOLD = ("path", "split", "label")  # columns in which an empty cell is told as it is
_UNLIKE = ("path", "id")  # columns without the same values again and again


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a table.

    Attributes:
        path: The file.
        columns: The cells of each column `[num_rows]`, by name; None where there is none.
        lines: The line of each row in the file, or its number, from 1.
        is_text: Whether all cells are text, so that it has to be guessed which are numbers.
        bad: What is wrong with rows that are left out, by their line.
        has_commas: Whether numbers may have a comma for a point, as where cells are set apart by
            semicolons because of that.
    """

    path: Place
    columns: dict[str, Cells]
    lines: Sequence[int]
    is_text: bool
    bad: Mapping[int, InputError] = field(default_factory=dict)
    has_commas: bool = False

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """The place of a row, for a person."""
        return self.where_line(self.lines[row])

    def where_line(self, line: int) -> str:
        """The place of a line, for a person."""
        return f"{name_of(self.path)}:{line}"

    def find_extra(self) -> dict[str, Column]:
        """The columns without a meaning, by a name that HDF5 takes, sorted: text or numbers.

        Raises:
            InputError: HDF5 cannot hold a cell, or two columns have the same name.
        """
        extra: dict[str, Column] = {}
        for name, cells in self.columns.items():
            short = name.replace("/", "_").strip()
            if name in KNOWN or short in ("", ".", ".."):
                continue
            if short in extra or not is_name(short):
                raise InputError(
                    f"{self.path}: expected columns of different names in UTF-8, found {name!r}. "
                    "Rename it."
                )
            extra[short] = column = to_column(cells, self.is_text)
            if isinstance(column, Texts):
                for row, cell in enumerate(column):
                    if not is_name(cell):
                        raise InputError(
                            f"{self.where(row)}: expected text in UTF-8 without NUL in {name}, "
                            f"found {cell!r}. Mend the row."
                        )
        return dict(sorted(extra.items()))


def read_table(path: Place, columns: Mapping[str, str], root: Place) -> Table:
    """Read a table: .csv, .tsv, .jsonl, .json, .parquet, or lines of a path and a label.

    Args:
        path: The file.
        columns: What columns are called in it, by what they are. Others are known by their names,
            be these in capitals or not.
        root: What paths in it are relative to, to tell a header from a path.

    Raises:
        MissingInputError: There is no such file, or no row in it.
        InputError: It cannot be read, or lacks a column.
        UsageError: `columns` has a name that means nothing, or is not in the table.
    """
    if unknown := sorted({*columns} - {*KNOWN}):
        raise UsageError(
            f"columns: expected some of {', '.join(KNOWN)}, found {', '.join(unknown)}."
        )
    if len({*columns.values()}) < len(columns):
        raise UsageError(f"columns: expected a column for each, found one for two in {columns}.")
    if not is_file(path):
        raise MissingInputError(f"{path}: expected a table, found no file. Check the path.")
    suffix = Path(path).suffix.lower()
    read = _READERS.get(suffix)
    if read is None:
        raise InputError(
            f"{path}: expected a table named {', '.join(_READERS)}, found {suffix or 'no suffix'}. "
            "Rename it, or save it as one of these."
        )
    try:
        with at_hand(path) as near:
            table = replace(read(near, columns.get("path", "path"), root), path=path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected text in UTF-8, found a byte {error.object[error.start]:#04x} that "
            "is not. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable table, found: {first_line(error)}. Check its permissions."
        ) from error
    table = _rename(table, columns)
    if not len(table) and not table.bad:
        raise MissingInputError(f"{path}: expected rows, found none. Give another table.")
    return table


def _rename(table: Table, columns: Mapping[str, str]) -> Table:
    """The table with the names that have a meaning."""
    found = [*table.columns]
    if missing := [name for name in columns.values() if name not in found]:
        raise UsageError(
            f"columns: expected columns of {name_of(table.path)} ({shorten(found, 20)}), found "
            f"{', '.join(missing)}."
        )
    names = {theirs: ours for ours, theirs in columns.items()}
    for name in found:
        ours = name.strip().lower()
        if ours in KNOWN and ours not in {*columns, *found} | {*names.values()}:
            names.setdefault(name, ours)
    renamed: dict[str, Cells] = {}
    for name, cells in table.columns.items():
        # What has the name of a column that was said to be another is not that.
        kept = f"{name}_" if name in columns and name not in names else name
        new = names.get(name, kept)
        if new in renamed:
            raise InputError(
                f"{table.path}: expected columns of different names, found two of {new}. "
                "Rename one, or say with columns which one it is."
            )
        renamed[new] = cells
    if "path" not in renamed:
        listed = f"the columns {shorten(found, 20)}" if any(found) else "no columns"
        raise InputError(
            f"{table.path}: expected a column path, found {listed}. "
            "Say with columns which one it is, such as columns: {path: video}."
        )
    for name in ("path", "split", "label", "id"):  # around which spaces mean nothing
        if name in renamed:
            stripped = (cell.strip() if isinstance(cell, str) else cell for cell in renamed[name])
            renamed[name] = _make_cells(name, stripped)
    for name in KNOWN[KNOWN.index("start") :] if table.has_commas else ():
        if name in renamed:
            renamed[name] = Cells(
                cell.replace(",", ".") if isinstance(cell, str) else cell for cell in renamed[name]
            )
    return replace(table, columns=renamed)


def _make_cells(name: str, cells: Iterable[Cell] = ()) -> Cells:
    """A column of a name, with the first of its cells."""
    return Cells(cells, are_words=name.strip().lower() not in _UNLIKE)


class _Dialect(NamedTuple):
    """How a table of text is written: its delimiter, and the names of its columns."""

    delimiter: str
    names: list[str]
    has_note: bool  # a line before the header that names the delimiter, as spreadsheets write it


def _find_dialect(path: Path, path_column: str) -> _Dialect:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        if note := re.match(r"sep=(.)\r?\n", header):
            return _Dialect(note[1], _split_header(file.readline(), note[1]), has_note=True)
    if path.suffix.lower() == ".tsv":
        return _Dialect("\t", _split_header(header, "\t"), has_note=False)
    unquoted = re.sub(r'"[^"]*"', "", header)
    found = sorted(_DELIMITERS, key=unquoted.count, reverse=True)
    for delimiter in found:
        if path_column in _split_header(header, delimiter):
            return _Dialect(delimiter, _split_header(header, delimiter), has_note=False)
    return _Dialect(found[0], _split_header(header, found[0]), has_note=False)


def _split_header(header: str, delimiter: str) -> list[str]:
    rows = [*csv.reader([header], delimiter=delimiter)]
    return [name.strip() for name in rows[0]] if rows else []


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells be as long as they like, in a module whose limit is one for the process."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_delimited(path: Path, path_column: str, root: Place) -> Table:
    """A table whose first line names its columns; or lines of a path and a label, without that."""
    delimiter, names, has_note = _find_dialect(path, path_column)
    if path_column not in names and "path" not in map(str.lower, names):
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        if len(names) <= 2 and _exists(root, _split_line(header, delimiter)[0]):
            return _read_lines(path, path_column, root)
    if double := sorted({name for name in names if name and names.count(name) > 1}):
        raise InputError(
            f"{path}: expected columns of different names, found two of {shorten(double)}. "
            "Rename one."
        )
    cells = [_make_cells("path" if name == path_column else name) for name in names]
    are_kept = [name.lower() in _TOLD or name == path_column for name in names]
    lines = array("q")
    bad: dict[int, InputError] = {}
    with path.open(encoding="utf-8-sig", newline="") as file, _long_cells():
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        begin = 0
        try:
            for _ in range(1 + has_note):
                next(reader, None)
            begin = reader.line_num
            for row in reader:
                line = begin + 1  # where it begins: there may be newlines in it
                begin = reader.line_num
                if len(row) != len(names) and any(row):
                    bad[line] = InputError(
                        f"{path.name}:{line}: expected {len(names)} fields, as the first line has, "
                        f"found {len(row)}. Mend the line; text with a {delimiter!r} in it needs "
                        "quotes."
                    )
                elif any(row):
                    lines.append(line)
                    for column, is_kept, cell in zip(cells, are_kept, row, strict=True):
                        column.append(cell if is_kept else cell or None)
        except csv.Error as error:
            raise InputError(
                f"{path.name}:{begin + 1}: expected a line of a table, found: {error}. "
                "Mend the line: quotes have to be closed, and doubled within others."
            ) from error
    columns = dict(zip(names, cells, strict=True))
    return Table(path, columns, lines, is_text=True, bad=bad, has_commas=delimiter == ";")


def _read_lines(path: Path, path_column: str, root: Place) -> Table:
    """Lines of a path and a label, or of a path alone."""
    paths, labels = _make_cells("path"), _make_cells("label")
    lines = array("q")
    delimiter = "," if path.suffix.lower() == ".csv" else None
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                name, label = _split_line(line, delimiter)
                # A path with a space, and no label. A request for each would take too long.
                if label and not is_remote(root) and _exists(root, line.strip()):
                    name, label = line.strip(), None
                lines.append(number)
                paths.append(name)
                labels.append(label)
    columns = {path_column: paths}
    if any(labels):
        columns["label"] = labels
    return Table(path, columns, lines, is_text=True)


def _split_line(line: str, delimiter: str | None) -> tuple[str, str | None]:
    """The path of a line, which may have spaces in it, and its label."""
    line = line.strip()
    if '"' in line and delimiter and delimiter in line:
        head, *rest = next(csv.reader([line], delimiter=delimiter))
        return head.strip(), rest[-1].strip() if rest else None
    for mark in ("\t", delimiter, None):
        if mark is None or mark in line:
            break
    head, *rest = line.rsplit(mark, maxsplit=1) or [""]
    return head.strip(), rest[0].strip() if rest else None


def _exists(root: Place, name: str) -> bool:
    """Return True where something is at a path, which may be none at all."""
    return bool(name) and exists(join(root, name))


def _read_objects(path: Path, path_column: str, root: Place) -> Table:
    """Objects of JSON: one a line, or a list of them."""
    with path.open(encoding="utf-8-sig") as file:
        if path.suffix.lower() == ".json":
            return _join(path, enumerate(_load_list(path, file.read()), start=1))
        return _join(path, _load_lines(path, file))


def _load_list(path: Path, text: str) -> list[Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
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
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path.name}:{number}: expected an object of JSON, found: "
                    f"{first_line(error)}. Mend the line."
                ) from error


def _join(path: Path, objects: Iterable[tuple[int, Any]]) -> Table:
    """Columns of objects; where one lacks a name, its cell is empty."""
    columns: dict[str, Cells] = {}
    lines = array("q")
    for number, row in objects:
        if not isinstance(row, dict):
            raise InputError(
                f"{path.name}:{number}: expected an object, found {type(row).__name__}. "
                "Mend the line."
            )
        for name in row:
            if name not in columns:
                columns[name] = _make_cells(name)
                columns[name].fill(len(lines))
        for name, cells in columns.items():
            cells.append(_to_cell(row.get(name)))
        lines.append(number)
    return Table(path, columns, lines, is_text=False)


def _to_cell(value: Any) -> Cell:  # noqa: ANN401  # whatever JSON or Parquet holds
    if isinstance(value, float) and np.isnan(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _read_parquet(path: Path, path_column: str, root: Place) -> Table:
    from pyarrow import ArrowInvalid, parquet

    try:
        content = parquet.read_table(path)
    except ArrowInvalid as error:
        raise InputError(
            f"{path}: expected a table in Parquet, found: {first_line(error)}. Save it again."
        ) from error
    columns = {
        name: _make_cells(
            name, (_to_cell(cell) for chunk in column.chunks for cell in chunk.to_pylist())
        )
        for name, column in zip(content.column_names, content.columns, strict=True)
    }
    return Table(path, columns, range(1, len(content) + 1), is_text=False)


_READERS: dict[str, Callable[[Path, str, Place], Table]] = {
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
