"""Reading one random video: from a file of featx, and from one of the plain loop's layout.

    python tests/benchmarks/random_read.py [--videos 120]

The same features are in both; reads alternate, and medians count.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from featx.features.feature_file import FileLayout, create, encode, write_row
from featx.features.provenance import Provenance

NUM_FRAMES, FEATURE_DIM, READS = 73, 1280, 300


def main() -> None:
    """Print milliseconds per read, and the sizes of the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=120)
    count = parser.parse_args().videos
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, NUM_FRAMES, FEATURE_DIM), np.float32)
    features = np.maximum(features, 0)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"featx": Path(folder) / "featx.h5", "plain": Path(folder) / "plain.h5"}
        lengths = np.full(count, NUM_FRAMES, np.int32)
        names = [f"{number}" for number in range(count)]
        layout = FileLayout.plan(
            np.zeros(count, np.int64), lengths, names, FEATURE_DIM, Provenance({}, False)
        )
        with h5py.File(paths["featx"], "w") as file:
            create(file, layout)
            for row, values in enumerate(features):
                write_row(file, row, encode(values, layout))
        with h5py.File(paths["plain"], "w") as file:
            file.create_dataset("features", data=features, compression="gzip", compression_opts=4)
        seconds: dict[str, list[float]] = {name: [] for name in paths}
        for row in rng.integers(0, count, READS):
            for name, path in paths.items():
                with h5py.File(path) as file:  # a new file each time: nothing is cached
                    dataset = file["features"]
                    start = time.perf_counter()
                    found = dataset[row]
                    seconds[name].append(time.perf_counter() - start)
                assert np.array_equal(found, features[row])
        for name, path in paths.items():
            milliseconds = statistics.median(seconds[name]) * 1e3
            print(f"{name}: {milliseconds:.2f} ms, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
