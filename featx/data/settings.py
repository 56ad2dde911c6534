"""Which videos, and which of their frames: the settings that all commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

from featx.data.choices import LayoutName, ScanName, SourceName
from featx.data.media.pixels import PIXELS, PixelsName
from featx.data.media.preprocessing import IMAGE_SIZE, DecoderName, Preprocessing, ResizeName
from featx.data.storage import locate, parent_of
from featx.errors import UsageError, check_choice

if TYPE_CHECKING:
    from featx.data.manifest import ScanSettings

FRAME_SETTINGS = {
    "num_frames",
    "stride",
    "fps",
    "frame_rate",
    "image_size",
    "resize",
    "pixels",
    "keep_damaged",
    "decoder",
}
"""The fields of `VideoSettings` that say which frames; a feature file records them."""

C = TypeVar("C", bound=type)


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """Which videos, and which of their frames.

    A command takes these settings as keyword arguments; jsonargparse finds their types, defaults
    and descriptions here.

    Attributes:
        root: The data set's folder, local or remote (`s3://...`). With a table, its paths are
            relative to it; by default, to the table's own folder.
        splits: Which splits; by default, whichever of train, val and test exist, and all of a
            table.
        source: `processed` for processed_data.pt files; `clips` for video files, which are decoded
            to the same videos that featx preprocess makes of them; `frames` for clips that are
            folders of images. Not used with a table, whose paths tell what they are.
        layout: How clips lie in the root: `tree`, ROOT/<split>/<category>/[<subcategory>/]; or
            `flat`, every clip below ROOT, in one split `all` and without a category.
        table: A table of videos, one per row: .csv, .tsv, .jsonl, .json, .parquet, or lines of a
            path and a label. Its columns are path, and optionally split, label, id, start and end
            (in seconds) or start_frame and end_frame, and left, top, right and bottom of a box (in
            pixels). Other columns are copied to the feature file.
        columns: The table's own names of these columns, such as {path: video, label: gloss}.
        num_frames: Frames per video, sampled uniformly over a clip; 64 unless stride or fps is set.
        stride: Take every n-th frame of a clip instead.
        fps: Take so many frames per second instead: the frames that are shown then.
        frame_rate: Frames per second of clips that are folders of images.
        image_size: Height and width in pixels to which the frames of clips are resized.
        resize: `squash` a frame to a square; or `crop`: resize its shorter side, and cut out its
            middle, as most CNNs were trained.
        pixels: What floating-point pixels of processed_data.pt files are: `normalized` with
            ImageNet's mean and std; `unit`, RGB from 0 to 1; or `raw`, RGB from 0 to 255. uint8 is
            raw RGB.
        keep_damaged: Keep what can be decoded of clips that are damaged, or hold less than they
            declare; they are listed in the log and in the feature file. By default they are bad
            inputs.
        decoder: `pyav`, whose wheel contains FFmpeg; or `torchcodec`, which needs the system's
            FFmpeg. With torchcodec and without workers, the GPU decodes (NVDEC), to slightly
            different pixels. On a CPU, both give the same pixels, but torchcodec does not detect
            damage within a frame.
    """

    root: str | Path | None = None
    splits: Sequence[str] | None = None
    source: SourceName = "processed"
    layout: LayoutName = "tree"
    table: str | Path | None = None
    columns: dict[str, str] | None = None
    num_frames: int | None = None
    stride: int | None = None
    fps: float | None = None
    frame_rate: float | None = None
    image_size: int = IMAGE_SIZE
    resize: ResizeName = "squash"
    pixels: PixelsName = "normalized"
    keep_damaged: bool = False
    decoder: DecoderName = "pyav"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: One is out of its range, or two do not fit.
        """
        splits = self.splits
        if splits is not None and (isinstance(splits, str) or not splits):
            raise UsageError(f"splits: expected a list of one split or more, found {splits!r}.")
        check_choice("source", self.source, get_args(SourceName))
        check_choice("layout", self.layout, get_args(LayoutName))
        check_choice("pixels", self.pixels, tuple(PIXELS))
        if self.layout == "flat" and not (self.are_clips and self.table is None):
            what = "a table" if self.table else "the source processed"
            raise UsageError(
                f"layout: expected tree with {what}, found flat. It is for clips in a folder: set "
                "source to clips or frames."
            )
        if self.columns and self.table is None:
            raise UsageError("columns: expected a table that has them, found none. Give table.")
        _ = self.preprocessing  # raises UsageError

    @property
    def are_clips(self) -> bool:
        """Whether the videos are made of clips, and not of processed_data.pt files."""
        return self.source != "processed" or self.table is not None

    @property
    def preprocessing(self) -> Preprocessing:
        """How clips become videos."""
        return Preprocessing.choose(
            self.num_frames,
            self.stride,
            self.fps,
            frame_rate=self.frame_rate,
            image_size=self.image_size,
            resize=self.resize,
            keep_damaged=self.keep_damaged,
            decoder=self.decoder,
        )

    def check_scan(self, scan: ScanName) -> None:
        """Check that a lazy scan fits these settings: it cannot open clips to find their lengths.

        Raises:
            UsageError: It does not.
        """
        check_choice("scan", scan, get_args(ScanName))
        if scan == "full":
            return
        if self.source != "clips" and self.table is None:
            raise UsageError(
                f"scan: expected full with the source {self.source}, found lazy. It is for a "
                "table, and for the source clips."
            )
        if self.fps is not None or (self.stride is not None and self.table is None):
            raise UsageError(
                "scan: expected full where clips have to be opened to tell how long their videos "
                "are, found lazy. Set scan to full; or sample by num_frames, or by stride with a "
                "table that has start_frame and end_frame."
            )

    def to_scan(self) -> "ScanSettings":
        """Return the settings of a scan, with places that are resolved.

        Raises:
            UsageError: There is neither a root nor a table.
        """
        from featx.data.manifest import ScanSettings  # it imports torch, which takes seconds

        table = None if self.table is None else locate(self.table)
        if self.root is not None:
            root = locate(self.root)
        elif table is not None:
            root = parent_of(table)
        else:
            raise UsageError(
                "root: expected the data set's folder, found none. Give root or table."
            )
        return ScanSettings(
            root,
            self.splits,
            preprocessing=self.preprocessing,
            pixels=self.pixels,
            layout=self.layout,
            table=table,
            columns=self.columns or {},
        )


def documented(cls: C) -> C:
    """Add the descriptions of `VideoSettings` to the arguments in a class's docstring."""
    _, _, shared = (VideoSettings.__doc__ or "").partition("Attributes:\n")
    cls.__doc__ = (cls.__doc__ or "").replace("Args:\n", f"Args:\n{shared.rstrip()}\n", 1)
    return cls
