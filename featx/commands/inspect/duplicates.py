"""The videos of feature files that are there twice, for programs and for people."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from featx.analysis.overview import Overview
from featx.errors import shorten
from featx.features.feature_file import UNLABELLED

_MAX_LISTED = 20  # of leaks, and of others
_MANY_TWINS = 0.3


def describe_duplicates(overview: Overview) -> dict[str, Any]:
    """The object that `featx inspect --duplicates --json` prints."""
    videos, duplicates = overview.videos, overview.duplicates
    categories = videos.name_categories(videos.labels.tolist())

    def describe(place: int) -> dict[str, Any]:
        return {
            "split": videos.splits[videos.split[place]],
            "row": int(videos.row[place]),
            "video": videos.names[place],
            "category": None if videos.labels[place] == UNLABELLED else categories[place],
        }

    across, within = (
        [
            {
                "first": describe(pair.first),
                "second": describe(pair.second),
                "cosine": pair.cosine,
                "same_content": pair.is_certain,
            }
            for pair in pairs
        ]
        for pairs in duplicates.split(videos.split)
    )
    return {
        "videos": len(videos),
        "content_is_known": all(videos.contents),
        "threshold": duplicates.threshold,
        "usual": duplicates.usual,
        "twins": duplicates.twins,
        "leaks": across,
        "duplicates": within,
    }


def format_duplicates(found: Mapping[str, Any]) -> str:
    """The same as text: leaks are said first."""
    lines = []
    titles = {
        "leaks": "leaks: {} of videos that stand in two splits",
        "duplicates": "duplicates: {} of videos that stand in a split twice",
    }
    for kind, title in titles.items():
        pairs = found[kind]
        lines.append(title.format(_count(len(pairs))) if pairs else f"{kind}: none")
        if pairs:
            rows = [
                (
                    "same content" if pair["same_content"] else _round(pair["cosine"]),
                    *(_name(pair[side]) for side in ("first", "second")),
                    "" if pair["first"]["category"] == pair["second"]["category"] else "two labels",
                )
                for pair in pairs[:_MAX_LISTED]
            ]
            lines.append(tabulate(rows, tablefmt="plain", disable_numparse=True))
        if len(pairs) > _MAX_LISTED:
            lines.append(f"... and {len(pairs) - _MAX_LISTED:,} more (--json)")
    if not found["content_is_known"]:
        lines.append("same content: not known of all videos, as files of older formats do not tell")
    if found["threshold"] is None:
        lines.append(f"near duplicates: not looked for among {found['videos']} videos")
    else:
        lines.append(
            f"near duplicates: a cosine above {_round(found['threshold'])} of the means of "
            "beginning, middle and end, around the mean of all videos. As the data says: half of "
            f"the videos have their nearest neighbour above {found['usual']:.3f}; this near, and "
            "five times as near as the twentieth neighbour, less than one would be by chance"
        )
    if found["twins"] > _MANY_TWINS:
        lines.append(
            f"{found['twins']:.0%} of the videos have one or two others that are twenty times as "
            "near as the rest: these are copies, parts of one clip, or categories of two or three"
        )
    return "\n".join(lines)


def _round(cosine: float) -> str:
    """A cosine with as many digits as tell it from 1."""
    return f"{cosine:.4f}" if cosine < 0.9999 else f"{cosine:.7f}"


def _name(video: Mapping[str, Any]) -> str:
    name, split = video["video"], video["split"]
    return shorten([name if name.startswith(f"{split}/") else f"{split}: {name}"])


def _count(number: int) -> str:
    return f"{number:,} pair{'' if number == 1 else 's'}"
