"""What there is of feature files in a folder, finished or not."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from featx.errors import InputError, MissingInputError
from featx.features.feature_file import DAMAGE, open_feature_file
from featx.features.finished import PART_ROWS
from featx.features.folder import list_feature_files
from featx.features.shards import list_shard_paths
from featx.features.staged import STAGING_FOLDER


class Found(NamedTuple):
    """What there is.

    Attributes:
        published: Videos of each feature file, by its name; None where it cannot be read.
        unpublished: Videos of each file that is still to be, by its name: those in parts, and in
            shards that no file is over yet.
    """

    published: Mapping[str, int | None]
    unpublished: Mapping[str, int]


def find_finished(folder: Path) -> Found:
    """Count the videos that are finished.

    Raises:
        MissingInputError: There is no such folder, or nothing of featx in it.
        InputError: It cannot be read.
    """
    staging = folder / STAGING_FOLDER
    try:
        paths = list_feature_files(folder)
    except MissingInputError:
        if not staging.is_dir():
            raise
        paths = []
    published: dict[str, int | None] = {}
    for path in paths:
        published[path.name] = None
        with suppress(InputError, *DAMAGE), open_feature_file(path) as file:
            published[path.name] = len(file["num_frames"])
    unpublished: dict[str, int] = {}
    for plan in sorted(staging.glob("*/*/")):
        rows: list[int] = []
        parts = sorted(plan.glob("part-*.h5"))
        for part in parts:
            with suppress(*DAMAGE), h5py.File(part, "r", locking=False) as file:
                rows += file[PART_ROWS][:].tolist()
        if parts:
            name = f"{plan.parent.name}.h5"
            unpublished[name] = unpublished.get(name, 0) + len(np.unique(rows))
    for place in sorted(folder.glob("*_features*/")):
        if (name := f"{place.name}.h5") not in published:
            for shard in list_shard_paths(folder / name):
                with suppress(InputError, *DAMAGE), open_feature_file(shard) as file:
                    unpublished[name] = unpublished.get(name, 0) + len(file["num_frames"])
    return Found(published, unpublished)
