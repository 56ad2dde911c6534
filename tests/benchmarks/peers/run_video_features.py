"""v-iashin/video_features: decodes clips, and writes an .npy file for each."""

import shutil
import sys
from pathlib import Path

import numpy as np
from turns import take_turns


def main(data: Path, out: Path, batch: int, checkout: Path) -> None:
    """One turn per line."""
    sys.path.insert(0, str(checkout))
    from models.resnet.extract_resnet import ExtractResNet
    from omegaconf import OmegaConf

    settings = OmegaConf.load(checkout / "configs" / "resnet.yml")
    settings.update(
        device="cpu", batch_size=batch, on_extraction="save_numpy", output_path=str(out / "clips")
    )
    extractor = ExtractResNet(settings)
    clips = sorted((data / "clips").iterdir())

    def job() -> None:
        shutil.rmtree(out / "clips", ignore_errors=True)  # it leaves out what is there
        for clip in clips:
            extractor._extract(str(clip))

    def load() -> np.ndarray:
        return np.concatenate(
            [np.load(out / "clips" / f"{clip.stem}_resnet.npy") for clip in clips]
        )

    take_turns(job, load, out / "features.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
