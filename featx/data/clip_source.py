"""The source `clips`: the same videos as `featx preprocess` makes of them, in the same order."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from featx.console import make_bar
from featx.data.clip_file import ClipFile, open_clip
from featx.data.folders import (
    STANDARD_SPLITS,
    check_name,
    choose_splits,
    is_hidden,
    list_entries,
    list_folders,
    normalize_name,
    walk_files,
)
from featx.data.manifest import (
    Manifest,
    Rejections,
    ScanSettings,
    VideoFile,
    summarize_scan,
)
from featx.errors import InputError, MissingInputError
from featx.files import file_stats
from featx.parallel import map_ahead

_CONTAINERS = (
    "264 265 266 3g2 3gp amv apng apv asf avc avi avs2 avs3 cavs dav dif divx dnxhd dnxhr drc dv "
    "dvd evc f4v flv gif gxf h261 h263 h264 h265 h266 h26l hevc ism ismv ivf ivr kux m1v m2t m2ts "
    "m2v m4v mj2 mjpeg mjpg mk3d mkv mov mp4 mpe mpeg mpg mts mxf nut obu ogm ogv psp qt rm rmvb "
    "roq swf tp trp ts vc1 vc2 viv vob vvc webm wmv wtv y4m"
)
CLIP_SUFFIXES = tuple(f".{suffix}" for suffix in _CONTAINERS.split())
"""Of the containers of video that FFmpeg knows by their suffix. Files of others are told."""

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
    if settings.preprocessing.decoder == "torchcodec":
        import featx.data.torchcodec_decoder  # noqa: F401  # so that its want is seen at once
    splits = choose_splits(root, settings.splits)
    lost: dict[Path, InputError] = {}
    clips = list_clips(root, lost, {*STANDARD_SPLITS, *splits})
    names = sorted({clip.category for clip in clips})
    categories = {name: label for label, name in enumerate(names)}
    rejected = Rejections(splits)
    found = [*walk_files(root)]
    lost |= find_misplaced(root, clips, found)
    for path, error in lost.items():
        relative = path.relative_to(root)
        if relative.parts[0] in rejected:
            rejected[relative.parts[0]][relative.as_posix()] = error

    def check_and_open(clip: Clip) -> ClipFile:
        check_name(clip.path, clip.name)
        return open_clip(
            clip.path,
            clip.place,
            clip.name,
            settings.preprocessing,
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
    rejected.check(settings, files)
    are_plain = all(file.is_plain for file in files)
    preprocessing = settings.preprocessing.describe("uint8", are_plain)
    places = (place for errors in rejected.values() for place in errors)
    known = {clip.path for clip in clips} | {root / place for place in places}
    summary = summarize_scan(settings, files, rejected, known, is_clip, found)
    return Manifest(root, categories, files, rejected, preprocessing, summary)


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
                    if is_clip(path.name) and not path.is_dir()
                ]
    if not clips and not unreadable:
        raise MissingInputError(
            f"{raw_dir}: expected clips at <split>/<category>/[<subcategory>/]"
            "*{.mp4,.avi,.mkv,...}, found none. Give the folder that holds the splits."
        )
    return clips


def find_misplaced(
    raw_dir: Path, clips: Sequence[Clip], found: Iterable[tuple[str, ...]]
) -> dict[Path, InputError]:
    """Clips that are in no category's folder, or too deep in it, among the files that there are."""
    known = {clip.path for clip in clips}
    return {
        path: InputError(
            f"{path}: expected clips at <split>/<category>/[<subcategory>/], found one elsewhere. "
            "Move it."
        )
        for parts in found
        if is_clip(parts[-1]) and (path := raw_dir.joinpath(*parts)) not in known
    }


def _list_or_keep(
    listing: Callable[[Path], list[Path]], folder: Path, unreadable: dict[Path, InputError]
) -> list[Path]:
    try:
        return listing(folder)
    except InputError as error:
        unreadable[folder] = error
        return []


def is_clip(name: str) -> bool:
    """Whether a file of this name is a clip."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES and not is_hidden(name)
