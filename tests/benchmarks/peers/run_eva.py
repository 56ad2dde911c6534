"""kaiko-eva: Lightning, and .pt files with a manifest."""

import sys
from pathlib import Path

import numpy as np
import torch
from eva.core.callbacks.writers.embeddings import ClassificationEmbeddingsWriter
from eva.core.models.modules import InferenceModule
from frames import Frames, make_cnn
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from turns import take_turns


class LabelledFrames(Dataset[tuple[Tensor, Tensor, dict[str, str]]]):
    """Frames with the target, the metadata and the file name that its writer asks for."""

    def __init__(self, folder: Path) -> None:
        self.frames = Frames(folder)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor, dict[str, str]]:
        return self.frames[item], torch.tensor(0), {}

    def filename(self, item: int) -> str:
        """Of the video; the writer collects the frames of each into one file."""
        return f"{self.frames.index[item][0]:04d}.avi"


def main(data: Path, out: Path, batch: int) -> None:
    """One turn per line."""
    module = InferenceModule(make_cnn(data / "weights.pth"))

    def job() -> None:
        # By default it saves every 100 frames, and puts later ones of a video before earlier ones.
        writer = ClassificationEmbeddingsWriter(str(out), overwrite=True, save_every_n=10**9)
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[writer],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        loader = DataLoader(LabelledFrames(data / "float"), batch_size=batch, num_workers=1)
        trainer.predict(module, [loader], return_predictions=False)

    def load() -> np.ndarray:
        paths = sorted(out.glob("*.pt"))
        return np.concatenate([torch.stack(torch.load(path)).numpy() for path in paths])

    take_turns(job, load, out / "features.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
