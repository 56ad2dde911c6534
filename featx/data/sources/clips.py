"""The sources `clips` and `frames`: clips in folders, as files or as folders of images.

In a tree, they are the same videos as `featx preprocess` makes of them, in the same order.
"""

from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from featx.data.columns import Column, Texts, shrink
from featx.data.manifest import Manifest, ScanSettings
from featx.data.media.clip import Needs, Opened, is_known, open_clip
from featx.data.media.images import is_image
from featx.data.media.video_file import Home
from featx.data.scan import Rejections, map_inputs, summarize_scan
from featx.data.sources.clip_rows import ClipColumns, ClipFiles
from featx.data.storage import Item, Place, join, list_folder
from featx.data.tree import (
    ALL,
    STANDARD_SPLITS,
    check_name,
    choose_splits,
    is_hidden,
    list_entries,
    list_folders,
    natural_bytes,
    normalize_name,
    walk_files,
)
from featx.errors import InputError, MissingInputError, UsageError
from featx.progress import make_bar

_CONTAINERS = (
    "264 265 266 3g2 3gp amv apng apv asf avc avi avs2 avs3 cavs dav dif divx dnxhd dnxhr drc dv "
    "dvd evc f4v flv gif gxf h261 h263 h264 h265 h266 h26l hevc ism ismv ivf ivr kux m1v m2t m2ts "
    "m2v m4v mj2 mjpeg mjpg mk3d mkv mov mp4 mpe mpeg mpg mts mxf nut obu ogm ogv psp qt rm rmvb "
    "roq swf tp trp ts vc1 vc2 viv vob vvc webm wmv wtv y4m"
)
CLIP_SUFFIXES = tuple(f".{suffix}" for suffix in _CONTAINERS.split())
"""The suffixes of video containers that FFmpeg knows; a scan lists files of other suffixes."""

_THREADS = 4

_Entry = TypeVar("_Entry", str, Item)


class Kind(NamedTuple):
    """A kind of clips.

    Attributes:
        is_input: Returns True if a file of this name is a clip, or an image of one.
        are_folders: True if a clip is a folder of such files.
        what: The word for them in messages.
    """

    is_input: Callable[[str], bool]
    are_folders: bool
    what: str

    def is_clip(self, folder: Place, item: Item) -> bool:
        """Return True if an entry of a folder is a clip."""
        if not self.are_folders:
            return self.is_input(item.name) and not item.is_folder
        try:
            return item.is_folder and any(
                self.is_input(file.name) for file in list_folder(join(folder, item.name))
            )
        except OSError:  # it is told when it is listed
            return False


class Clip(NamedTuple):
    """A clip: a file, or a folder of frames.

    Attributes:
        name: Its path below the folder of all clips.
        place: Where it is in the data set: split, category and subcategory, which is the category
            again for clips in the category's own folder.
        home: Its split and category.
    """

    name: str
    place: str
    home: Home


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
    """Return the splits that a scan of folders covers.

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
    lost: dict[str, InputError] = {}
    if is_flat:
        clips = [*list_flat(root, walk_files(root), kind)]
    else:
        clips = [*list_clips(root, lost, {*STANDARD_SPLITS, *splits}, kind)]
    listed = {clip.name for clip in clips}
    if not is_flat:
        lost |= find_misplaced(root, listed, walk_files(root), kind)
    names = sorted({clip.home.category for clip in clips if clip.home.category is not None})
    categories = {name: label for label, name in enumerate(names)}
    rejected = Rejections(splits)
    for name, error in lost.items():
        if (split := name.split("/")[0]) in rejected:
            rejected[split][name] = error
    needs = Needs(settings.thorough)

    def check_and_open(clip: Clip) -> Opened | None:
        name, is_lazy = clip.name, settings.scan == "lazy"
        path = join(root, name)
        check_name(path, name)
        if is_lazy and not is_known(path, given, needs, name, settings.scan_cache):
            return None
        return open_clip(path, given, needs, name, settings.scan_cache)

    ranks = {split: rank for rank, split in enumerate(splits)}
    clips = sorted((c for c in clips if c.home.split in ranks), key=lambda c: ranks[c.home.split])
    columns, homes, places = ClipColumns(), dict[Home, int](), list[str]()
    codes, lengths, lazy = array("i"), array("i"), array("B")
    num_unknown = 0
    if settings.scan == "full":
        num_unknown = sum(clip.name not in settings.scan_cache for clip in clips)
    with closing(map_inputs(check_and_open, clips, num_unknown, _THREADS)) as ahead:
        bar = make_bar(ahead, "Scanning", len(clips), "clip", settings.progress)
        for clip, opening in bar:
            with rejected.collect(clip.home.split, clip.name):
                opened = opening.result()
                lengths.append(opened.count_frames() if opened else given.num_frames or 0)
                lazy.append(opened is None)
                codes.append(homes.setdefault(clip.home, len(homes)))
                places.append(clip.place)
                if opened is None:
                    columns.append_unopened(clip.name)
                    continue
                columns.append(opened)
                if opened.is_new:
                    settings.scan_cache.note(clip.name, opened.cache_entry)
    for split in {*splits} - {clip.home.split for clip in clips}:
        rejected[split][split] = MissingInputError(
            f"{join(root, split)}: expected clips at <category>/[<subcategory>/], found none. "
            "Give the folder that holds the splits."
        )
    videos: dict[str, Column] = {
        "home": shrink(np.frombuffer(codes, np.int32)),
        "length": shrink(np.frombuffer(lengths, np.int32)),
    }
    if settings.scan == "lazy":
        videos["lazy"] = shrink(np.frombuffer(lazy, np.uint8))
    if not is_flat:
        videos["place"] = Texts.of(places, are_words=True)
    files = ClipFiles.build(root, settings.preprocessing, columns, homes, videos)
    manifest = Manifest(
        categories,
        files,
        rejected,
        settings.preprocessing.describe("uint8"),
        has_times=is_flat or kind.are_folders or not settings.preprocessing.is_uniform,
    )
    rejected.check(settings, manifest.positions)
    inputs = _ListedPaths(listed, rejected, kind)
    manifest.summary = summarize_scan(
        settings, manifest, inputs, kind.is_input, walk_files(root), files.find_traits()
    )
    return manifest


class _ListedPaths:
    """The paths of all clips, used or rejected, and of the images of clips that are folders."""

    def __init__(self, clips: Container[str], rejected: Rejections, kind: Kind) -> None:
        self._clips = clips
        self._rejected = rejected
        self._kind = kind

    def __contains__(self, name: object) -> bool:
        text = str(name)
        if self._has(text):
            return True
        folder, _, file = text.rpartition("/")
        return self._kind.are_folders and is_image(file) and self._has(folder)

    def _has(self, name: str) -> bool:
        return name in self._clips or any(name in places for places in self._rejected.values())


def check_decoder(settings: ScanSettings) -> None:
    """Check that the decoder can be imported, before the first clip is opened.

    Raises:
        MissingDependencyError: It cannot.
    """
    if settings.preprocessing.decoder == "torchcodec":
        import featx.data.media.torchcodec  # noqa: F401  # it is optional


def list_clips(
    raw_dir: Place,
    unreadable: dict[str, InputError],
    splits: Collection[str] | None = None,
    kind: Kind | None = None,
) -> Iterator[Clip]:
    """Yield all clips at `RAW_DIR/<split>/<category>/[<subcategory>/]`, in order.

    Args:
        raw_dir: The folder.
        unreadable: Takes the error of each folder that cannot be read, by its name.
        splits: The splits; by default, all folders.
        kind: The kind of clips; by default, files.

    Raises:
        MissingInputError: The folder does not exist, or has no clips.
    """
    kind = kind or FILES
    is_empty = True
    for split in list_folders(raw_dir):
        if splits is not None and split not in splits:
            continue
        for category in _list_or_keep(list_folders, raw_dir, split, unreadable):
            home = Home(split, normalize_name(category))
            # Clips in the category's folder and in a subcategory of its name share a place.
            inside = f"{split}/{category}"
            homes = {category: [inside]}
            for item in _list_or_keep(list_entries, raw_dir, inside, unreadable):
                is_link = not item.exists  # to nothing: listing it fails
                if is_link or (item.is_folder and not kind.is_clip(join(raw_dir, inside), item)):
                    homes.setdefault(item.name, []).append(f"{inside}/{item.name}")
            for subcategory, folders in sorted(homes.items()):
                place = f"{split}/{category}/{subcategory}"
                for folder in folders:
                    for item in _list_or_keep(list_entries, raw_dir, folder, unreadable):
                        if kind.is_clip(join(raw_dir, folder), item):
                            is_empty = False
                            yield Clip(f"{folder}/{item.name}", place, home)
    if is_empty and not unreadable:
        raise MissingInputError(
            f"{raw_dir}: expected {kind.what} at <split>/<category>/[<subcategory>/]"
            + ("" if kind.are_folders else "*{.mp4,.avi,.mkv,...}")
            + ", found none. Give the folder that holds the splits; or set layout to flat, for "
            "clips without splits and categories."
        )


def list_flat(root: Place, found: Iterable[tuple[str, ...]], kind: Kind) -> Iterator[Clip]:
    """Yield all clips below a folder, at any depth, in natural order.

    Args:
        root: The folder.
        found: All files in it; see `walk_files`.
        kind: The kind of clips.

    Raises:
        MissingInputError: There is none.
    """
    inputs = (parts for parts in found if kind.is_input(parts[-1]))
    if kind.are_folders:  # whose images follow each other
        inputs = (parts[:-1] for parts in inputs if len(parts) > 1)
    names = {"/".join(parts) for parts in inputs}
    if not names:
        raise MissingInputError(f"{root}: expected {kind.what} in it, found none. Check the path.")
    home = Home(ALL, None)
    for name in sorted(names, key=natural_bytes):
        yield Clip(name, name, home)


def find_misplaced(
    raw_dir: Place,
    clips: Container[str],
    found: Iterable[tuple[str, ...]],
    kind: Kind | None = None,
) -> dict[str, InputError]:
    """Return an error for each clip that is in no category's folder, or too deep in it.

    Args:
        raw_dir: The folder.
        clips: The names of all others.
        found: All files in it; see `walk_files`.
        kind: The kind of clips; by default, files.
    """
    kind = kind or FILES
    up = int(kind.are_folders)  # a clip is the folder of its images
    errors: dict[str, InputError] = {}
    for parts in found:
        name = "/".join(parts[: len(parts) - up])
        if kind.is_input(parts[-1]) and name and name not in clips:
            errors[name] = InputError(
                f"{join(raw_dir, name)}: expected clips at <split>/<category>/[<subcategory>/], "
                "found one elsewhere. Move it."
            )
    return errors


def is_clip(name: str) -> bool:
    """Return True if a file of this name is a clip."""
    return Path(name).suffix.lower() in CLIP_SUFFIXES and not is_hidden(name)


FILES = Kind(is_clip, are_folders=False, what="clips")
FOLDERS = Kind(is_image, are_folders=True, what="folders of images")


def _list_or_keep(
    listing: Callable[[Place], list[_Entry]],
    root: Place,
    folder: str,
    unreadable: dict[str, InputError],
) -> list[_Entry]:
    try:
        return listing(join(root, folder))
    except InputError as error:
        unreadable[folder] = error
        return []
