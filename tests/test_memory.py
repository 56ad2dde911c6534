"""Memory does not grow with the number of videos."""

import os
from pathlib import Path

import jobs
import torch
from helpers import WIDE, Save, random_videos


def test_peak_memory(root: Path, save: Save, tmp_path: Path) -> None:
    """A thousand videos, of which parts are written on the way, take no more than a hundred."""
    weights = tmp_path / "wide.pth"
    torch.save(WIDE.build().state_dict(), weights)
    first = save("train/0/x", random_videos(100, 8))
    peaks = []
    for number in range(10):
        folder = root / f"train/{number}/x"
        folder.mkdir(parents=True, exist_ok=True)
        if number:
            os.link(first, folder / first.name)
        if number in (0, 9):
            out = tmp_path / f"{number}" / "out"
            jobs.run(root, out, wide=True, weights=str(weights), num_workers=1)
            peaks.append(int(Path(f"{out}.peak").read_text()))
    few, many = peaks
    assert many <= 1.1 * few
