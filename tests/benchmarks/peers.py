"""The same frames through kaiko-eva's writer and through featx: times, and features compared.

    python tests/benchmarks/peers.py --eva EVA_PYTHON [--videos 2] [--rounds 3]

EVA_PYTHON is the interpreter of an environment with kaiko-eva. Each contender has a process of its
own, the same weights (ResNet-50, without the head), and takes turns with the other. Both write one
feature vector per frame in float32; featx as HDF5, kaiko-eva as .pt files with a manifest.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

NUM_FRAMES, SIZE, BATCH = 64, 256, 32

EVA = """
import json, sys, time, torch, torchvision
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset
from eva.core.callbacks.writers.embeddings import ClassificationEmbeddingsWriter
from eva.core.models.modules import InferenceModule

root, weights, out, batch = *sys.argv[1:4], int(sys.argv[4])
paths = [*sorted(__import__("pathlib").Path(root).glob("*.pt"))]

class Frames(Dataset):
    def __init__(self):
        self.videos = [torch.load(path, mmap=True) for path in paths]
        self.index = [(v, f) for v, video in enumerate(self.videos) for f in range(len(video))]
    def __len__(self):
        return len(self.index)
    def __getitem__(self, i):
        v, f = self.index[i]
        return self.videos[v][f], torch.tensor(0), {}
    def filename(self, i):
        return f"video_{self.index[i][0]:04d}.mp4"

if __name__ == "__main__":
    cnn = torchvision.models.resnet50(weights=None)
    cnn.fc = torch.nn.Identity()
    cnn.load_state_dict(torch.load(weights))
    module = InferenceModule(cnn.eval())
    for line in sys.stdin:
        start = time.perf_counter()
        # By default it saves every 100 frames, and puts later ones of a video before earlier ones.
        writer = ClassificationEmbeddingsWriter(out, overwrite=True, save_every_n=10**9)
        trainer = Trainer(accelerator="cpu", devices=1, callbacks=[writer], logger=False,
                          enable_checkpointing=False, enable_progress_bar=False)
        trainer.predict(module, [DataLoader(Frames(), batch_size=batch, num_workers=1)],
                        return_predictions=False)
        print("SECONDS", time.perf_counter() - start, flush=True)
"""

FEATX = """
import sys, time, featx
from lightning.pytorch import Trainer
from featx import FeatureExtractor, FeatureWriter, VideoDataModule

root, weights, out, batch, compile = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5] == "compile"
if __name__ == "__main__":
    extractor = FeatureExtractor("resnet50", weights, multi_scale=False,
                                 frames_per_forward=batch, compile=compile)
    for number, line in enumerate(sys.stdin):
        start = time.perf_counter()
        trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, callbacks=[FeatureWriter(f"{out}/{number}")])
        trainer.predict(extractor, VideoDataModule(root), return_predictions=False)
        print("SECONDS", time.perf_counter() - start, flush=True)
"""


class Contender:
    """A process that does the job once for each line it is sent."""

    def __init__(self, python: str, code: str, *args: object) -> None:
        self.seconds: list[float] = []
        self._process = subprocess.Popen(
            [python, "-c", code, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self) -> float:
        """Seconds of one job."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("SECONDS"):
                return float(line.split()[1])
        raise RuntimeError(f"The process has ended: {self._process.args!r}")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def make_data(folder: Path, count: int) -> Path:
    """Raw videos for featx, the same normalized for kaiko-eva, and weights for both."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import reference

    torch.manual_seed(0)
    (folder / "float").mkdir()
    for number in range(count):
        video = torch.randint(0, 256, (NUM_FRAMES, 3, SIZE, SIZE), dtype=torch.uint8)
        path = folder / f"raw/train/category/{number:04d}/processed_data.pt"
        path.parent.mkdir(parents=True)
        torch.save(video[None], path)
        torch.save(reference.normalize(video), folder / f"float/{number:04d}.pt")
    cnn = reference.strip_head(reference.make_cnn("resnet50"), "resnet50")
    torch.save(cnn.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def main() -> None:
    """Print seconds, frames/s and the difference of the features."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eva", required=True)
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    import h5py

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = make_data(folder, args.videos)
        contenders = {
            "kaiko-eva": Contender(args.eva, EVA, folder / "float", weights, folder / "eva", BATCH),
            "featx": Contender(
                sys.executable, FEATX, folder / "raw", weights, folder / "featx", BATCH, ""
            ),
            "featx, compiled": Contender(
                sys.executable, FEATX, folder / "raw", weights, folder / "fast", BATCH, "compile"
            ),
        }
        for contender in contenders.values():
            contender.run()  # to warm up, and to compile
        for _ in range(args.rounds):
            for contender in contenders.values():
                contender.seconds.append(contender.run())
        for contender in contenders.values():
            contender.close()
        theirs = [
            torch.stack(torch.load(path, weights_only=True)).numpy()
            for path in sorted((folder / "eva").glob("video_*.pt"))
        ]
        errors = {}
        for name in ("featx", "fast"):
            with h5py.File(folder / name / "0" / "train_features.h5") as file:
                ours = file["features"][:]
            errors[name] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        num_frames = args.videos * NUM_FRAMES
        seconds = {name: statistics.median(c.seconds) for name, c in contenders.items()}
        rates = {name: num_frames / value for name, value in seconds.items()}
        print(json.dumps({"seconds": seconds, "frames/s": rates, "errors": errors}, indent=2))


if __name__ == "__main__":
    main()
