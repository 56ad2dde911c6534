"""Predicts in several ways, and prints the state of the process before and after each, as JSON.

Its arguments are the root and a folder for outputs. See test_process_state.py.
"""

import json
import os
import signal
import sys
import warnings
from typing import Any

import torch
from helpers import TINY, TINY_JOB
from lightning.pytorch import Trainer
from torch import Tensor, backends

import featx
from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.backbones.architectures import ARCHITECTURES
from featx.data.batches import VideoBatch


class FaultyExtractor(FeatureExtractor):
    """Fails, or gets a signal."""

    fault = ""

    def predict_step(self, batch: VideoBatch, batch_idx: int = 0) -> list[Tensor]:
        """Fail first."""
        if self.fault == "error":
            raise RuntimeError("on purpose")
        if self.fault == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().predict_step(batch, batch_idx)


def read_state() -> dict[str, Any]:
    """What belongs to the process, and not to featx."""
    products: tuple[Any, ...] = (backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)  # type: ignore[attr-defined]
    return {
        "threads": torch.get_num_threads(),
        "warnings": [str(entry) for entry in warnings.filters],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "tf32": [backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()],
        "precision": [operation.fp32_precision for operation in products],
        "dtype": str(torch.get_default_dtype()),
    }


def make_trainer(out: str) -> Trainer:
    """A Trainer as a notebook has it."""
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        callbacks=[FeatureWriter(out)],
    )


root, out = sys.argv[1:]
ARCHITECTURES["resnet50"] = TINY
threads = torch.get_num_threads()
torch.set_num_threads(threads + 1)  # another number than later on
extractor = FaultyExtractor("resnet50", "random", frames_per_forward=2)
make_trainer(f"{out}/unused")  # Lightning has now imported what it imports late
torch.set_num_threads(threads)
backends.cuda.matmul.allow_tf32 = True
signal.signal(signal.SIGTERM, lambda signum, frame: None)
warnings.filterwarnings("ignore", "one of the caller's")
states = {"before": read_state()}
ends = []
for way in ("once", "twice", "error", "signal", "extract"):
    try:
        if way == "extract":
            featx.extract(root, f"{out}/{way}", **TINY_JOB)  # type: ignore[arg-type]
        else:
            extractor.fault = way
            trainer = make_trainer(f"{out}/{way}")
            trainer.predict(extractor, VideoDataModule(root), return_predictions=False)
        ends.append("done")
    except (RuntimeError, SystemExit) as error:
        ends.append(str(error))
    states[way] = read_state()
assert ends == ["done", "done", "on purpose", "143", "done"]
print(json.dumps(states))
