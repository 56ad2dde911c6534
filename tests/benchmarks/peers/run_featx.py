"""featx, at one scale."""

import sys
from itertools import count
from pathlib import Path

import h5py
import numpy as np
from lightning.pytorch import Trainer
from turns import take_turns

from featx import FeatureExtractor, FeatureWriter, VideoDataModule


def main(data: Path, out: Path, batch: int, compile: bool) -> None:
    """One turn per line."""
    extractor = FeatureExtractor(
        "resnet50",
        str(data / "weights.pth"),
        multi_scale=False,
        frames_per_forward=batch,
        compile=compile,
    )
    numbers = count()

    def job() -> None:
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[FeatureWriter(out / str(next(numbers)))],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.predict(extractor, VideoDataModule(data / "raw"), return_predictions=False)

    def load() -> np.ndarray:
        with h5py.File(out / "0" / "train_features.h5") as file:
            return np.concatenate(file["features"][:])

    take_turns(job, load, out / "features.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4)
