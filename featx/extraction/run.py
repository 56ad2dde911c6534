"""The whole job in one call."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path

from lightning.pytorch import Trainer

from featx.data.choices import LayoutName, OnError, ScanName, SourceName
from featx.data.media.pixels import PixelsName
from featx.data.media.preprocessing import IMAGE_SIZE, DecoderName, ResizeName
from featx.extraction.datamodule import VideoDataModule
from featx.extraction.extractor import BackboneChoice, FeatureExtractor
from featx.extraction.temporal import DEFAULT_SCALES, ScaleAlign, ScaleAverage
from featx.extraction.writer import FeatureWriter
from featx.features.feature_file import file_name
from featx.progress import without_chatter


def extract(
    root: Path | str | None,
    output_dir: Path | str,
    *,
    backbone: BackboneChoice = "efficientnet_v2_m",
    weights: str = "DEFAULT",
    multi_scale: bool = True,
    scales: Sequence[float] = DEFAULT_SCALES,
    splits: Sequence[str] | None = None,
    frames_per_forward: int = 32,
    compile: bool = False,
    allow_tf32: bool = False,
    input_size: int | None = None,
    feature_dim: int | None = None,
    scale_average: ScaleAverage = "zeros",
    scale_align: ScaleAlign = "index",
    batch_size: int = 1,
    num_workers: int | None = None,
    on_error: OnError = "stop",
    verify_inputs: bool = False,
    source: SourceName = "processed",
    num_frames: int | None = None,
    image_size: int = IMAGE_SIZE,
    pixels: PixelsName = "normalized",
    keep_damaged: bool = False,
    decoder: DecoderName = "pyav",
    stride: int | None = None,
    fps: float | None = None,
    frame_rate: float | None = None,
    resize: ResizeName = "squash",
    layout: LayoutName = "tree",
    table: Path | str | None = None,
    columns: dict[str, str] | None = None,
    scan: ScanName = "full",
    overwrite: bool = False,
    rows_per_file: int | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    precision: str = "32-true",
) -> dict[str, Path]:
    """Extract the features of a data set, one feature file per split.

    For several nodes, or other settings of the Trainer, use the three classes with a Trainer.

    Parameters: see `VideoDataModule` for `root` and how videos are read, `FeatureExtractor` for the
    backbone and the scales, `FeatureWriter` for `output_dir`, `overwrite` and `rows_per_file`,
    and Lightning's `Trainer` for `accelerator`, `devices` and `precision`.

    On Linux, a process that computes on its CPU keeps the memory of freed tensors from then on, for
    the next ones. All else is afterwards as it was before: torch's threads and precision, warnings
    filters, signal handlers.

    Returns:
        Path of the feature file of each split.

    Raises:
        FeatxError: A setting, an input or the output folder is not what it should be.
    """
    given = locals()  # has every parameter of the two classes below, under its own name
    writer = FeatureWriter(output_dir, overwrite, rows_per_file)
    with without_chatter():
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            precision=precision,  # type: ignore[arg-type]  # Lightning checks it
            callbacks=[writer],
            logger=False,
            enable_checkpointing=False,
        )
    extractor = FeatureExtractor(**{n: given[n] for n in signature(FeatureExtractor).parameters})
    data = VideoDataModule(**{n: given[n] for n in signature(VideoDataModule).parameters})
    # Not `writer.paths`: with several devices in a notebook, the writer works in other processes.
    paths = {
        split: writer.output_dir / file_name(split, multi_scale) for split in data.find_splits()
    }
    with without_chatter():
        trainer.predict(extractor, datamodule=data, return_predictions=False)
    return paths
