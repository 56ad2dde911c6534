"""A job as a user's script has it, for tests that need processes of its own (see jobs.py).

Its arguments are the root, the output folder, and settings as JSON.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from helpers import TINY, WIDE, EagerWriter
from lightning.pytorch import Trainer
from torch import Tensor

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.backbones import architectures
from featx.data.batches import VideoBatch

DEFAULTS = {
    "devices": 1,
    "strategy": "auto",
    "precision": "32-true",
    "frames_per_forward": 4,
    "batch_size": 1,
    "num_workers": 0,
    "on_error": "stop",
    "delay": None,  # seconds per batch: with the tiny CNN, and each video on disk at once
    "weights": "random",
    "wide": False,  # with the wide CNN
    "data": {},  # other arguments of the data module
    "multi_scale": True,
    "rows_per_file": None,
    "fault": "",  # "<rank>:raise", "<rank>:os error" or "<rank>:<signal>", in the third batch
    "once": False,  # whether that happens only once, however often the job is started
    "slow": {},  # by rank: seconds per batch instead of the delay
}


class FaultyExtractor(FeatureExtractor):
    """Is slow, or fails."""

    def on_predict_start(self) -> None:
        """Tell which process has which rank."""
        Path(f"{out}.{self.global_rank}.pid").write_text(str(os.getpid()))

    def predict_step(self, batch: VideoBatch, batch_idx: int = 0) -> list[Tensor]:
        """Fail or wait first."""
        rank, _, what = settings["fault"].partition(":")
        if rank == str(self.global_rank) and batch_idx == 2 and self._is_first():
            if what == "raise":
                raise RuntimeError("on purpose")
            if what == "os error":
                raise OSError("on purpose")
            os.kill(os.getpid(), signal.Signals[f"SIG{what.upper()}"])
        time.sleep(settings["slow"].get(str(self.global_rank), settings["delay"] or 0))
        return super().predict_step(batch, batch_idx)

    def _is_first(self) -> bool:
        """Whether a fault is due: each time, or the first time."""
        try:
            Path(f"{out}.fault").touch(exist_ok=not settings["once"])
        except FileExistsError:
            return False
        return True


root, out, text = sys.argv[1:]
settings = DEFAULTS | json.loads(text)
if settings["delay"] is not None:
    architectures.ARCHITECTURES["resnet50"] = TINY
if settings["wide"]:
    architectures.ARCHITECTURES["resnet50"] = WIDE
trainer = Trainer(
    callbacks=[
        (FeatureWriter if settings["delay"] is None else EagerWriter)(
            out, rows_per_file=settings["rows_per_file"]
        )
    ],
    logger=False,
    accelerator="cpu",
    devices=int(os.environ.get("LOCAL_WORLD_SIZE", settings["devices"])),  # under torchrun
    num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
    strategy=settings["strategy"],
    precision=settings["precision"],
    enable_progress_bar=False,
)
trainer.predict(
    FaultyExtractor(
        "resnet50",
        settings["weights"],
        settings["multi_scale"],
        frames_per_forward=settings["frames_per_forward"],
    ),
    VideoDataModule(
        root,
        batch_size=settings["batch_size"],
        num_workers=settings["num_workers"],
        on_error=settings["on_error"],
        **settings["data"],
    ),
    return_predictions=False,
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
Path(f"{out}.peak").write_text(str(peak))
