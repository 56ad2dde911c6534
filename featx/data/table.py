"""Read annotation tables: the cells of each column, in whichever format people keep them."""

import csv
import json
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from featx.data.cells import TEXT, Cell, CellColumn, strip, to_column
from featx.data.storage import Place, at_hand, exists, is_file, is_remote, join, name_of
from featx.data.tree import is_name
from featx.errors import InputError, MissingInputError, UsageError, first_line, shorten

NAMES = ("path", "split", "label", "id")
"""The columns that name something: where a video is, and what it is called."""

NUMBERS = ("start", "end", "start_frame", "end_frame", "left", "top", "right", "bottom")
"""The columns that say with numbers which part of a clip a video is."""

KNOWN = (*NAMES, *NUMBERS)
"""The columns that have a meaning. All others are kept as they are."""

_DELIMITERS = ",;\t|"
_QUOTES_ARE_LETTERS = "\t|"  # delimiters of tables in which a cell may begin with a quote
_ROWS_AT_ONCE = 2**12
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a table.

    Attributes:
        path: The file.
        columns: The cells of each column `[num_rows]`, by name, null where they are empty. They
            are texts, or numbers where all of a column are numbers of JSON or Parquet.
        lines: The line of each row in the file, or its number, from 1.
        guessed: The columns of texts that are numbers if all cells are written as numbers.
        bad: The errors of rows that are left out, by line.
    """

    path: Place
    columns: dict[str, pa.Array]
    lines: Sequence[int]
    guessed: Collection[str]
    bad: Mapping[int, InputError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """Return the place of a row, for messages."""
        return self.where_line(self.lines[row])

    def where_line(self, line: int) -> str:
        """Return the place of a line, for messages."""
        return f"{name_of(self.path)}:{line}"

    def find_extra(self) -> dict[str, pa.Array]:
        """Return the columns without a meaning, by a name that HDF5 takes, sorted.

        They are int64, float64 or texts, without nulls.

        Raises:
            InputError: HDF5 cannot hold a cell, or two columns have the same name.
        """
        extra: dict[str, pa.Array] = {}
        for name, cells in self.columns.items():
            short = name.replace("/", "_").strip()
            if name in KNOWN or short in ("", ".", ".."):
                continue
            if short in extra or not is_name(short):
                raise InputError(
                    f"{self.path}: expected columns of different names in UTF-8, found {name!r}. "
                    "Rename it."
                )
            extra[short] = column = to_column(cells, name in self.guessed)
            if column.type == TEXT and (row := _find_nul(column)) >= 0:
                raise InputError(
                    f"{self.where(row)}: expected text in UTF-8 without NUL in {name}, found "
                    f"{column[row].as_py()!r}. Fix the row."
                )
        return dict(sorted(extra.items()))


def _find_nul(column: pa.Array) -> int:
    row: int = pc.index(pc.match_substring(column, "\0"), True).as_py()
    return row


class _Content(NamedTuple):
    """A table as its file has it, before its columns have their meaning."""

    columns: dict[str, CellColumn]
    lines: Sequence[int]
    bad: Mapping[int, InputError] = {}
    has_commas: bool = False  # numbers may have a comma for a point


def read_table(path: Place, columns: Mapping[str, str], root: Place) -> Table:
    """Read a table: .csv, .tsv, .jsonl, .json, .parquet, or lines of a path and a label.

    Args:
        path: The file.
        columns: The names of columns in the file, by their meaning. All others are found by their
            names, in capitals or not.
        root: The folder that paths are relative to, to tell a header from a path.

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
            content = read(near, columns.get("path", "path"), root)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected text in UTF-8, found a byte {error.object[error.start]:#04x} that "
            "is not. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable table, found: {first_line(error)}. Check its permissions."
        ) from error
    table = _name_columns(path, content, columns)
    if not len(table) and not table.bad:
        raise MissingInputError(f"{path}: expected rows, found none. Give another table.")
    return table


def _name_columns(path: Place, content: _Content, columns: Mapping[str, str]) -> Table:
    """Return the table with the names that have a meaning."""
    names = _find_names(path, [*content.columns], columns)
    renamed: dict[str, pa.Array] = {}
    guessed = set()
    for theirs in [*content.columns]:
        name, cells = names[theirs], content.columns.pop(theirs)
        if name in renamed:
            raise InputError(
                f"{path}: expected columns of different names, found two of {name}. "
                "Rename one, or say with columns which one it is."
            )
        has_words = name in NAMES and name != "label"  # a path may be a number in JSON
        renamed[name] = cells.to_texts() if has_words else cells.to_array()
        if name in KNOWN and renamed[name].type == TEXT:
            renamed[name] = strip(renamed[name])
            if content.has_commas and name in NUMBERS:
                renamed[name] = pc.replace_substring(renamed[name], ",", ".")
        if cells.is_guessed:
            guessed.add(name)
    return Table(path, renamed, content.lines, guessed, content.bad)


def _find_names(path: Place, found: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each column: one that has a meaning, or the name in the file."""
    listed = shorten(found, 20)
    if missing := [name for name in columns.values() if name not in found]:
        raise UsageError(
            f"columns: expected columns of {name_of(path)} ({listed}), found {', '.join(missing)}."
        )
    names = {theirs: ours for ours, theirs in columns.items()}
    for name in found:
        ours = name.strip().lower()
        if ours in KNOWN and ours not in {*columns, *found, *names.values()}:
            names.setdefault(name, ours)
    # A column whose name was given to another one gets a name without a meaning.
    chosen = {name: names.get(name, f"{name}_" if name in columns else name) for name in found}
    if "path" not in chosen.values():
        raise InputError(
            f"{path}: expected a column path, found "
            f"{f'the columns {listed}' if any(found) else 'no columns'}. "
            "Say with columns which one it is, such as columns: {path: video}."
        )
    return chosen


class _Dialect(NamedTuple):
    """How a table of text is written."""

    delimiter: str
    header: str
    names: list[str]
    has_note: bool  # a line before the header that names the delimiter, as spreadsheets write it


def _find_dialect(path: Path, path_column: str) -> _Dialect:
    """Find the delimiter of a table and the names of its columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        if note := re.match(r"sep=(.)\r?\n", header):
            header = file.readline()
    unquoted = re.sub(r'"[^"]*"', "", header)
    delimiters = sorted(_DELIMITERS, key=unquoted.count, reverse=True)
    if note or path.suffix.lower() == ".tsv":
        delimiters = [note[1] if note else "\t"]
    names = {delimiter: _split_header(header, delimiter) for delimiter in delimiters}
    fitting = (delimiter for delimiter in delimiters if path_column in names[delimiter])
    delimiter = next(fitting, delimiters[0])
    return _Dialect(delimiter, header, names[delimiter], has_note=note is not None)


def _split_header(header: str, delimiter: str) -> list[str]:
    if delimiter in _QUOTES_ARE_LETTERS:
        return [name.strip() for name in _split_row(header.rstrip("\r\n"), delimiter)]
    rows = [*csv.reader([header], delimiter=delimiter)]
    return [name.strip() for name in rows[0]] if rows else []


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lift the limit of a cell's length, which the module has for the whole process."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_delimited(path: Path, path_column: str, root: Place) -> _Content:
    """Read a table whose first line names its columns; or lines without such a line."""
    dialect = _find_dialect(path, path_column)
    names = dialect.names
    if path_column not in names and "path" not in map(str.lower, names):
        first, _ = _split_line(dialect.header, dialect.delimiter)
        if len(names) <= 2 and not dialect.has_note and _exists(root, first):
            return _read_lines(path, path_column, root)
    if double := sorted({name for name in names if name and names.count(name) > 1}):
        raise InputError(
            f"{path}: expected columns of different names, found two of {shorten(double)}. "
            "Rename one."
        )
    bad: dict[int, InputError] = {}
    lines = array("q")
    columns = [CellColumn() for _ in names]  # several may have no name

    def read_whole_rows() -> Iterator[list[str]]:
        read = _read_letters if dialect.delimiter in _QUOTES_ARE_LETTERS else _read_quoted
        for line, row in read(path, dialect):
            if len(row) == len(names) and any(row):
                lines.append(line)
                yield row
            elif any(row):
                bad[line] = InputError(
                    f"{path.name}:{line}: expected {len(names)} fields, as the first line has, "
                    f"found {len(row)}. Fix the line; text with a {dialect.delimiter!r} in it "
                    "needs quotes."
                )

    rows = read_whole_rows()
    while several := [*islice(rows, _ROWS_AT_ONCE)]:
        for column, cells in zip(columns, zip(*several, strict=True), strict=True):
            column.extend(cells)
    named = dict(zip(names, columns, strict=True))
    return _Content(named, lines, bad, has_commas=dialect.delimiter == ";")


def _read_quoted(path: Path, dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table in which quotes are doubled, each with the line it begins on."""
    with path.open(encoding="utf-8-sig", newline="") as file, _long_cells():
        reader = csv.reader(file, delimiter=dialect.delimiter, strict=True)
        begin = 0
        try:
            for _ in range(1 + dialect.has_note):
                next(reader, None)
            begin = reader.line_num
            for row in reader:
                line = begin + 1
                begin = reader.line_num  # there may be newlines in a cell
                yield line, row
        except csv.Error as error:
            raise InputError(
                f"{path.name}:{begin + 1}: expected a line of a table, found: {error}. "
                "Fix the line: quotes have to be closed, and doubled within others."
            ) from error


def _read_letters(path: Path, dialect: _Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table in which a quote is a letter, a row a line."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if number > 1 + dialect.has_note:
                text = line.removesuffix("\n")
                yield number, _split_row(text, dialect.delimiter, len(dialect.names))


def _split_row(line: str, delimiter: str, count: int | None = None) -> list[str]:
    """Return the cells of a line; those that are quoted whole without the quotes.

    Args:
        line: The line.
        delimiter: The letter between cells. It belongs to a cell that is quoted whole, but not
            where the line without quotes has as many cells as it should have.
        count: The number of cells.
    """
    cells = line.split(delimiter)
    if '"' not in line:
        return cells
    if len(cells) != count:
        mark = re.escape(delimiter)
        cells = re.findall(rf'(?:^|{mark})("(?:[^"]|"")*"(?={mark}|$)|[^{mark}]*)', line)
    return [cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell for cell in cells]


def _read_lines(path: Path, path_column: str, root: Place) -> _Content:
    """Read lines of a path and a label, or of a path alone."""
    paths, labels = CellColumn(), CellColumn()
    lines = array("q")
    delimiter = "," if path.suffix.lower() == ".csv" else None
    has_labels = False
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                name, label = _split_line(line, delimiter)
                # A path with a space, and no label. A request for each would take too long.
                if label and not is_remote(root) and _exists(root, line.strip()):
                    name, label = line.strip(), None
                has_labels = has_labels or bool(label)
                lines.append(number)
                paths.extend((name,))
                labels.extend((label,))
    return _Content({path_column: paths} | ({"label": labels} if has_labels else {}), lines)


def _split_line(line: str, delimiter: str | None) -> tuple[str, str | None]:
    """Return the path of a line, which may have spaces in it, and the label."""
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


def _read_objects(path: Path, path_column: str, root: Place) -> _Content:
    """Read objects of JSON: one a line, or a list of them."""
    with path.open(encoding="utf-8-sig") as file:
        if path.suffix.lower() != ".json":
            lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
            kind = "an object of JSON"
            return _join(
                path,
                ((number, _parse(f"{path.name}:{number}", kind, line)) for number, line in lines),
            )
        content = _parse(path, "JSON", file.read())
    if not isinstance(content, list):
        raise InputError(
            f"{path}: expected a list of objects, found {type(content).__name__}. Make a table of "
            "it, a row for each video."
        )
    return _join(path, enumerate(content, start=1))


def _parse(where: str | Path, kind: str, text: str) -> Any:  # noqa: ANN401  # whatever JSON holds
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        found = first_line(error)
        raise InputError(f"{where}: expected {kind}, found: {found}. Fix it.") from error


def _join(path: Path, objects: Iterable[tuple[int, Any]], names: Iterable[str] = ()) -> _Content:
    """Return the columns of objects; where an object lacks a name, its cell is empty."""
    columns = {name: CellColumn() for name in names}
    lines = array("q")
    for number, row in objects:
        if not isinstance(row, dict):
            raise InputError(
                f"{path.name}:{number}: expected an object, found {type(row).__name__}. "
                "Fix the line."
            )
        for name in row:
            if name not in columns:
                columns[name] = CellColumn()
                columns[name].extend([None] * len(lines))
        for name, cells in columns.items():
            cells.append(_to_cell(row.get(name)))
        lines.append(number)
    return _Content(columns, lines)


def _to_cell(value: Any) -> Cell:  # noqa: ANN401  # whatever JSON or Parquet holds
    if isinstance(value, float) and np.isnan(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _read_parquet(path: Path, path_column: str, root: Place) -> _Content:
    try:
        with parquet.ParquetFile(path) as file:
            batches = file.iter_batches(_ROWS_AT_ONCE)
            rows = (row for batch in batches for row in batch.to_pylist())
            return _join(path, enumerate(rows, start=1), file.schema_arrow.names)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path}: expected a table in Parquet, found: {first_line(error)}. Save it again."
        ) from error


_READERS: dict[str, Callable[[Path, str, Place], _Content]] = {
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
