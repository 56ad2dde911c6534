"""Memory does not grow with the number of videos."""

import os
from pathlib import Path

import jobs
import pytest
import torch
from helpers import WIDE, Save, random_videos

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def test_peak_memory(root: Path, save: Save, tmp_path: Path) -> None:
    """A thousand videos, of which parts are written on the way, take no more than a hundred."""
    weights = tmp_path / "wide.pth"
    torch.save(WIDE.build().state_dict(), weights)

    def peak(out: Path) -> int:
        jobs.run(root, out, wide=True, weights=str(weights), num_workers=1)
        return int(Path(f"{out}.peak").read_text())

    first = save("train/0/x", random_videos(100, 8))
    few = peak(tmp_path / "few")
    for number in range(1, 10):
        folder = root / f"train/{number}/x"
        folder.mkdir(parents=True)
        os.link(first, folder / first.name)
    # How much of its libraries a process has in memory varies, now and then by a lot.
    assert any(peak(tmp_path / f"many {attempt}") <= 1.1 * few for attempt in range(3))
