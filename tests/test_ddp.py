"""Several processes on one machine: the same files, and a status that tells the truth."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Save, random_videos

SCRIPT = """
import sys
from lightning.pytorch import Trainer
from featx import FeatureExtractor, FeatureWriter, VideoDataModule

root, out, devices = sys.argv[1:]
trainer = Trainer(
    callbacks=[FeatureWriter(out)], logger=False, accelerator="cpu", devices=int(devices),
    enable_progress_bar=False,
)
trainer.predict(
    FeatureExtractor("resnet50", "random", frames_per_forward=4),
    VideoDataModule(root, num_workers=0),
)
"""


def run(tmp_path: Path, root: Path, devices: int) -> list[bytes]:
    """A plain Trainer on so many processes: the bytes of the files."""
    script, out = tmp_path / "script.py", tmp_path / f"out-{devices}"
    script.write_text(SCRIPT)
    subprocess.run(
        [sys.executable, script, root, out, str(devices)], check=True, timeout=240, cwd=tmp_path
    )
    return [path.read_bytes() for path in sorted(out.glob("*.h5"))]


@pytest.mark.parametrize("count", [1, 5])
def test_two_processes_write_the_same_bytes(
    root: Path, save: Save, tmp_path: Path, count: int
) -> None:
    """A plain Trainer with two devices, also when one of them has no video."""
    for number in range(count):
        save(f"train/{number}/x", random_videos(1, 3 + number, seed=number, size=32))
    one, two = (run(tmp_path, root, devices) for devices in (1, 2))
    assert len(one) == 1
    assert one == two
