"""`featx export`: a file for each video, for tools that want that."""

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from featx.commands.parser import ConciseParser
from featx.durable import expand, replace_file, writing
from featx.errors import InputError, OutputError
from featx.features.feature_file import (
    DAMAGE,
    UNLABELLED,
    open_feature_file,
    read_columns,
    read_features,
    refuse_damage,
)
from featx.features.provenance import Provenance
from featx.features.validation import find_problems
from featx.progress import make_bar

INDEX = "index.csv"

_SUFFIX = re.compile(r"(?<=[^/.])\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{2,4}$")  # such as that of a clip
_ODD = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*%]')  # not in names of files everywhere
_MAX_BYTES = 200  # of a name, of the 255 that file systems take
_MAX_PATH = 1000  # of a path, of the 4096 that systems take

FormatName = Literal["npy"]


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx export`; returns its exit status."""
    parser = ConciseParser(prog="featx export", description=summary)
    parser.add_function_arguments(export, as_positional=True, skip={"transpose", "overwrite"})
    parser.add_argument("--transpose", action="store_true", help="[D, T] instead of [T, D]")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    given = parser.parse_args(args)
    count = export(**vars(given))
    print(f"{count:,} videos in {given.folder}, which {INDEX} lists")
    return 0


def export(
    file: Path,
    folder: Path,
    format: FormatName = "npy",
    transpose: bool = False,
    overwrite: bool = False,
) -> int:
    """Write the features of each video into a file of its own, without padding.

    They are called as the videos are; index.csv has the name, the label and the length of each.

    Args:
        file: A feature file.
        folder: Folder for the files.
        format: npy: float32 [T, D], as numpy.load reads it.
        transpose: Write [D, T] instead.
        overwrite: Replace files that are there.

    Returns:
        The number of videos.

    Raises:
        InputError: It is no feature file, or is damaged.
        OutputError: There are files already, or one cannot be written.
    """
    path, folder = expand(file), expand(folder)
    with open_feature_file(path) as opened:
        if problems := find_problems(opened, read_features=False):
            raise InputError(f"{path}: {problems[0]}. Extract its features again.")
        try:
            total = len(opened["labels"])
            ids = opened["video_ids"].asstr()[:] if "video_ids" in opened else range(total)
            labels, num_frames = opened["labels"][:].tolist(), opened["num_frames"][:].tolist()
            columns = {name: cells.tolist() for name, cells in read_columns(opened).items()}
        except DAMAGE as error:
            raise refuse_damage(path, error) from error
        categories = Provenance.from_attributes(opened.attrs).categories
        category_of = {label: name for name, label in categories.items()} | {UNLABELLED: ""}
        names = name_files([str(each) for each in ids])
        if not overwrite:
            with writing(folder):
                _check_free(folder, names)
        lines: list[Sequence[object]] = [
            ("file", "video_id", "label", "category", "num_frames", *columns)
        ]
        for row in make_bar(range(total), "Exporting", total, "video"):
            try:
                features = read_features(opened, row)
            except DAMAGE as error:
                raise refuse_damage(path, error) from error
            name = f"{names[row]}.{format}"
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(features.T) if transpose else features)
            with writing(folder / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                replace_file(folder / name, buffer.getbuffer())
            category = category_of.get(labels[row], "")
            cells = (values[row] for values in columns.values())
            lines.append((name, str(ids[row]), labels[row], category, num_frames[row], *cells))
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    with writing(folder / INDEX):
        replace_file(folder / INDEX, text.getvalue().encode())
    return total


def name_files(ids: Sequence[str]) -> list[str]:
    """A path below the folder for each video, without a suffix, whatever its name.

    It is the name, with its folders, but without the suffix of a clip if that leaves all of them
    distinct; what is no name of a file everywhere is written as in an address.
    """
    plain = [_to_path(each) for each in ids]
    short = [_SUFFIX.sub("", each) for each in plain]
    chosen = short if len({each.casefold() for each in short}) == len(short) else plain
    # Some file systems do not tell upper case from lower case.
    taken, seen, names = {each.casefold() for each in chosen}, set[str](), []
    folders = {str(parent).casefold() for each in chosen for parent in PurePosixPath(each).parents}
    for each in chosen:
        name = each
        if each.casefold() in seen or f"{each}.npy".casefold() in folders:
            numbered = (f"{each}-{number}" for number in count(2))
            name = next(new for new in numbered if new.casefold() not in taken)
        taken.add(name.casefold())
        seen.add(name.casefold())
        names.append(name)
    return names


def _to_path(name: str) -> str:
    """The name of a video as a relative path that stays below its folder."""
    parts = []
    for number, part in enumerate(PurePosixPath(name.lstrip("/") or "%").parts):
        safe = _ODD.sub(lambda found: f"%{ord(found[0]):02X}", part)
        if number == 0 and safe.casefold() == INDEX:  # it would be a folder of that name
            safe = f"%{ord(safe[0]):02X}{safe[1:]}"
        if not safe.strip("."):
            safe = safe.replace(".", "%2E")
        if len(safe.encode()) > _MAX_BYTES:
            digest = hashlib.sha256(part.encode()).hexdigest()[:16]
            safe = f"{safe.encode()[: _MAX_BYTES - 17].decode(errors='ignore')}-{digest}"
        parts.append(safe)
    path = "/".join(parts) or "%2E"
    if len(path.encode()) > _MAX_PATH:
        return f"{parts[0]}/{hashlib.sha256(name.encode()).hexdigest()}"
    return path


def _check_free(folder: Path, names: Sequence[str]) -> None:
    """Refuse to replace files.

    Raises:
        OutputError: There are some.
    """
    paths = (folder / name for name in (INDEX, *(f"{name}.npy" for name in names)))
    if found := next((path for path in paths if path.exists()), None):
        raise OutputError(
            f"{found}: expected no file, found one. Set overwrite to replace those that are there, "
            "or choose another folder."
        )
