"""What a file says of how it was made, and what is made of files that say little or nonsense."""

import json

import numpy as np
import pytest

from featx.features.provenance import Provenance

RUN = {
    "root": "/data",
    "split": "train",
    "backbone": "resnet50",
    "weights": "random",
    "weights_sha256": "abc",
    "input": {"size": 224, "mean": [0.5, 0.5, 0.5]},
    "multi_scale": True,
    "scales": [1.0, 0.5],
    "scale_average": "zeros",
    "scale_align": "index",
    "frames_per_forward": 16,
    "allow_tf32": True,
    "precision": "bf16-mixed",
    "source": "processed",
    "pixels": "normalized",
    "decoder": "pyav",
    "preprocessing": {"frames_per_video": 64, "image_size": [128, 128]},
}
MADE = Provenance(
    {"a": 0, "b": 1},
    True,
    RUN,
    skipped={"train/a/x": "damaged"},
    runs=[{"frames_per_forward": 16, "featx_version": "0"}],
)


def test_what_is_written_is_read_again() -> None:
    """Every field comes back, also by its own name."""
    found = Provenance.from_attributes(MADE.to_attributes())
    assert found == MADE
    assert (found.split, found.backbone, found.weights) == ("train", "resnet50", "random")
    assert (found.weights_sha256, found.scales, found.input_size) == ("abc", (1.0, 0.5), 224)
    assert (found.frames_per_forward, found.precision) == (16, "bf16-mixed")
    assert (found.allow_tf32, found.num_frames, found.image_size) == (True, 64, 128)


@pytest.mark.parametrize(
    "free",
    [
        {"root": "/copy"},
        {"split": "test"},
        {"weights": "/elsewhere/weights.pt"},
        {"frames_per_forward": 4},
        {"compile": True, "device": "NVIDIA H100", "torch": "3", "torchvision": "1"},
        {"keep_damaged": True},
        {"preprocessing": {"frames_per_video": None}},
    ],
)
def test_settings_that_do_not_bind(free: dict[str, object]) -> None:
    """Where the data set is, and what changes last bits, leaves the rows what they are."""
    assert MADE.find_differences(Provenance({"c": 0}, True, RUN | free)) == []


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        ({"precision": "32-true"}, "precision is bf16-mixed instead of 32-true"),
        ({"scales": [1.0]}, "scales is [1.0, 0.5] instead of [1.0]"),
        ({"weights_sha256": "def"}, "the weights have other values"),
        ({"input": {"size": 256, "mean": [0.5] * 3}}, "input.size is 224 instead of 256"),
        ({"allow_tf32": False}, "allow_tf32 is true instead of false"),
        ({"backbone": "resnet101"}, "backbone is resnet50 instead of resnet101"),
        ({"decoder": "nvdec"}, "decoder is pyav instead of nvdec"),
        ({"source": "clips"}, "source is processed instead of clips"),
        ({"scale_average": "present"}, "scale_average is zeros instead of present"),
        ({"scale_align": "time"}, "scale_align is index instead of time"),
    ],
)
def test_settings_that_bind(bound: dict[str, object], told: str) -> None:
    """What changes numbers makes another file, and a person is told what it is."""
    assert told in MADE.find_differences(Provenance({"a": 0}, True, RUN | bound))


def test_how_scales_are_averaged() -> None:
    """Files of the old script do not record it; with `time`, both averages are the same."""
    old = Provenance({}, True)
    assert (old.scale_average, old.scale_align) == ("zeros", "index")
    present, aligned, both = (
        Provenance({}, True, RUN | dict(settings))
        for settings in (
            {"scale_average": "present"},
            {"scale_align": "time"},
            {"scale_average": "present", "scale_align": "time"},
        )
    )
    assert (present.scale_average, present.scale_align) == ("present", "index")
    assert (both.scale_average, both.scale_align) == ("zeros", "time")
    assert (both.bindings(), aligned.find_differences(both)) == (aligned.bindings(), [])
    told = ["scale_average is zeros instead of present", "scale_align is time instead of index"]
    assert both.find_differences(present) == told
    odd = Provenance({}, True, {"scale_average": 5, "scale_align": ["time"]})
    assert (odd.scale_average, odd.scale_align) == ("zeros", "index")


def test_how_clips_are_sampled_binds() -> None:
    """Of files that were made before, the pixels alone count."""
    clips = RUN | {"source": "clips"}
    made = Provenance({}, True, clips)
    usual = {"frames_per_video": 64, "image_size": [128, 128]}
    other = Provenance({}, True, clips | {"preprocessing": usual | {"frames_per_video": 32}})
    assert made.find_differences(other) == ["num_frames is 64 instead of 32"]


def test_bindings_survive_the_file() -> None:
    """Tuples become lists on the way: that is no difference."""
    tuples = Provenance({"a": 0}, True, RUN | {"scales": (1.0, 0.5)})
    read = Provenance.from_attributes(tuples.to_attributes())
    assert read.has_record
    assert tuples.find_differences(read) == []


@pytest.mark.parametrize("config", ["", "[1]", "5", "{", None])
def test_no_record(config: str | None) -> None:
    """A file of another program, or one whose record cannot be read, says nothing."""
    attributes = {"category_mapping": json.dumps({"a": 0}), "multi_scale": np.bool_(True)}
    found = Provenance.from_attributes(
        attributes | ({} if config is None else {"config": config, "skipped": config})
    )
    assert found.categories == {"a": 0}
    assert found.multi_scale is True
    assert not found.has_record
    assert (found.backbone, found.scales, found.num_frames, found.image_size) == (None,) * 4
    assert not found.skipped


def test_odd_records() -> None:
    """An entry of another type than it should have counts as not recorded."""
    odd = {"backbone": 5, "scales": "all", "input": [1], "preprocessing": {"image_size": [1]}}
    found = Provenance.from_attributes({"config": json.dumps(odd)})
    assert (found.backbone, found.scales, found.input_size, found.image_size) == (None,) * 4


def test_attributes_of_their_own_count_too() -> None:
    """Where there is no record of the run, a setting may still have an attribute."""
    found = Provenance.from_attributes({"backbone": "resnet101", "scales": np.array([1.0, 2.0])})
    assert (found.backbone, found.scales) == ("resnet101", (1.0, 2.0))


def test_a_record_that_is_damaged() -> None:
    """Attributes of their own still tell two files apart, but nothing can be repeated from them."""
    found = Provenance.from_attributes({"config": "{", "backbone": b"resnet50"})
    assert (found.damaged, found.backbone) == (True, "resnet50")
    assert not found.has_record


@pytest.mark.parametrize(
    ("sampling", "found"),
    [
        ({"stride": 4}, {"stride": 4}),
        ({"fps": 12.5}, {"fps": 12.5}),
        ({"frames_per_video": 64, "stride": None, "fps": None}, {"num_frames": 64}),
        ({"fps": "fast"}, None),
        ({"root": 5}, None),
        ({"fps": 5, "stride": 4}, None),
        ([5], None),
        ({}, None),
    ],
)
def test_sampling_is_what_it_can_be(sampling: object, found: object) -> None:
    """Whatever else a file says, nobody calls anything with it."""
    run = {"preprocessing": sampling}
    assert Provenance.from_attributes({"config": json.dumps(run)}).sampling == found
