"""The record of a run in a feature file: its only writer and its only reader.

Every setting that features or their last bits depend on is recorded, also at its default. Settings
that leave no trace in the features (`batch_size`, `num_workers`, devices, `output_dir`) are not, so
that the bytes of the file do not depend on them either.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from featx.version import __version__

_WORDS = {"frames_per_video": "num_frames"}  # what a person calls it

T = TypeVar("T")

FORMAT_VERSION = 1

JSON_ATTRIBUTES = ("category_mapping", "config", "runs", "skipped", "damaged_videos")
"""Attributes that are JSON text."""

_COPIED = ("backbone", "weights", "weights_sha256", "scales")
"""Settings of the run that have an attribute of their own, so that any reader finds them."""

BINDING = (
    "backbone",
    "weights_sha256",
    "input",
    "multi_scale",
    "scales",
    "scale_average",
    "scale_align",
    "precision",
    "allow_tf32",
    "source",
    "pixels",
    "decoder",
)
"""Settings that change the numbers: rows of different ones never stand in one file."""

LAST_BITS = ("frames_per_forward", "compile", "device", "torch", "torchvision")
"""Settings that change the last bits of features: rows of several may stand in one file."""

NOTES = ("root", "split", "weights", "keep_damaged", "preprocessing")
"""Settings that do not bind a file. The digest of the weights binds it, not their name; and what
clips are sampled and resized to binds it by way of `preprocessing`, if `source` is clips."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a feature file was made, as far as it says so: older scripts record next to nothing.

    Attributes:
        categories: Label of each category.
        multi_scale: Whether features are averaged over temporal scales.
        run: The settings of the run, by name; empty if there is no record.
        runs: The settings of `LAST_BITS`, and featx's version, of each run that rows are of.
        skipped: The videos that the file lacks because of an error, and the error; None if it does
            not say, as a part does not.
        damaged_videos: The videos whose clips are damaged and were kept, and what is missing.
        featx_version: The version of featx; None for files of other programs.
        format_version: The version of the format; None for files of other programs.
        damaged: Whether there is a record of the run that cannot be read.
    """

    categories: Mapping[str, int]
    multi_scale: bool
    run: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] | None = field(default_factory=dict)
    damaged_videos: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()
    featx_version: str | None = __version__
    format_version: int | None = FORMAT_VERSION
    damaged: bool = False

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Provenance":
        """Read it from the attributes of a file; what cannot be read counts as not recorded."""
        run = _read_object(attributes.get("config"))
        damaged = "config" in attributes and not run
        for name in _COPIED:
            value = attributes.get(name)
            if value is None:
                continue
            if isinstance(value, bytes):
                value = value.decode(errors="replace")
            plain = value.tolist() if isinstance(value, np.ndarray) else str(value)
            run.setdefault(name, plain)
        version = attributes.get("format_version")
        featx = attributes.get("featx_version")
        return cls(
            categories=_read_object(attributes.get("category_mapping")),
            multi_scale=bool(attributes.get("multi_scale", False)),
            run=run,
            skipped=_read_object(attributes["skipped"]) if "skipped" in attributes else None,
            damaged_videos=_read_object(attributes.get("damaged_videos")),
            runs=_read_runs(attributes.get("runs")),
            featx_version=None if featx is None else str(featx),
            format_version=int(version) if isinstance(version, (int, np.integer)) else None,
            damaged=damaged,
        )

    def to_attributes(self) -> dict[str, Any]:
        """The attributes of a file."""
        copied = {name: self.run[name] for name in _COPIED if name in self.run}
        if "scales" in copied:
            copied["scales"] = np.array(copied["scales"])
        attributes: dict[str, Any] = {
            "category_mapping": json.dumps(self.categories),
            "multi_scale": self.multi_scale,
            **copied,
            "featx_version": self.featx_version,
            "format_version": self.format_version,
        }
        if self.skipped is not None:
            attributes["skipped"] = json.dumps(self.skipped, sort_keys=True)
        if self.damaged_videos:
            attributes["damaged_videos"] = json.dumps(self.damaged_videos, sort_keys=True)
        if self.runs:
            attributes["runs"] = json.dumps([*map(dict, self.runs)], sort_keys=True)
        attributes["config"] = json.dumps(self.run)
        return {name: value for name, value in attributes.items() if value is not None}

    @property
    def has_record(self) -> bool:
        """Whether the file says how its rows were made, as this version of featx writes it."""
        return bool(self.run) and not self.damaged and self.format_version == FORMAT_VERSION

    def bindings(self) -> dict[str, Any]:
        """The settings that change the numbers: other ones make another file.

        What clips are sampled and resized to is among them, though each row tells it, too. Of
        files that were made before, the pixels alone count.
        """
        run: dict[str, Any] = json.loads(json.dumps(self.run))
        bound = {name: v for name, v in run.items() if name not in (*LAST_BITS, *NOTES)}
        bound["scale_average"], bound["scale_align"] = self.scale_average, self.scale_align
        if self.source == "clips" and isinstance(made := run.get("preprocessing"), dict):
            bound |= made
        return bound

    def describe(self) -> dict[str, Any]:
        """All that a file says of how it was made, but where and when, and the last bits."""
        run = {name: v for name, v in self.run.items() if name not in (*LAST_BITS, "root")}
        return json.loads(  # type: ignore[no-any-return]  # an object
            json.dumps(
                {
                    "run": run,
                    "categories": [*self.categories.items()],
                    "multi_scale": self.multi_scale,
                    "skipped": self.skipped,
                    "damaged": self.damaged_videos,
                }
            )
        )

    def last_bits(self) -> dict[str, Any]:
        """The settings of this run that change last bits only, and featx's version."""
        settings: dict[str, Any] = json.loads(json.dumps(self.run))
        found = {name: settings[name] for name in LAST_BITS if name in settings}
        return found | {"featx_version": self.featx_version}

    def find_differences(self, before: "Provenance") -> list[str]:
        """How the settings that change the numbers differ from those of a file, for a person."""
        here, there = self.bindings(), before.bindings()
        differences: list[str] = []
        for name in here | there:
            differences += _compare(name, here.get(name), there.get(name))
        return differences

    @property
    def split(self) -> str | None:
        """Which split the file is of."""
        return self._find(str, "split")

    @property
    def backbone(self) -> str | None:
        """Name of the backbone."""
        return self._find(str, "backbone")

    @property
    def weights(self) -> str | None:
        """Name of the weights, or of their file."""
        return self._find(str, "weights")

    @property
    def weights_sha256(self) -> str | None:
        """Digest of the weights' values."""
        return self._find(str, "weights_sha256")

    @property
    def scales(self) -> tuple[float, ...] | None:
        """Temporal scales."""
        scales = self._find(list, "scales") or []
        numbers = all(isinstance(scale, (int, float)) for scale in scales)
        return tuple(map(float, scales)) if scales and numbers else None

    @property
    def scale_average(self) -> str:
        """What the sum over the scales is divided by; the old script does not record that.

        With `scale_align` time, all scales are present in all rows: `zeros` and `present` are one.
        """
        found = None if self.scale_align == "time" else self._find(str, "scale_average")
        return found or "zeros"

    @property
    def scale_align(self) -> str:
        """Which frames of the scales stand in one row; the old script does not record that."""
        return self._find(str, "scale_align") or "index"

    @property
    def input_size(self) -> int | None:
        """Height and width to which the backbone's frames were resized."""
        return self._find(int, "input", "size")

    @property
    def frames_per_forward(self) -> int | None:
        """Frames per forward pass."""
        return self._find(int, "frames_per_forward")

    @property
    def precision(self) -> str | None:
        """Lightning's precision."""
        return self._find(str, "precision")

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 was rounded to TF32, by featx's own leave."""
        return bool(self._find(bool, "allow_tf32"))

    @property
    def pixels(self) -> str | None:
        """What floating pixels were taken for."""
        return self._find(str, "pixels")

    @property
    def keep_damaged(self) -> bool:
        """Whether damaged clips were kept."""
        return bool(self._find(bool, "keep_damaged"))

    @property
    def decoder(self) -> str | None:
        """What decoded the clips: `pyav` stands for all that give the same pixels."""
        return self._find(str, "decoder")

    @property
    def source(self) -> str | None:
        """What videos were made of: `processed` (processed_data.pt files) or `clips`."""
        return self._find(str, "source")

    @property
    def num_frames(self) -> int | None:
        """Frames per video, if all have as many."""
        return self._find(int, "preprocessing", "frames_per_video")

    @property
    def sampling(self) -> dict[str, Any] | None:
        """How frames were sampled: `num_frames`, `stride` or `fps`, and its value; or None."""
        made = self._find(dict, "preprocessing") or {}
        settings = {"num_frames": self.num_frames} | {n: made.get(n) for n in ("stride", "fps")}
        found = {name: value for name, value in settings.items() if value is not None}
        numbers = all(isinstance(value, (int, float)) for value in found.values())
        return found if len(found) == 1 and numbers else None

    @property
    def frame_rate(self) -> float | None:
        """Of clips that are folders of frames."""
        return self._find(float, "preprocessing", "frame_rate")

    @property
    def resize(self) -> str | None:
        """How frames were resized."""
        return self._find(str, "preprocessing", "resize")

    @property
    def image_size(self) -> int | None:
        """Height and width of the videos, if these are known."""
        size = self._find(list, "preprocessing", "image_size") or []
        return size[0] if len(size) == 2 and isinstance(size[0], int) else None

    def _find(self, kind: type[T], *names: str) -> T | None:
        """An entry of the record; None if there is none, or one of another kind."""
        found: Any = self.run
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, kind) else None


def _compare(name: str, here: object, there: object) -> list[str]:
    """What a person has changed in a setting, if anything."""
    if here == there:
        return []
    if isinstance(here, dict) and isinstance(there, dict):
        return [
            line
            for key in here | there
            for line in _compare(f"{name}.{key}", here.get(key), there.get(key))
        ]
    if name == "weights_sha256":
        return ["the weights have other values"]
    return [f"{_WORDS.get(name, name)} is {_show(here)} instead of {_show(there)}"]


def _show(value: object) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "not set"}[value]
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _read_runs(text: object) -> list[dict[str, Any]]:
    """The runs in JSON text; none if it is something else."""
    try:
        runs = json.loads(str(text))
    except (ValueError, RecursionError):
        return []
    return runs if isinstance(runs, list) and all(isinstance(run, dict) for run in runs) else []


def _read_object(text: object) -> dict[str, Any]:
    """The object in JSON text; an empty one if there is none."""
    try:
        content = json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
