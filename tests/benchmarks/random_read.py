"""Reading one random video: of featx's file, of its shards, and of the plain loop's layout.

    python tests/benchmarks/random_read.py [--videos 120] [--shards 100]

The same features are in all; reads alternate, and medians count. Of files that are opened anew each
time, nothing is cached; `FeatureDataset` keeps them open, as in training.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.features.dataset import FeatureDataset
from featx.features.feature_file import FileLayout, create, encode, write_row
from featx.features.provenance import Provenance
from featx.features.shards import shard_path, write_over_shards

NUM_FRAMES, FEATURE_DIM, READS = 73, 1280, 300


def main() -> None:
    """Print milliseconds per read, and the sizes of the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--shards", type=int, default=100)
    given = parser.parse_args()
    count = given.videos
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, NUM_FRAMES, FEATURE_DIM), np.float32)
    features = np.maximum(features, 0)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.h5" for name in ("featx", "shards", "plain")}
        write(paths["featx"], features, 0)
        bounds = np.linspace(0, count, min(given.shards, count) + 1).astype(int)
        shards = [shard_path(paths["shards"], number) for number in range(len(bounds) - 1)]
        shards[0].parent.mkdir()
        for path, start, stop in zip(shards, bounds[:-1], bounds[1:], strict=True):
            write(path, features[start:stop], start)
        write_over_shards(paths["shards"], shards, Provenance({}, False))
        with h5py.File(paths["plain"], "w") as file:
            file.create_dataset("features", data=features, compression="gzip", compression_opts=4)
        datasets = {name: FeatureDataset(paths[name]) for name in ("featx", "shards")}
        for row in range(count):  # all shards are open now, as far as they stay open
            datasets["shards"][row]
        seconds: dict[str, list[float]] = {}

        def measure(name: str, read: Callable[[], NDArray[np.float32]], row: int) -> None:
            start = time.perf_counter()
            found = read()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            assert np.array_equal(found, features[row])

        for row in rng.integers(0, count, READS).tolist():
            for name, path in paths.items():
                with h5py.File(path) as file:
                    measure(f"{name}, h5py", partial(file["features"].__getitem__, row), row)
            for name, dataset in datasets.items():
                measure(f"{name}, FeatureDataset", partial(read_item, dataset, row), row)
        for name, each in seconds.items():
            print(f"{name}: {statistics.median(each) * 1e3:.2f} ms")
        for name, path in paths.items():
            size = path.stat().st_size + sum(s.stat().st_size for s in shards) * (name == "shards")
            print(f"{name}: {size / 1e6:.1f} MB")


def write(path: Path, features: NDArray[np.float32], first: int) -> None:
    """Write a feature file, whose videos are called by their numbers."""
    count = len(features)
    names = [f"{first + number}" for number in range(count)]
    lengths = np.full(count, NUM_FRAMES, np.int32)
    layout = FileLayout.plan(
        np.zeros(count, np.int64), lengths, names, FEATURE_DIM, Provenance({}, False)
    )
    with h5py.File(path, "w") as file:
        create(file, layout)
        for row, values in enumerate(features):
            write_row(file, row, encode(values, layout))


def read_item(dataset: FeatureDataset, row: int) -> NDArray[np.float32]:
    """A row of a dataset that stays open."""
    found: NDArray[np.float32] = dataset[row].features.numpy()
    return found


if __name__ == "__main__":
    main()
