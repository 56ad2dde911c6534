"""What a feature file records of how it was made: written in one place, and read in one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from featx.version import __version__

T = TypeVar("T")

FORMAT_VERSION = 1

JSON_ATTRIBUTES = ("category_mapping", "config", "skipped", "damaged_videos")
"""Attributes that are JSON text."""

_COPIED = ("backbone", "weights", "weights_sha256", "scales")
"""Settings of the run that have an attribute of their own, so that any reader finds them."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a feature file was made, as far as it says so: older scripts record next to nothing.

    Attributes:
        categories: Label of each category.
        multi_scale: Whether features are averaged over temporal scales.
        run: The settings of the run, by name; empty if there is no record.
        inputs_sha256: Digest of the inputs; None if it is not recorded.
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
    inputs_sha256: str | None = None
    skipped: Mapping[str, str] | None = field(default_factory=dict)
    damaged_videos: Mapping[str, str] = field(default_factory=dict)
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
        inputs, featx = attributes.get("inputs_sha256"), attributes.get("featx_version")
        return cls(
            categories=_read_object(attributes.get("category_mapping")),
            multi_scale=bool(attributes.get("multi_scale", False)),
            run=run,
            inputs_sha256=None if inputs is None else str(inputs),
            skipped=_read_object(attributes["skipped"]) if "skipped" in attributes else None,
            damaged_videos=_read_object(attributes.get("damaged_videos")),
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
            "inputs_sha256": self.inputs_sha256,
        }
        if self.skipped is not None:
            attributes["skipped"] = json.dumps(self.skipped, sort_keys=True)
        if self.damaged_videos:
            attributes["damaged_videos"] = json.dumps(self.damaged_videos, sort_keys=True)
        attributes["config"] = json.dumps(self.run)
        return {name: value for name, value in attributes.items() if value is not None}

    def fingerprint(self) -> dict[str, Any]:
        """What the rows of a file depend on: settings, categories and inputs.

        Where the data set is does not matter. Without a record, there is none: it is empty.
        """
        if (
            self.damaged
            or not self.run
            or self.inputs_sha256 is None
            or self.format_version is None
        ):
            return {}
        run: dict[str, Any] = json.loads(json.dumps(self.run))
        run.pop("root", None)
        return run | {
            "category_mapping": json.dumps(self.categories),
            "inputs_sha256": self.inputs_sha256,
            "format_version": self.format_version,
        }

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
        """What floating pixels were taken for, if not for normalized ones."""
        return self._find(str, "pixels")

    @property
    def keep_damaged(self) -> bool:
        """Whether damaged clips were kept."""
        return bool(self._find(bool, "keep_damaged"))

    @property
    def decoder(self) -> str | None:
        """What decoded the clips, if that matters."""
        return self._find(str, "decoder")

    @property
    def num_frames(self) -> int | None:
        """Frames per video, if all have as many."""
        return self._find(int, "preprocessing", "frames_per_video")

    @property
    def sampling(self) -> dict[str, Any] | None:
        """The way in which frames were sampled, if it is not the usual one: its name and value."""
        sampling = self._find(dict, "preprocessing", "sampling") or {}
        known = sampling.keys() <= {"stride", "fps"}
        numbers = all(isinstance(value, (int, float)) for value in sampling.values())
        return sampling if len(sampling) == 1 and known and numbers else None

    @property
    def frame_rate(self) -> float | None:
        """Of clips that are folders of frames."""
        return self._find(float, "preprocessing", "frame_rate")

    @property
    def resize(self) -> str | None:
        """How frames were resized, if not in the usual way."""
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


def _read_object(text: object) -> dict[str, Any]:
    """The object in JSON text; an empty one if there is none."""
    try:
        content = json.loads(str(text))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
