"""A page that shows all videos of some feature files: one file that needs no network."""

import base64
import hashlib
import html
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.analysis.overview import Overview
from featx.analysis.probes import unit
from featx.analysis.vectors import evenly
from featx.durable import replace_file, writing
from featx.errors import shorten
from featx.features.dataset import FeatureDataset

MAX_DETAILED = 2000  # videos that have a strip and a similarity of frames
MAX_LISTED = 500  # doubtful labels, leaks and duplicates
NUM_NEIGHBOURS = 8
_MAX_TIMES = 32  # frames of a similarity
_MIN_UMAP = 30  # videos: it looks at fifteen neighbours of each

Reduce = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def find_umap(seed: int = 0) -> Reduce | None:
    """UMAP, if it is installed: it takes minutes for tens of thousands of videos."""
    try:
        with warnings.catch_warnings():  # of what it could do besides
            warnings.simplefilter("ignore", ImportWarning)
            from umap import UMAP
    except ImportError:
        return None

    def reduce(points: NDArray[np.float32]) -> NDArray[np.float32]:
        places: NDArray[np.float32] = UMAP(
            metric="cosine", random_state=seed, n_jobs=1
        ).fit_transform(points)
        return places

    return reduce


def choose_detailed(overview: Overview, limit: int = MAX_DETAILED) -> list[int]:
    """Places of the videos that are shown in detail: those that are listed, then evenly spaced."""
    kinds = overview.duplicates.split(overview.videos.split)
    listed = [place for pairs in kinds for pair in pairs[:MAX_LISTED] for place in pair[:2]]
    listed += [doubt.place for doubt in overview.doubts.listed[:MAX_LISTED]]
    spread = evenly(len(overview.videos), limit).tolist()
    return sorted([*dict.fromkeys([*listed, *spread])][:limit])


def measure_similarities(
    datasets: Mapping[str, FeatureDataset], overview: Overview, chosen: Sequence[int]
) -> dict[int, NDArray[np.uint8]]:
    """How much the frames of chosen videos resemble each other over time.

    By place, cosines `[frames, frames]` of at most 32 frames, evenly spaced: 0 is -1, 254 is 1,
    and 255 stands for frames of zeros.
    """

    def compare(features: NDArray[np.float32]) -> NDArray[np.uint8]:
        frames = features[evenly(len(features), _MAX_TIMES)]
        vectors = unit(frames)
        levels = np.round(127 * (1 + np.clip(vectors @ vectors.T, -1, 1)))
        undefined = ~frames.any(axis=1)
        levels[undefined] = levels[:, undefined] = 255
        small: NDArray[np.uint8] = levels.astype(np.uint8)
        return small

    videos = overview.videos
    found: dict[int, NDArray[np.uint8]] = {}
    for number, split in enumerate(videos.splits):
        places = [place for place in chosen if videos.split[place] == number]
        rows = videos.row[places].tolist()
        found |= dict(zip(places, datasets[split].map_rows(compare, rows), strict=True))
    return found


def write_page(
    path: Path,
    title: str,
    overview: Overview,
    similarities: Mapping[int, NDArray[np.uint8]],
    strips: Mapping[int, bytes],
    reduce: Reduce | None = None,
) -> None:
    """Write the page, with strips as JPEG files by place.

    `reduce` makes another map `[num_videos, 2]` of the points; beside it, there always is that of
    the first two principal components.
    """
    data = _describe(overview, similarities, strips, reduce)
    content = fill_template(title, data)
    with writing(path):
        replace_file(path, content.encode())


def fill_template(title: str, data: Mapping[str, Any]) -> str:
    """The text of the page: what comes from files is text or data in it, and never runs.

    Names are in JSON without `<`, `>` and `&`, which the script shows as text. Besides, the page's
    policy lets only its own scripts run, by their digests, and lets nothing be fetched.
    """
    from plotly.offline import get_plotlyjs

    assets = files("featx.commands.inspect") / "page"
    template, style, script = (
        (assets / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    plotly = get_plotlyjs().replace("</script", r"<\/script")
    digests = (hashlib.sha256(text.encode()).digest() for text in (plotly, script))
    allowed = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    parts = {
        # Plotly makes functions of text of its own, to draw points by WebGL.
        "POLICY": " ".join([*allowed, "'unsafe-eval'"]),
        "TITLE": html.escape(shorten([title])),
        "STYLE": style,
        "DATA": text,
        "PLOTLY": plotly,
        "SCRIPT": script,
    }
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], template)


def _describe(
    overview: Overview,
    similarities: Mapping[int, NDArray[np.uint8]],
    strips: Mapping[int, bytes],
    reduce: Reduce | None,
) -> dict[str, Any]:
    """What the script of the page reads."""
    videos, duplicates = overview.videos, overview.duplicates
    labels, places = np.unique(videos.labels, return_inverse=True)
    place_of = {label: place for place, label in enumerate(labels.tolist())}
    points, shares = overview.space
    flat = np.zeros((len(videos), 2), np.float32)
    flat[:, : points.shape[1]] = points[:, :2]
    axes = [
        f"principal component {i + 1} ({share:.0%} of the variance)"
        for i, share in enumerate([*shares.tolist(), 0.0][:2])
    ]
    maps = [{"name": "PCA", "axes": axes, "x": _pack(flat[:, 0]), "y": _pack(flat[:, 1])}]
    if reduce is not None and len(videos) >= _MIN_UMAP:
        x, y = reduce(points).astype(np.float32).T
        axes = ["UMAP 1 (no unit)", "UMAP 2 (no unit)"]
        maps.insert(0, {"name": "UMAP", "axes": axes, "x": _pack(x), "y": _pack(y)})
    near = overview.neighbours.places[:, :NUM_NEIGHBOURS]
    cosines = overview.neighbours.cosines[:, :NUM_NEIGHBOURS]
    across, within = duplicates.split(videos.split)
    return {
        "splits": _show(videos.splits),
        "categories": _show(videos.name_categories(labels.tolist())),
        "maps": maps,
        "names": _show(videos.names),
        "split": _pack(videos.split.astype(np.uint16)),
        "category": _pack(places.astype(np.uint32)),
        "frames": _pack(overview.num_frames.astype(np.int32)),
        "neighbours": _pack(near.astype(np.uint32)),
        "cosines": _pack(cosines.astype(np.float32)),
        "numNeighbours": near.shape[1],
        "similarities": {place: _pack(levels) for place, levels in similarities.items()},
        "strips": {place: _to_base64(strip) for place, strip in strips.items()},
        "doubts": [
            [doubt.place, place_of[doubt.suggested], round(doubt.share, 4), round(doubt.own, 4)]
            for doubt in overview.doubts.listed[:MAX_LISTED]
        ],
        "agreement": overview.doubts.agreement,
        "leaks": _list(across),
        "duplicates": _list(within),
        "found": [len(across), len(within), len(overview.doubts.listed)],
        "threshold": duplicates.threshold,
        "usual": duplicates.usual,
    }


def _show(names: Sequence[str]) -> list[str]:
    """Names without what could reorder or hide the text around them."""
    return [shorten([name]) for name in names]


def _list(pairs: Iterable[tuple[int, int, float, bool]]) -> list[list[float]]:
    return [
        [first, second, round(cosine, 5), int(is_certain)]
        for first, second, cosine, is_certain in [*pairs][:MAX_LISTED]
    ]


def _pack(values: NDArray[Any]) -> str:
    """Numbers as the script reads them: little-endian, in base64."""
    return _to_base64(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
