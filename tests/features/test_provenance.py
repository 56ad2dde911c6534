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
    "frames_per_forward": 16,
    "allow_tf32": True,
    "precision": "bf16-mixed",
    "preprocessing": {"frames_per_video": 64, "image_size": [128, 128]},
}
MADE = Provenance({"a": 0, "b": 1}, True, RUN, "123", {"train/a/x": "damaged"})


def test_what_is_written_is_read_again() -> None:
    """Every field comes back, also by its own name."""
    found = Provenance.from_attributes(MADE.to_attributes())
    assert found == MADE
    assert (found.split, found.backbone, found.weights) == ("train", "resnet50", "random")
    assert (found.weights_sha256, found.scales, found.input_size) == ("abc", (1.0, 0.5), 224)
    assert (found.frames_per_forward, found.precision) == (16, "bf16-mixed")
    assert (found.allow_tf32, found.num_frames, found.image_size) == (True, 64, 128)


def test_the_place_of_the_data_set_does_not_count() -> None:
    """A copy of the data set is the same data set; other settings are others."""
    moved = Provenance({"a": 0, "b": 1}, True, RUN | {"root": "/copy"}, "123")
    other = Provenance({"a": 0, "b": 1}, True, RUN | {"scales": [1.0]}, "123")
    assert moved.fingerprint() == MADE.fingerprint()
    assert other.fingerprint() != MADE.fingerprint()


def test_a_fingerprint_survives_the_file() -> None:
    """Tuples become lists on the way: that is no difference."""
    tuples = Provenance({"a": 0}, True, RUN | {"scales": (1.0, 0.5)}, "123")
    assert Provenance.from_attributes(tuples.to_attributes()).fingerprint() == tuples.fingerprint()


@pytest.mark.parametrize("config", ["", "[1]", "5", "{", None])
def test_no_record(config: str | None) -> None:
    """A file of another program, or one whose record cannot be read, says nothing."""
    attributes = {"category_mapping": json.dumps({"a": 0}), "multi_scale": np.bool_(True)}
    found = Provenance.from_attributes(
        attributes | ({} if config is None else {"config": config, "skipped": config})
    )
    assert found.categories == {"a": 0}
    assert found.multi_scale is True
    assert found.fingerprint() == {}
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
    assert found.fingerprint() == {}


@pytest.mark.parametrize(
    ("sampling", "found"),
    [
        ({"stride": 4}, {"stride": 4}),
        ({"fps": 12.5}, {"fps": 12.5}),
        ({"fps": "fast"}, None),
        ({"root": 5}, None),
        ({"fps": 5, "stride": 4}, None),
        ([5], None),
        ({}, None),
    ],
)
def test_sampling_is_what_it_can_be(sampling: object, found: object) -> None:
    """Whatever else a file says, nobody calls anything with it."""
    run = {"preprocessing": {"sampling": sampling}}
    assert Provenance.from_attributes({"config": json.dumps(run)}).sampling == found
