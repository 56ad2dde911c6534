"""What all contenders have in common: do the job once for each line of the standard input."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def take_turns(job: Callable[[], object], load: Callable[[], Any], target: Path) -> None:
    """Print the seconds of each job, and at last save what the last one has written.

    Args:
        job: Reads all frames and writes their features, in the contender's own formats.
        load: Reads these features back: `[number of frames, feature_dim]`.
        target: The .npy file for them, to be compared with the others'.
    """
    for _ in sys.stdin:
        start = time.perf_counter()
        job()
        print("SECONDS", time.perf_counter() - start, flush=True)
    np.save(target, load())
