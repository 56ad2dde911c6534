"""featx turns preprocessed videos into frozen-CNN feature files, once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featx.version import __version__ as __version__

if TYPE_CHECKING:
    from featx.errors import FeatxError
    from featx.extraction.datamodule import VideoDataModule
    from featx.extraction.extractor import FeatureExtractor
    from featx.extraction.run import extract
    from featx.extraction.writer import FeatureWriter
    from featx.features.dataset import FeatureDataset
    from featx.training.datamodule import FeatureDataModule

__all__ = [
    "FeatureDataModule",
    "FeatureDataset",
    "FeatureExtractor",
    "FeatureWriter",
    "FeatxError",
    "VideoDataModule",
    "extract",
]

_MODULES = {
    "FeatureDataModule": "featx.training.datamodule",
    "FeatureDataset": "featx.features.dataset",
    "FeatureExtractor": "featx.extraction.extractor",
    "FeatureWriter": "featx.extraction.writer",
    "FeatxError": "featx.errors",
    "VideoDataModule": "featx.extraction.datamodule",
    "extract": "featx.extraction.run",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the module holds
    """Import a public name when it is first used: Lightning takes seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return [*globals(), *__all__]
