"""The summary of a scan: counts of used, rejected and left out inputs."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from featx.data.media.preprocessing import SLOWER
from featx.data.storage import Place, join
from featx.data.tree import is_hidden, list_folders, normalize_name
from featx.errors import InputError, shorten

_EXAMPLES = 3
_TREATMENT = {
    "interlaced": "leaves their fields as they are woven",
    SLOWER: "repeats their frames",
    "HDR (PQ)": "does not tone-map them",
    "HDR (HLG)": "does not tone-map them",
}
_LIKE_A_SPLIT = re.compile(r"(mini)?(train|val|dev|test|eval|held.?out|hold.?out)", re.IGNORECASE)


class Used(NamedTuple):
    """The files and videos of a split that a scan uses.

    Attributes:
        split: Its name.
        num_files: Number of files.
        num_videos: Number of videos in these files.
        categories: Their categories.
    """

    split: str
    num_files: int
    num_videos: int
    categories: Collection[str]


@dataclass(slots=True)
class Examples:
    """A count of things, with the names of the first ones.

    Attributes:
        count: Number of things.
        examples: Names of the first ones.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(name)

    def __str__(self) -> str:
        """Return the names, and the number of the others."""
        more = self.count - len(self.examples)
        return shorten(self.examples) + f" and {more} more" * (more > 0)


@dataclass(slots=True)
class ScanSummary:
    """Counts of the inputs that a scan used, rejected and left out.

    Attributes:
        files: Number of files that are used, for each split.
        videos: Number of videos that are used, for each split.
        categories: Number of categories.
        rejected: Number of bad inputs, for each split.
        left_out: Other files in the folder, by kind.
        empty: Categories without a video, for each split that has some.
        unasked: Number of inputs in each folder that is no split that was asked for.
        traits: Videos that are shown otherwise than RGB of 8 bits can show them.
    """

    files: dict[str, int]
    videos: dict[str, int]
    categories: int
    rejected: dict[str, int]
    left_out: dict[str, Examples] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)
    unasked: dict[str, int] = field(default_factory=dict)
    traits: dict[str, Examples] = field(default_factory=dict)

    @property
    def split_like(self) -> list[str]:
        """Folders that look like splits, and were not asked for."""
        return [name for name in self.unasked if _LIKE_A_SPLIT.match(name)]

    def to_lines(self, known_empty: Mapping[str, Collection[str]] | None = None) -> list[str]:
        """For a person.

        Args:
            known_empty: Categories without a video that were reported before, for each split.
        """
        splits = ", ".join(f"{split} {count}" for split, count in self.videos.items())
        num_files, num_videos = sum(self.files.values()), sum(self.videos.values())
        among = f" in {num_files} files" * (num_files != num_videos)
        lines = [f"{num_videos} videos{among}, {self.categories} categories: {splits}"]
        if any(self.rejected.values()):
            counts = ", ".join(f"{split} {n}" for split, n in self.rejected.items() if n)
            lines.append(f"bad inputs: {counts}")
        for kind, some in sorted(self.left_out.items()):
            lines.append(f"left out: {some.count} {kind}: {some}")
        for split, names in self.empty.items():
            if unknown := [
                name for name in names if name not in (known_empty or {}).get(split, ())
            ]:
                lines.append(f"categories without a video in {split}: {shorten(unknown)}")
        if alike := self.split_like:
            found = ", ".join(f"{name} ({self.unasked[name]})" for name in alike)
            wanted = ",".join([*self.videos, *alike])
            lines.append(
                f"folders that look like splits, and were not asked for: {found}. "
                f"To take them, too: --data.splits '[{wanted}]'"
            )
        others = [f"{name} ({n})" for name, n in self.unasked.items() if name not in alike]
        if others:
            lines.append(f"other folders, which were not asked for: {shorten(others)}")
        return lines + describe_traits(self.traits)

    def to_json(self) -> dict[str, Any]:
        """For the analysis."""
        return {
            "files": self.files,
            "videos": self.videos,
            "categories": self.categories,
            "rejected": self.rejected,
            "left_out": {kind: asdict(some) for kind, some in sorted(self.left_out.items())},
            "categories_without_videos": self.empty,
            "folders_not_asked_for": self.unasked,
            "folders_like_splits": self.split_like,
            "shown_otherwise": {trait: asdict(some) for trait, some in self.traits.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ScanSummary":
        """Make a summary from the result of `to_json`."""
        return cls(
            content["files"],
            content["videos"],
            content["categories"],
            content["rejected"],
            {kind: Examples(**some) for kind, some in content["left_out"].items()},
            content["categories_without_videos"],
            content["folders_not_asked_for"],
            {trait: Examples(**some) for trait, some in content["shown_otherwise"].items()},
        )


def summarize(
    root: Place,
    used: Iterable[Used],
    rejected: Mapping[str, Collection[str]],
    known: Container[str],
    is_input: Callable[[str], bool],
    found: Iterable[tuple[str, ...]],
    in_splits: bool = True,
    traits: Mapping[str, Examples] | None = None,
) -> ScanSummary:
    """Compare the inputs that a scan uses with all files of a folder.

    Args:
        root: The folder.
        used: The files and videos of each split.
        rejected: Places of bad inputs, for each split that is asked for.
        known: Paths below the folder of all inputs that were found where they should be, bad ones
            included.
        is_input: Returns True if a file of this name is an input.
        found: All files that there are; see `walk_files`.
        in_splits: True if each split is a folder.
        traits: Videos that are shown otherwise than RGB of 8 bits can show them.
    """
    splits = [*rejected]
    summary = ScanSummary(
        dict.fromkeys(splits, 0),
        dict.fromkeys(splits, 0),
        0,
        {split: len(bad) for split, bad in rejected.items()},
        traits={**(traits or {})},
    )
    present: dict[str, Collection[str]] = dict.fromkeys(splits, ())
    for split, num_files, num_videos, of_split in used:
        summary.files[split], summary.videos[split] = num_files, num_videos
        present[split] = of_split
    categories = {name for names in present.values() for name in names}
    summary.categories = len(categories)
    for split in splits if in_splits else ():
        folders = {normalize_name(name) for name in _list_or_none(join(root, split))}
        if empty := sorted((folders | categories) - {*present[split]}):
            summary.empty[split] = empty
    counts: Counter[str] = Counter()
    for parts in found:
        hidden = is_hidden(parts[-1])
        inputs = is_input(parts[-1].lstrip(".") if hidden else parts[-1])
        if in_splits and len(parts) > 1 and parts[0] not in splits:
            if inputs and not hidden:
                counts[parts[0]] += 1
        elif kind := _find_kind(parts, inputs, hidden, "/".join(parts) in known):
            summary.left_out.setdefault(kind, Examples()).note("/".join(parts))
    summary.unasked = dict(counts)
    return summary


def describe_traits(traits: Mapping[str, Examples]) -> list[str]:
    """Return a line for each trait that 8-bit RGB cannot show."""
    return [
        f"{some.count} {trait}: {some}. Like ffmpeg, featx {_TREATMENT[trait]}"
        for trait, some in traits.items()
    ]


def _find_kind(parts: tuple[str, ...], inputs: bool, hidden: bool, known: bool) -> str:
    """Return the kind of a file that is left out; empty if it is not reported."""
    if known or (hidden and not inputs):
        return ""
    if inputs:
        return "hidden" if hidden else "in no category of a split"
    suffix = Path(parts[-1]).suffix.lower()
    return f"of {suffix}" if suffix else "without a suffix"


def _list_or_none(folder: Place) -> list[str]:
    """Return the names of the folders in a folder; none if it cannot be read, told elsewhere."""
    try:
        return list_folders(folder)
    except InputError:
        return []
