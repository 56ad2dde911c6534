"""featx turns preprocessed videos into frozen-CNN feature files, once."""

__version__ = "0.1.0"

from featx.datamodule import VideoDataModule
from featx.errors import FeatxError
from featx.extractor import FeatureExtractor
from featx.job import extract
from featx.writer import FeatureWriter

__all__ = ["FeatureExtractor", "FeatureWriter", "FeatxError", "VideoDataModule", "extract"]
