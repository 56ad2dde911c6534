"""thingsvision: a hook on the layer, and one array of all features at the end."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from frames import Frames, make_cnn
from torch.utils.data import DataLoader
from turns import take_turns


def import_extractor(checkout: Path) -> type:
    """Its extractor for PyTorch alone: the package also wants TensorFlow, and an old torch."""
    for name in ("thingsvision", "thingsvision.core", "thingsvision.core.extraction"):
        package = ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    typing = ModuleType("torchtyping")  # it plays a part in annotations only
    typing.TensorType = dict  # type: ignore[attr-defined]
    sys.modules["torchtyping"] = typing
    from thingsvision.core.extraction.torch import PyTorchExtractor

    extractor: type = PyTorchExtractor
    return extractor


def main(data: Path, out: Path, batch: int, checkout: Path) -> None:
    """One turn per line."""
    cnn = make_cnn(data / "weights.pth")
    extractor = import_extractor(checkout)("custom", True, "cpu", model=cnn)

    def job() -> None:
        loader = DataLoader(Frames(data / "float"), batch_size=batch, num_workers=1)
        extractor.extract_features(
            loader,
            module_name="avgpool",
            flatten_acts=True,
            output_dir=str(out),
            save_in_one_file=True,
        )

    take_turns(job, lambda: np.load(out / "avgpool" / "features.npy"), out / "features.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
