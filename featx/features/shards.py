"""A split in several files: rows 0 to N - 1 in the first one, and so on, and one file over all.

Each shard is a feature file of its own. The file over them has everything but features and times,
which are virtual datasets: HDF5 takes them from the shards, which it finds by their place beside
the file. Of a shard that it does not find it makes zeros, without a word: so look at the shards.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, MissingInputError, first_line
from featx.features.feature_file import (
    COLUMNS,
    DAMAGE,
    INPUTS,
    RUN,
    TIMES,
    open_feature_file,
    write_attributes,
)
from featx.features.provenance import Provenance

_AT_ONCE = 2**16  # rows in memory


class Shard(NamedTuple):
    """A file with some rows of a split.

    Attributes:
        path: The file.
        start: Its first row in the split.
        stop: Where its rows end.
    """

    path: Path
    start: int
    stop: int


def shard_path(target: Path, number: int) -> Path:
    """The path of a shard of the feature file at another path."""
    return target.with_suffix("") / f"{number:05d}.h5"


def list_shard_paths(target: Path) -> list[Path]:
    """What there is at paths of shards of a feature file."""
    folder = target.with_suffix("")
    found = folder.glob("*.h5") if folder.is_dir() else ()
    return sorted(path for path in found if path.stem.isdecimal() and len(path.stem) >= 5)


def find_shards(file: h5py.File, folder: Path | None = None) -> list[Shard]:
    """The shards of an open feature file; none of one that has its features itself.

    Args:
        file: The file.
        folder: The folder beside whose files it is to stand; by default, its own.
    """
    features = file["features"]
    if not features.is_virtual:
        return []
    sources = features.virtual_sources()
    names = [source.file_name.replace("%%", "%") for source in sources]
    if folder is None:
        path = Path(file.filename)
        folder = path.parent
        if path.is_symlink() and not (folder / names[0]).exists():  # so HDF5 looks for them
            folder = path.resolve().parent
    shards: list[Shard] = []
    for source, name in zip(sources, names, strict=True):
        first, last = source.vspace.get_select_bounds()
        shards.append(Shard(folder / name, first[0], last[0] + 1))
    starts = [0, *(shard.stop for shard in shards)]
    is_ours = starts[:-1] == [shard.start for shard in shards] and starts[-1] == len(features)
    return shards if is_ours else []


def open_shard(shard: Shard, whole: h5py.File) -> h5py.File:
    """Open a shard, after a check that it has the rows that the file over all says it has.

    Raises:
        InputError: It cannot be read, or has others.
    """
    rows = slice(shard.start, shard.stop)
    try:
        names = [name for name in ("num_frames", INPUTS) if name in whole]
        names += ["video_ids"] * (INPUTS not in whole and "video_ids" in whole)
        expected = {name: whole[name][rows] for name in names}
        file = open_feature_file(shard.path)
    except MissingInputError as error:
        raise _refuse(shard, whole, "no file") from error
    except (InputError, *DAMAGE) as error:
        raise _refuse(shard, whole, first_line(error)) from error
    try:
        is_same = file["features"].shape[2] == whole["features"].shape[2] and all(
            name in file and np.array_equal(file[name][:], values)
            for name, values in expected.items()
        )
    except DAMAGE as error:
        file.close()
        raise _refuse(shard, whole, first_line(error)) from error
    if not is_same:
        file.close()
        raise _refuse(shard, whole, "a file with others")
    return file


def find_size(path: Path, shards: Sequence[Shard]) -> int:
    """Bytes of a file, and of the shards that it is over, as far as they are there."""
    paths = (path, *(shard.path for shard in shards))
    return sum(each.stat().st_size for each in paths if each.exists())


def _refuse(shard: Shard, whole: h5py.File, found: str) -> InputError:
    return InputError(
        f"{shard.path}: expected rows {shard.start:,} to {shard.stop - 1:,} of "
        f"{Path(whole.filename).name}, found {found}. Put the file that was written back, or "
        "extract again with overwrite: only its videos are made again."
    )


def write_over_shards(path: Path, shards: Sequence[Path], provenance: Provenance) -> None:
    """Write the file over all shards, to be put beside the folder that they are in.

    Args:
        path: Where to write it.
        shards: Paths of the shards, in order.
        provenance: How the features are made; the runs are those of the shards.
    """
    starts, lengths, runs = [0], [], dict[str, int]()
    for each in shards:
        with open_feature_file(each) as shard:
            starts.append(starts[-1] + len(shard["labels"]))
            lengths.append(shard["features"].shape[1])
            for run in Provenance.from_attributes(shard.attrs).runs:
                runs.setdefault(json.dumps(run, sort_keys=True), len(runs))
    count, max_frames = starts[-1], max(lengths)
    with h5py.File(path, "w", locking=False) as file, open_feature_file(shards[0]) as first:
        dim = first["features"].shape[2]

        def add_virtual(name: str, fill: float) -> None:
            rest = first[name].shape[2:]
            layout = h5py.VirtualLayout((count, max_frames, *rest), np.float32)
            layout.dcpl.set_obj_track_times(False)  # the same bytes at any time
            for each, start, stop, length in zip(
                shards, starts[:-1], starts[1:], lengths, strict=True
            ):
                place = f"{each.parent.name}/{each.name}".replace("%", "%%")
                source = h5py.VirtualSource(place, name, (stop - start, length, *rest), np.float32)
                layout[start:stop, :length] = source
            file.create_virtual_dataset(name, layout, np.float32(fill))

        add_virtual("features", 0.0)
        names = ["labels", "num_frames", "video_ids", *(n for n in (INPUTS, RUN) if n in first)]
        for name in names:
            file.create_dataset(name, (count,), first[name].dtype)
        if TIMES in first:
            add_virtual(TIMES, np.nan)
        columns = [f"{COLUMNS}/{name}" for name in first.get(COLUMNS, ())]
        for name in columns:
            file.create_dataset(name, (count,), first[name].dtype)
        for each, start in zip(shards, starts, strict=False):
            with open_feature_file(each) as shard:
                _copy_columns(shard, file, start, [*names, *columns], runs)
        made = replace(provenance, runs=[json.loads(run) for run in runs])
        write_attributes(file, count, max_frames, dim, made)


def _copy_columns(
    shard: h5py.File, file: h5py.File, start: int, names: Sequence[str], runs: dict[str, int]
) -> None:
    """Copy what a shard has of each row but features, some rows at a time."""
    made = Provenance.from_attributes(shard.attrs).runs
    number = np.array([runs[json.dumps(run, sort_keys=True)] for run in made], np.int32)
    for name in names:
        for row in range(0, len(shard["labels"]), _AT_ONCE):
            values: NDArray[Any] = shard[name][row : row + _AT_ONCE]
            if name == RUN:
                values = number[values]
            file[name][start + row : start + row + len(values)] = values


def describe_structure(file: h5py.File) -> dict[str, Any]:
    """Shapes, statistics of num_frames, and compression of an open feature file, for JSON."""
    features, num_frames = file["features"], file["num_frames"][:]
    created = _describe_compression(file)
    statistics = {}
    if len(num_frames):
        statistics = {
            "min": int(num_frames.min()),
            "max": int(num_frames.max()),
            "mean": float(num_frames.mean()),
        }
    return {
        "file": Path(file.filename).name,
        "features_shape": [*features.shape],
        "labels_shape": [*file["labels"].shape],
        "num_frames": statistics,
        "feature_dim": int(file.attrs["feature_dim"]),
        "multi_scale": bool(file.attrs["multi_scale"]),
        "compression": created[0],
        "compression_level": created[1],
    }


def _describe_compression(file: h5py.File) -> tuple[str | None, int | None]:
    """How features are compressed: in the first shard that can be opened, if there are shards."""
    for shard in find_shards(file):
        with suppress(InputError), open_shard(shard, file) as opened:
            return opened["features"].compression, opened["features"].compression_opts
    return file["features"].compression, file["features"].compression_opts
