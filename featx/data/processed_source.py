"""The source `processed`: the `processed_data.pt` files of a folder; no pixels are read."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featx.console import make_bar
from featx.data.archive import verify_checksums
from featx.data.folders import (
    STANDARD_SPLITS,
    check_name,
    choose_splits,
    has_file,
    list_folders,
    normalize_name,
    walk_files,
)
from featx.data.manifest import (
    ANALYSIS_FILE,
    Manifest,
    Rejections,
    ScanSettings,
    VideoFile,
    summarize_scan,
)
from featx.data.processed_file import FILE_NAME, ProcessedFile, open_processed_file
from featx.data.table import to_array
from featx.errors import InputError, MissingInputError, shorten
from featx.files import read_json
from featx.parallel import map_ahead

_READ_AHEAD_THREADS = 4
_READ_AHEAD = 64  # files for each thread, which hide the latency of a network disk
_END_BYTES = 2**14


def find_processed_splits(settings: ScanSettings) -> list[str]:
    """The splits asked for; or those of the table that the files were made of; or the usual ones.

    Raises:
        MissingInputError: One does not exist.
    """
    recorded = read_json(settings.root / ANALYSIS_FILE).get("table_splits")
    splits = settings.splits
    if splits is None and isinstance(recorded, list) and all(isinstance(s, str) for s in recorded):
        splits = recorded
    return choose_splits(settings.root, splits)


def scan_processed(settings: ScanSettings) -> Manifest:
    """List the videos under `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.

    Every header is read and checked. Folders whose name begins with a dot are ignored: editors and
    file systems make them.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no videos.
        InputError: Files are damaged, or not what featx accepts; or a split has no others.
    """
    root = settings.root
    splits = find_processed_splits(settings)
    analysis = read_json(root / ANALYSIS_FILE)
    categories = _list_categories(root, splits, analysis.get("categories"))
    rejected = Rejections(splits)
    paths = [path for split in splits for path in _list_split(root, split, rejected)]
    files: list[VideoFile] = []
    # Threads read ahead, but one alone interprets what was read: several would only contend for
    # the interpreter.
    prepare, number = (verify_checksums, 2) if settings.verify else (_read_ends, _READ_AHEAD)
    with closing(map_ahead(prepare, paths, _READ_AHEAD_THREADS, "read-ahead", number)) as ahead:
        for path, prepared in make_bar(ahead, "Scanning", len(paths), "file", settings.progress):
            split, place = path.parts[-4], "/".join(path.parts[-4:-1])
            with rejected.collect(split, place):
                prepared.result()
                check_name(path, "/".join(path.parts[-4:]))
                file = open_processed_file(path, pixels=settings.pixels)
                rejected[split] |= {file.name_place(i): bad for i, bad in file.rejected.items()}
                if file.blocks:
                    files.append(file)
    rejected.check(settings, files)
    recorded = analysis.get("preprocessing_info")
    preprocessing = recorded if isinstance(recorded, dict) else None
    known = {*paths, root / ANALYSIS_FILE}
    summary = summarize_scan(settings, files, rejected, known, _is_input, walk_files(root))
    return Manifest(
        root,
        categories,
        files,
        rejected,
        preprocessing,
        summary,
        _join_columns(files),
        has_times=all(isinstance(file, ProcessedFile) and file.times for file in files),
    )


def _join_columns(files: Sequence[VideoFile]) -> dict[str, NDArray[Any]]:
    """What notes say of all videos, by name; empty where they do not."""
    notes: list[Mapping[str, Any]] = []
    for file in files:
        if isinstance(file, ProcessedFile):
            known = file.columns
            notes += [known[index] if known else {} for index in file.indices]
    names = dict.fromkeys(name for note in notes for name in note)
    return {
        name: to_array([note.get(name) for note in notes], is_text=False) for name in sorted(names)
    }


def _is_input(name: str) -> bool:
    return name == FILE_NAME


def _list_categories(root: Path, splits: Sequence[str], recorded: object) -> dict[str, int]:
    """Label of each category of the standard splits and of others: one mapping for all of them.

    Where labels are not those of sorted names, the record beside the files says which they are.

    Raises:
        InputError: It does not say it of all.
    """
    mapped = [folder for folder in list_folders(root) if folder.name in {*STANDARD_SPLITS, *splits}]
    names = {normalize_name(path.name) for folder in mapped for path in list_folders(folder)}
    if isinstance(recorded, dict):
        if unknown := sorted(names - recorded.keys()):
            raise InputError(
                f"{root / ANALYSIS_FILE}: expected the label of each category, found none of "
                f"{shorten(unknown)}. Run featx preprocess again, or remove their folders."
            )
        labels = {name: label for name, label in recorded.items() if isinstance(label, int)}
        return {name: label for name, label in labels.items() if label >= 0}
    return {name: label for label, name in enumerate(sorted(names))}


def _list_split(root: Path, split: str, rejected: Rejections) -> list[Path]:
    """The files of one split, in row order; what is wrong with its folders is added."""
    paths = []
    for category in list_folders(root / split):
        with rejected.collect(split, f"{split}/{category.name}"):
            subcategories = list_folders(category)
            for subcategory in subcategories:
                with rejected.collect(split, f"{split}/{category.name}/{subcategory.name}"):
                    if has_file(subcategory, FILE_NAME):
                        paths.append(subcategory / FILE_NAME)
            if has_file(category, FILE_NAME):
                raise InputError(
                    f"{category / FILE_NAME}: expected "
                    f"{root}/<split>/<category>/<subcategory>/{FILE_NAME}, "
                    "found it in the category's own folder. Move it into a subcategory's."
                )
    if not paths and not rejected[split]:
        rejected[split][split] = MissingInputError(
            f"{root / split}: expected videos at <category>/<subcategory>/{FILE_NAME}, found "
            "none. Make them from clips with: featx preprocess RAW_DIR PROCESSED_DIR; or set "
            "source to clips or frames."
        )
    return paths


def _read_ends(path: Path) -> None:
    """Have the system cache the two ends of a file, which describe what is in it."""
    with suppress(OSError):  # it comes again when the file is read
        if path.is_file():  # and not a pipe, which would wait
            with path.open("rb", buffering=0) as file:
                file.read(_END_BYTES)
                file.seek(-min(_END_BYTES, path.stat().st_size), os.SEEK_END)
                file.read(_END_BYTES)
