"""The sources `clips` and `frames`: clips in folders, as files or as folders of images.

In a tree, they are the same videos as `featx preprocess` makes of them, in the same order.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from featx.console import make_bar
from featx.data.clip_file import Needs, Opened, open_clip
from featx.data.folders import (
    ALL,
    STANDARD_SPLITS,
    check_name,
    choose_splits,
    is_hidden,
    list_entries,
    list_folders,
    natural_key,
    normalize_name,
    walk_files,
)
from featx.data.frames_folder import is_image
from featx.data.manifest import (
    Home,
    Manifest,
    Rejections,
    ScanSettings,
    VideoFile,
    summarize_scan,
)
from featx.errors import InputError, MissingInputError, UsageError
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


class Kind(NamedTuple):
    """A kind of clips.

    Attributes:
        is_input: Whether a file of a name is a clip, or an image of one.
        are_folders: Whether a clip is a folder of such files.
        what: What a person calls them.
    """

    is_input: Callable[[str], bool]
    are_folders: bool
    what: str

    def is_clip(self, path: Path) -> bool:
        """Whether there is a clip at a path."""
        if not self.are_folders:
            return self.is_input(path.name) and not path.is_dir()
        try:
            return path.is_dir() and any(self.is_input(file.name) for file in path.iterdir())
        except OSError:  # it is told when it is listed
            return False


class Clip(NamedTuple):
    """A clip: a file, or a folder of frames.

    Attributes:
        path: Its path.
        name: Its path below the folder of all clips.
        place: Where it is in the data set: split, category and subcategory, which is the category
            again for clips in the category's own folder.
        home: Its split and category.
    """

    path: Path
    name: str
    place: str
    home: Home

    @property
    def split(self) -> str:
        """The split."""
        return self.home.split


def scan_clips(settings: ScanSettings) -> Manifest:
    """List the clips of a folder as videos; see `list_clips`.

    Every clip is opened, and what its header tells is checked before the first forward pass. Its
    bytes are read when its turn comes, unless somebody has to know more; see `open_clip`.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no clips.
        InputError: Clips are damaged; or a split has no others.
    """
    return _scan(settings, FILES)


def scan_frames(settings: ScanSettings) -> Manifest:
    """List the folders of frames of a folder as videos; see `scan_clips`.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no clips.
        InputError: Frames are damaged, or differ in size; or a split has no others.
    """
    return _scan(settings, FOLDERS)


def find_splits(settings: ScanSettings) -> list[str]:
    """The splits that a scan of folders is of.

    Raises:
        MissingInputError: One does not exist.
    """
    if settings.layout == "tree":
        return choose_splits(settings.root, settings.splits)
    list_entries(settings.root)
    if {*(settings.splits or [ALL])} != {ALL}:
        raise MissingInputError(
            f"splits: expected {ALL}, the only one of a flat folder, found {settings.splits}. "
            "Leave it out."
        )
    return [ALL]


def _scan(settings: ScanSettings, kind: Kind) -> Manifest:
    root, is_flat = settings.root, settings.layout == "flat"
    check_decoder(settings)
    given = settings.preprocessing
    if kind.are_folders and given.fps is not None and given.frame_rate is None:
        raise UsageError(
            "frame_rate: expected one for folders of images, to sample them by fps, found none. "
            "Set it, or sample by num_frames or stride."
        )
    splits = find_splits(settings)
    lost: dict[Path, InputError] = {}
    found = [*walk_files(root)]
    if is_flat:
        clips = list_flat(root, found, kind)
    else:
        clips = list_clips(root, lost, {*STANDARD_SPLITS, *splits}, kind)
        lost |= find_misplaced(root, clips, found, kind)
    names = sorted({clip.home.category for clip in clips if clip.home.category is not None})
    categories = {name: label for label, name in enumerate(names)}
    rejected = Rejections(splits)
    for path, error in lost.items():
        relative = path.relative_to(root)
        if relative.parts[0] in rejected:
            rejected[relative.parts[0]][relative.as_posix()] = error

    needs = Needs(settings.thorough)

    def check_and_open(clip: Clip) -> Opened:
        check_name(clip.path, clip.name)
        return open_clip(clip.path, settings.preprocessing, needs, clip.name, settings.known)

    clips = [clip for split in splits for clip in clips if clip.home.split == split]
    files: list[VideoFile] = []
    with closing(map_ahead(check_and_open, clips, _THREADS, "scanning")) as ahead:
        for clip, opening in make_bar(ahead, "Scanning", len(clips), "clip", settings.progress):
            with rejected.collect(clip.home.split, clip.name):
                opened = opening.result()
                files.append(opened.take(clip.place, clip.name, clip.home))
                settings.known.note(clip.name, opened.facts)
    for split in {*splits} - {clip.home.split for clip in clips}:
        rejected[split][split] = MissingInputError(
            f"{root / split}: expected clips at <category>/[<subcategory>/], found none. "
            "Give the folder that holds the splits."
        )
    rejected.check(settings, files)
    are_plain = all(file.is_plain for file in files)
    places = (place for errors in rejected.values() for place in errors)
    inputs = {clip.path for clip in clips} | {root / place for place in places}
    known = _add_frames(inputs, root, found) if kind.are_folders else inputs
    summary = summarize_scan(settings, files, rejected, known, kind.is_input, found)
    return Manifest(
        root,
        categories,
        files,
        rejected,
        settings.preprocessing.describe("uint8", are_plain),
        summary,
        has_times=is_flat or kind.are_folders or not settings.preprocessing.is_uniform,
    )


def check_decoder(settings: ScanSettings) -> None:
    """Check that there is what is to decode clips, before the first of them is opened.

    Raises:
        MissingDependencyError: There is not.
    """
    if settings.preprocessing.decoder == "torchcodec":
        import featx.data.torchcodec_decoder  # noqa: F401  # it is optional


def list_clips(
    raw_dir: Path,
    unreadable: dict[Path, InputError],
    splits: Collection[str] | None = None,
    kind: Kind | None = None,
) -> list[Clip]:
    """All clips at `RAW_DIR/<split>/<category>/[<subcategory>/]`, sorted by these and by name.

    Args:
        raw_dir: The folder.
        unreadable: Where to put folders that cannot be read, and why.
        splits: Which splits; by default, all folders.
        kind: Which kind of clips; by default, files.

    Raises:
        MissingInputError: The folder does not exist, or has no clips.
    """
    kind = kind or FILES
    clips: list[Clip] = []
    for split in list_folders(raw_dir):
        if splits is not None and split.name not in splits:
            continue
        for category in _list_or_keep(list_folders, split, unreadable):
            home = Home(split.name, normalize_name(category.name))
            # Clips in the category's folder and in a subcategory of its name share a place.
            homes = {category.name: [category]}
            for folder in _list_or_keep(list_folders, category, unreadable):
                if not kind.is_clip(folder):
                    homes.setdefault(folder.name, []).append(folder)
            for subcategory, folders in sorted(homes.items()):
                place = f"{split.name}/{category.name}/{subcategory}"
                clips += [
                    Clip(path, path.relative_to(raw_dir).as_posix(), place, home)
                    for folder in folders
                    for path in _list_or_keep(list_entries, folder, unreadable)
                    if kind.is_clip(path)
                ]
    if not clips and not unreadable:
        raise MissingInputError(
            f"{raw_dir}: expected {kind.what} at <split>/<category>/[<subcategory>/]"
            + ("" if kind.are_folders else "*{.mp4,.avi,.mkv,...}")
            + ", found none. Give the folder that holds the splits; or set layout to flat, for "
            "clips without splits and categories."
        )
    return clips


def list_flat(root: Path, found: Iterable[tuple[str, ...]], kind: Kind) -> list[Clip]:
    """All clips below a folder, wherever they are, in natural order.

    Args:
        root: The folder.
        found: All files in it; see `walk_files`.
        kind: Which kind of clips.

    Raises:
        MissingInputError: There is none.
    """
    inputs = [parts for parts in found if kind.is_input(parts[-1])]
    if kind.are_folders:
        inputs = [*dict.fromkeys(parts[:-1] for parts in inputs if len(parts) > 1)]
    names = sorted(("/".join(parts) for parts in inputs), key=lambda n: (natural_key(n), n))
    if not names:
        raise MissingInputError(f"{root}: expected {kind.what} in it, found none. Check the path.")
    home = Home(ALL, None)
    return [Clip(root / name, name, name, home) for name in names]


def find_misplaced(
    raw_dir: Path,
    clips: Sequence[Clip],
    found: Iterable[tuple[str, ...]],
    kind: Kind | None = None,
) -> dict[Path, InputError]:
    """Clips that are in no category's folder, or too deep in it, among the files that there are."""
    kind = kind or FILES
    known = {clip.path for clip in clips}
    up = int(kind.are_folders)  # a clip is the folder of its images
    paths = {
        raw_dir.joinpath(*parts[: len(parts) - up]): None
        for parts in found
        if kind.is_input(parts[-1]) and len(parts) > up
    }
    return {
        path: InputError(
            f"{path}: expected clips at <split>/<category>/[<subcategory>/], found one elsewhere. "
            "Move it."
        )
        for path in paths
        if path not in known
    }


def is_clip(name: str) -> bool:
    """Whether a file of this name is a clip."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES and not is_hidden(name)


FILES = Kind(is_clip, are_folders=False, what="clips")
FOLDERS = Kind(is_image, are_folders=True, what="folders of images")


def _add_frames(inputs: set[Path], root: Path, found: Iterable[tuple[str, ...]]) -> set[Path]:
    """Clips, and the images in those that are folders."""
    images = (root.joinpath(*parts) for parts in found if is_image(parts[-1]))
    return inputs | {path for path in images if path.parent in inputs}


def _list_or_keep(
    listing: Callable[[Path], list[Path]], folder: Path, unreadable: dict[Path, InputError]
) -> list[Path]:
    try:
        return listing(folder)
    except InputError as error:
        unreadable[folder] = error
        return []
