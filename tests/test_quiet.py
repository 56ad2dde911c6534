"""What is said on the way: about the run, and nothing else."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from featx.console import without_chatter


def test_a_log_has_no_chatter(small_root: Path, tmp_path: Path) -> None:
    """Not on a terminal: what was warned of, and where the files are; no bars, no advertisement."""
    command = [sys.executable, "-m", "featx", "predict", "--model.weights=random"]
    command += ["--model.backbone=resnet50", f"--data.root={small_root}"]
    command += ["--trainer.accelerator=cpu", f"--writer.output_dir={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines if "videos in" in line] == ["train", "val", "test"]
    assert "\r" not in done.stderr
    for chatter in ("Tip", "TPU", "LeafSpec", "many workers", "it/s", "frame/s"):
        assert chatter not in done.stderr
    assert len(lines) <= 8


def test_other_warnings_stay() -> None:
    """Only Lightning's own are left out, and only for as long as it runs."""
    with pytest.warns(UserWarning, match="yours"), without_chatter():
        warnings.warn("yours", stacklevel=1)
    with pytest.warns(UserWarning, match="does not have many workers"):
        warnings.warn("it does not have many workers", stacklevel=1)
