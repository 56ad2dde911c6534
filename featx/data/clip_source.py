"""The source `clips`: the same videos as `featx preprocess` makes of them, in the same order."""

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from featx.console import make_bar
from featx.data.clip_file import ClipFile, open_clip
from featx.data.folders import (
    STANDARD_SPLITS,
    check_name,
    choose_splits,
    list_entries,
    list_folders,
    normalize_name,
)
from featx.data.manifest import (
    Manifest,
    Rejections,
    ScanSettings,
    VideoFile,
    describe_preprocessing,
)
from featx.errors import InputError, MissingInputError
from featx.files import file_stats
from featx.parallel import map_ahead

CLIP_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")

_THREADS = 4


def scan_clips(settings: ScanSettings) -> Manifest:
    """List the clips under `ROOT/<split>/<category>/[<subcategory>/]` as videos.

    Every clip is opened, so that most damage is found before the first forward pass, and all of
    its bytes are read once, for a digest that tells it from others. Its frames are decoded when
    their turn comes.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no clips.
        InputError: Clips are damaged; or a split has no others.
    """
    root = settings.root
    splits = choose_splits(root, settings.splits)
    lost: dict[Path, InputError] = {}
    clips = list_clips(root, lost, {*STANDARD_SPLITS, *splits})
    names = sorted({clip.category for clip in clips})
    categories = {name: label for label, name in enumerate(names)}
    rejected = Rejections(splits)
    for path, error in (lost | find_misplaced(root, clips)).items():
        relative = path.relative_to(root)
        if relative.parts[0] in rejected:
            rejected[relative.parts[0]][relative.as_posix()] = error

    def check_and_open(clip: Clip) -> ClipFile:
        check_name(clip.path, clip.name)
        return open_clip(
            clip.path,
            clip.place,
            clip.name,
            settings.num_frames,
            settings.image_size,
            settings.keep_damaged,
            settings.digests,
        )

    clips = [clip for split in splits for clip in clips if clip.split == split]
    files: list[VideoFile] = []
    with closing(map_ahead(check_and_open, clips, _THREADS, "scanning")) as ahead:
        for clip, opened in make_bar(ahead, "Scanning", len(clips), "clip", settings.progress):
            with rejected.collect(clip.split, clip.name):
                files.append(opened.result())
    for split in {*splits} - {clip.split for clip in clips}:
        rejected[split][split] = MissingInputError(
            f"{root / split}: expected clips at <category>/[<subcategory>/], found none. "
            "Give the folder that holds the splits."
        )
    rejected.check(root, files, settings.on_error)
    preprocessing = describe_preprocessing(settings.num_frames, settings.image_size, "uint8")
    return Manifest(root, categories, files, rejected, preprocessing)


class Clip(NamedTuple):
    """A video file.

    Attributes:
        path: Its path.
        name: Its path below the folder of all clips.
        place: Where it is in the data set: split, category and subcategory, which is the category
            again for clips in the category's own folder.
    """

    path: Path
    name: str
    place: str

    @property
    def split(self) -> str:
        """The folder of the split."""
        return self.place.split("/")[0]

    @property
    def category(self) -> str:
        """The category: the name of its folder."""
        return normalize_name(self.place.split("/")[1])

    @property
    def stats(self) -> tuple[int, int]:
        """See `file_stats`; (0, 0) if there is no file."""
        try:
            return file_stats(self.path.stat())
        except OSError:
            return 0, 0


def list_clips(
    raw_dir: Path,
    unreadable: dict[Path, InputError],
    splits: Collection[str] | None = None,
) -> list[Clip]:
    """All clips in a folder, by split, category, subcategory and name.

    Args:
        raw_dir: The folder.
        unreadable: Where to put folders that cannot be read, and why.
        splits: Which splits; by default, all folders.

    Raises:
        MissingInputError: The folder does not exist, or has no clips.
    """
    clips: list[Clip] = []
    for split in list_folders(raw_dir):
        if splits is not None and split.name not in splits:
            continue
        for category in _list_or_keep(list_folders, split, unreadable):
            # Clips in the category's folder and in a subcategory of its name share a place.
            homes = {category.name: [category]}
            for folder in _list_or_keep(list_folders, category, unreadable):
                homes.setdefault(folder.name, []).append(folder)
            for subcategory, folders in sorted(homes.items()):
                place = f"{split.name}/{category.name}/{subcategory}"
                clips += [
                    Clip(path, path.relative_to(raw_dir).as_posix(), place)
                    for folder in folders
                    for path in _list_or_keep(list_entries, folder, unreadable)
                    if _is_clip(path)
                ]
    if not clips and not unreadable:
        raise MissingInputError(
            f"{raw_dir}: expected clips at <split>/<category>/[<subcategory>/]"
            f"*{{{','.join(CLIP_SUFFIXES)}}}, found none. Give the folder that holds the splits."
        )
    return clips


def find_misplaced(raw_dir: Path, clips: Sequence[Clip]) -> dict[Path, InputError]:
    """Clips that are in no category's folder, or too deep in it."""
    known = {clip.path for clip in clips}
    return {
        path: InputError(
            f"{path}: expected clips at <split>/<category>/[<subcategory>/], found one elsewhere. "
            "Move it."
        )
        for path in sorted(raw_dir.rglob("*"))
        if _is_clip(path)
        and path not in known
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(raw_dir).parts)
    }


def _list_or_keep(
    listing: Callable[[Path], list[Path]], folder: Path, unreadable: dict[Path, InputError]
) -> list[Path]:
    try:
        return listing(folder)
    except InputError as error:
        unreadable[folder] = error
        return []


def _is_clip(path: Path) -> bool:
    return path.suffix.lower() in CLIP_SUFFIXES and not path.name.startswith(".")
