"""Videos straight from clips: the same as `featx preprocess` makes, and in the same order."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from featx.analysis import describe_preprocessing
from featx.archive import file_stats
from featx.clip_folder import Clip, find_misplaced, list_clips
from featx.clips import check_clip, sample_clip
from featx.errors import ChangedInputError, InputError, MissingInputError, first_line
from featx.folders import STANDARD_SPLITS, check_name, choose_splits
from featx.headers import Block, Header
from featx.manifest import Manifest, VideoFile
from featx.progress import make_bar
from featx.scan import OnError, Rejected, check_rejected

_THREADS = 4


def scan_clips(
    root: Path,
    splits: Sequence[str] | None = None,
    on_error: OnError = "stop",
    num_frames: int = 64,
    image_size: int = 256,
    progress: bool = False,
) -> Manifest:
    """List the clips under `ROOT/<split>/<category>/[<subcategory>/]` as videos.

    Every clip is opened, so that most damage is found before the first forward pass, and all of
    its bytes are read once, for a digest that tells it from others. Its frames are decoded when
    their turn comes.

    Args:
        root: The folder of the clips.
        splits: Which splits; by default, whichever of train, val and test exist.
        on_error: Whether bad clips stop the scan, all of them reported together, or are left out.
        num_frames: Frames per video, sampled uniformly over the clip.
        image_size: Height and width in pixels.
        progress: Show a progress bar.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no clips.
        InputError: Clips are damaged; or a split has no others.
    """
    splits = choose_splits(root, splits)
    lost: dict[Path, InputError] = {}
    known = {*STANDARD_SPLITS, *splits}
    clips = list_clips(root, root, lost, known)
    categories = {name: i for i, name in enumerate(sorted({*map(_category, clips)}))}
    rejected: dict[str, Rejected] = {split: {} for split in splits}
    for path, error in (lost | find_misplaced(root, clips)).items():
        relative = path.relative_to(root)
        if relative.parts[0] in rejected:
            rejected[relative.parts[0]][relative.as_posix()] = error
    clips = [clip for split in splits for clip in clips if _split(clip) == split]
    shape = (num_frames, 3, image_size, image_size)
    files = []
    pool = ThreadPoolExecutor(_THREADS, "scanning")
    try:
        headers = pool.map(lambda clip: _read_header(clip, shape), clips)
        bar = make_bar(headers, "Scanning", len(clips), "clip", progress)
        for clip, header in zip(clips, bar, strict=True):
            if isinstance(header, InputError):
                rejected[_split(clip)][clip.name] = header
            else:
                place = clip.target.parent.relative_to(root).as_posix()
                files.append(VideoFile(clip.path, header, place))
    finally:
        pool.shutdown(cancel_futures=True)
    for split in {*splits} - {*map(_split, clips)}:
        rejected[split][split] = MissingInputError(
            f"{root / split}: expected clips at <category>/[<subcategory>/], found none. "
            "Give the folder that holds the splits."
        )
    check_rejected(root, files, rejected, on_error)
    preprocessing = describe_preprocessing(num_frames, image_size, "uint8")
    return Manifest(root, categories, files, rejected, preprocessing)


def read_clip(path: Path, header: Header, index: int = 0) -> Tensor:
    """Decode a clip to the video that its header promises.

    Args:
        path: The clip that `header` is of.
        header: Its header.
        index: Always 0: a clip is one video.

    Returns:
        uint8 RGB `[num_frames, 3, image_size, image_size]`.

    Raises:
        InputError: The clip does not decode.
        ChangedInputError: It has changed since, or cannot be read any more.
    """
    try:
        unchanged = file_stats(path.stat()) == header.stats or _digest(path) == header.digest
    except OSError as error:
        raise _unreadable(path, error) from error
    if not unchanged:
        raise ChangedInputError(
            f"{path}: expected the clip that was scanned, found another. "
            "It has changed since: start again."
        )
    num_frames, _, image_size, _ = header.blocks[index].shape
    try:
        return sample_clip(path, num_frames, image_size)
    except InputError as error:
        if isinstance(error.__cause__, (OSError, MemoryError)):  # of the system, not of the clip
            raise _unreadable(path, error.__cause__) from error
        raise


def _unreadable(path: Path, error: BaseException) -> ChangedInputError:
    return ChangedInputError(
        f"{path}: expected a readable clip, found: {first_line(error)}. "
        "It was readable when it was scanned: check the disk, and start again."
    )


def _read_header(clip: Clip, shape: tuple[int, ...]) -> Header | InputError:
    """A clip as a file of one video, or what is wrong with it."""
    try:
        check_name(clip.path, clip.name)
        stats = clip.stats  # as it was before it was read
        check_clip(clip.path)
        digest = _digest(clip.path)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(
            f"{clip.path}: expected a readable clip, found: {first_line(error)}. "
            "Check its permissions, or leave it out."
        )
    stride = torch.empty(shape, device="meta").stride()
    block = Block(0, 1, shape, stride, torch.uint8, offset=None, step=0)
    return Header((block,), {}, (clip.name,), digest, stats)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(clip: Clip) -> str:
    return clip.target.parts[-4]


def _category(clip: Clip) -> str:
    return clip.target.parts[-3]
