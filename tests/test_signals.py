"""A signal, an error or a death of one process ends the whole job, with a status that is true."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import Save, random_videos

from featx.validation import find_problems, open_feature_file

SCRIPT = """
import os, signal, sys
from lightning.pytorch import Trainer
from featx import FeatureExtractor, FeatureWriter, VideoDataModule, parts

root, out, devices, fault = sys.argv[1:]
parts.PART_SECONDS = 0
parts._MAX_QUEUED = 0

class Faulty(FeatureExtractor):
    def predict_step(self, batch, batch_idx=0):
        rank, _, what = fault.partition(":")
        if rank == str(self.global_rank) and batch_idx == 2:
            if what == "raise":
                raise RuntimeError("on purpose")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict_step(batch, batch_idx)

trainer = Trainer(
    callbacks=[FeatureWriter(out)], logger=False, accelerator="cpu", devices=int(devices),
    enable_progress_bar=False,
)
trainer.predict(Faulty("resnet50", "random"), VideoDataModule(root, num_workers=1))
"""


@pytest.fixture
def data(root: Path, save: Save) -> Path:
    """Sixteen videos, of a fraction of a second each."""
    save("train/a/x", random_videos(16, 32, size=48))
    return root


def start(tmp_path: Path, data: Path, devices: int, fault: str = "") -> subprocess.Popen[bytes]:
    """Start the job in a process group of its own."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, script, data, tmp_path / "out", str(devices), fault],
        cwd=tmp_path,
        start_new_session=True,
    )


def parts(tmp_path: Path) -> list[Path]:
    """The parts on disk."""
    return [*(tmp_path / "out").rglob("part-*.h5")]


def wait_for_parts(tmp_path: Path, job: subprocess.Popen[bytes]) -> None:
    """Wait until the job is in its midst."""
    deadline = time.monotonic() + 120
    while len(parts(tmp_path)) < 3:
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_ended(job: subprocess.Popen[bytes], seconds: float) -> int:
    """The job has ended in time, with all of its processes; returns its status."""
    try:
        status = job.wait(seconds)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                os.killpg(job.pid, 0)
            except ProcessLookupError:
                return status
            time.sleep(0.1)
        raise AssertionError("a process is left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def finish(tmp_path: Path, data: Path) -> None:
    """Run the job again, undisturbed: it publishes a valid file, and nothing else is left."""
    assert assert_ended(start(tmp_path, data, 1), 120) == 0
    (path,) = (tmp_path / "out").glob("*.h5")
    assert not (tmp_path / "out" / ".featx").exists()
    with open_feature_file(path) as file:
        assert find_problems(file) == []


@pytest.mark.parametrize(
    ("signum", "devices", "to_group"),
    [
        (signal.SIGTERM, 1, False),
        (signal.SIGTERM, 2, False),
        (signal.SIGTERM, 2, True),
        (signal.SIGINT, 1, True),
        (signal.SIGINT, 2, True),
    ],
)
def test_signals(
    tmp_path: Path, data: Path, signum: signal.Signals, devices: int, to_group: bool
) -> None:
    """The status is 128 and the signal; parts are on disk, and a rerun finishes the job."""
    job = start(tmp_path, data, devices)
    wait_for_parts(tmp_path, job)
    (os.killpg if to_group else os.kill)(job.pid, signum)
    assert assert_ended(job, 30) == 128 + signum
    assert parts(tmp_path)
    assert not [*(tmp_path / "out").glob("*.h5")]
    if signum == signal.SIGTERM:
        finish(tmp_path, data)


@pytest.mark.parametrize("fault", ["1:raise", "1:kill", "0:raise", "0:kill"])
def test_one_process_of_two_fails(tmp_path: Path, data: Path, fault: str) -> None:
    """Whichever it is, the job ends within a minute, not with 0, and leaves no process."""
    job = start(tmp_path, data, 2, fault)
    assert assert_ended(job, 60) != 0
    assert not [*(tmp_path / "out").glob("*.h5")]
    finish(tmp_path, data)


def test_an_interpreter_that_forgets_its_workers_ends(tmp_path: Path, data: Path) -> None:
    """A loader left in its midst does not keep the interpreter from ending."""
    code = (
        "import sys; from featx import VideoDataModule\n"
        "data = VideoDataModule(sys.argv[1], num_workers=2); data.setup('predict')\n"
        "batches = iter(data.predict_dataloader()); next(batches)\n"
        "import torch.utils.data.dataloader as loader\n"
        "loader._MultiProcessingDataLoaderIter._shutdown_workers = lambda self: None\n"
    )
    done = subprocess.run([sys.executable, "-c", code, data], timeout=60)
    assert done.returncode == 0
