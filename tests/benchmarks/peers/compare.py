"""The same frames through featx and its peers: times, and features compared.

    python tests/benchmarks/peers/compare.py --python PYTHON [--eva]
        [--thingsvision CHECKOUT] [--video-features CHECKOUT] [--videos 2] [--rounds 3]

PYTHON is the interpreter of an environment with kaiko-eva, or with what the checkouts need: torch,
torchvision and numpy; opencv and omegaconf for video_features, requests for thingsvision. Each
contender has a process of its own, the same weights (ResNet-50, without the head), and takes turns
with the others. All give one feature vector per frame in float32 from the same 224 x 224 pixels:
video_features decodes them from lossless clips of 256 x 256 and cuts out their centre, as it does
for any video; kaiko-eva and thingsvision are given normalized tensors, featx raw ones.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

NUM_FRAMES, SIZE, MARGIN, BATCH = 64, 224, 16, 32


class Contender:
    """A process that does the job once for each line it is sent."""

    def __init__(self, python: str, script: str, data: Path, out: Path, *args: object) -> None:
        self.seconds: list[float] = []
        self._out = out
        out.mkdir()
        path = Path(__file__).with_name(script)
        self._log = (out / "log.txt").open("w+")
        self._process = subprocess.Popen(
            [python, *map(str, (path, data, out, BATCH, *args))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"TORCH_HOME": str(data / "torch")},
        )

    def run(self) -> float:
        """Seconds of one job."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # its log tells why it has ended
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("SECONDS"):
                return float(line.split()[1])
        self._log.seek(0)
        raise SystemExit(self._log.read()[-3000:])

    def close(self) -> np.ndarray:
        """End the process, and read the features that it leaves."""
        self._process.communicate()
        features: np.ndarray = np.load(self._out / "features.npy")
        return features


def make_data(folder: Path, count: int) -> None:
    """The same frames as each contender takes them, and the same weights."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import reference

    for name in ("float", "clips", "torch/hub/checkpoints"):
        (folder / name).mkdir(parents=True)
    torch.manual_seed(0)
    edge = SIZE + 2 * MARGIN
    for number in range(count):
        whole = torch.randint(0, 256, (NUM_FRAMES, 3, edge, edge), dtype=torch.uint8)
        write_clip(folder / f"clips/{number:04d}.avi", whole)
        video = whole[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous()
        path = folder / f"raw/train/category/{number:04d}/processed_data.pt"
        path.parent.mkdir(parents=True)
        torch.save(video[None], path)
        torch.save(reference.normalize(video), folder / f"float/{number:04d}.pt")
    cnn = reference.make_cnn("resnet50")
    # Where torchvision looks for the weights that video_features asks for.
    torch.save(cnn.state_dict(), folder / "torch/hub/checkpoints/resnet50-0676ba61.pth")
    torch.save(reference.strip_head(cnn, "resnet50").state_dict(), folder / "weights.pth")


def write_clip(path: Path, video: Tensor) -> None:
    """Write frames `[T, 3, H, W]` without any loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = video.shape[2:]
        stream.pix_fmt = "bgr0"
        for frame in video.permute(0, 2, 3, 1).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Print frames/s, and how far the features are from featx's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--eva", action="store_true")
    parser.add_argument("--thingsvision", type=Path)
    parser.add_argument("--video-features", type=Path)
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    scripts: dict[str, tuple[str, str, *tuple[object, ...]]] = {
        "featx": (sys.executable, "run_featx.py"),
        "featx, compiled": (sys.executable, "run_featx.py", "compile"),
    }
    if args.eva:
        scripts["kaiko-eva"] = (args.python, "run_eva.py")
    if args.thingsvision:
        scripts["thingsvision"] = (args.python, "run_thingsvision.py", args.thingsvision)
    if args.video_features:
        checkout = args.video_features
        scripts["video_features"] = (args.python, "run_video_features.py", checkout)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, args.videos)
        contenders = {
            name: Contender(python, script, folder, folder / name, *rest)
            for name, (python, script, *rest) in scripts.items()
        }
        for contender in contenders.values():
            contender.run()  # to warm up, and to compile
        for _ in range(args.rounds):
            for contender in contenders.values():
                contender.seconds.append(contender.run())
        features = {name: contender.close() for name, contender in contenders.items()}
    ours = features["featx"]
    report = {
        name: {
            "frames/s": args.videos * NUM_FRAMES / statistics.median(contender.seconds),
            "relative error": float(np.linalg.norm(features[name] - ours) / np.linalg.norm(ours)),
        }
        for name, contender in contenders.items()
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
