"""The merge of the parts into the published file, in MB/s.

python tests/benchmarks/merge.py [--videos 2000]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from featx.features.feature_file import FileLayout, encode
from featx.features.provenance import Provenance
from featx.features.resume.parts import USUAL_LIMITS, PendingFile, Row
from featx.features.resume.plan import plan_files
from featx.features.resume.publish import merge_share, publish

NUM_FRAMES, FEATURE_DIM = 73, 1280


def main() -> None:
    """Print the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2000)
    count = parser.parse_args().videos
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((NUM_FRAMES, FEATURE_DIM), np.float32), 0)
    lengths = np.full(count, NUM_FRAMES, np.int32)
    provenance = Provenance({"a": 0}, multi_scale=False, run={"split": "train"})
    names = [f"{number}" for number in range(count)]
    labels = np.zeros(count, np.int64)
    inputs = [f"{number:064}" for number in range(count)]
    layout = FileLayout.plan(labels, lengths, names, FEATURE_DIM, provenance, input_sha256=inputs)
    chunks = encode(features, layout)
    per_part = max(1, USUAL_LIMITS.num_bytes // sum(map(len, chunks)))
    with tempfile.TemporaryDirectory() as folder:
        staging = PendingFile(Path(folder) / "train_features.h5", layout)
        plan_files([staging])
        for start in range(0, count, per_part):
            rows = range(start, min(start + per_part, count))
            staging.write_part({row: Row(chunks, inputs[row]) for row in rows})
        start_time = time.perf_counter()
        publish(staging, merge_share([staging]))
        seconds = time.perf_counter() - start_time
        megabytes = staging.target.stat().st_size / 1e6
    print(f"{megabytes:.0f} MB in {seconds:.2f} s: {megabytes / seconds:.0f} MB/s")


if __name__ == "__main__":
    main()
