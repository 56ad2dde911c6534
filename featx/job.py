"""The whole job in one call."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from featx.backbones import BackboneName
from featx.datamodule import VideoDataModule
from featx.extractor import FeatureExtractor
from featx.writer import FeatureWriter


def extract(
    root: Path | str,
    output_dir: Path | str,
    backbone: BackboneName = "efficientnet_v2_m",
    weights: str = "DEFAULT",
    multi_scale: bool = True,
    scales: Sequence[float] = (1.0, 0.85, 1.15),
    splits: Sequence[str] | None = None,
    frames_per_forward: int = 32,
    compile: bool = False,
    batch_size: int = 1,
    num_workers: int = 2,
    overwrite: bool = False,
    accelerator: str = "auto",
    devices: int | str = "auto",
    precision: str = "32-true",
) -> dict[str, Path]:
    """Extract the features of a data set: one feature file a split.

    For several nodes, or any other setting of the Trainer, use the three classes with a Trainer.

    Args:
        root: Folder of the data set, `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.
        output_dir: Folder for the feature files.
        backbone: See `FeatureExtractor`, as for the next four.
        weights: A torchvision weights name, the path of a local state dict, or random.
        multi_scale: Average over `scales`.
        scales: Temporal scales.
        frames_per_forward: Frames of a forward pass.
        compile: Compile the backbone.
        splits: By default those of train, val and test that are there.
        batch_size: Videos a step.
        num_workers: Processes that read videos ahead.
        overwrite: Replace feature files that are there already.
        accelerator: See Lightning's `Trainer`, as for the next two.
        devices: How many devices, or auto.
        precision: 32-true, bf16-mixed, ...

    Returns:
        Path of the feature file of each split.

    Raises:
        FeatxError: A setting, an input or the output folder is not what it should be.
    """
    writer = FeatureWriter(Path(output_dir), overwrite)
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        precision=precision,  # type: ignore[arg-type]  # Lightning's literals; it checks them
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.predict(
        FeatureExtractor(backbone, weights, multi_scale, scales, frames_per_forward, compile),
        datamodule=VideoDataModule(Path(root), splits, batch_size, num_workers),
        return_predictions=False,
    )
    return writer.paths
