"""The extractor: each frame through the CNN once, in passes of one shape."""

from typing import Any

import pytest
import reference
import torch
from helpers import TINY_DIM, make_batch, random_video
from torch import Tensor, nn

from featx.backbones import transforms
from featx.data.batches import VideoBatch, VideoItem, drop_repeats
from featx.errors import UsageError
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.temporal import average_scales, output_length

pytestmark = pytest.mark.usefixtures("tiny")


def make(**settings: Any) -> FeatureExtractor:  # noqa: ANN401
    """An extractor with the tiny CNN."""
    return FeatureExtractor("resnet50", "random", **settings)


def step(extractor: FeatureExtractor, videos: list[Tensor]) -> list[Tensor]:
    """One `predict_step`."""
    return extractor.predict_step(make_batch(*videos))


def count_passes(extractor: FeatureExtractor) -> list[tuple[int, ...]]:
    """The shapes of all that goes through the CNN, as it goes."""
    shapes: list[tuple[int, ...]] = []
    extractor.backbone.register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    return shapes


@pytest.mark.parametrize(
    ("lengths", "expected_passes"),
    [([64], 2), ([65], 3), ([1], 1), ([32], 1), ([7, 12, 45], 2), ([1, 1, 1, 1], 1)],
)
def test_each_frame_goes_through_the_cnn_once(lengths: list[int], expected_passes: int) -> None:
    """With three scales, T frames a video go through the CNN, plus the filling of the last pass."""
    extractor = make(frames_per_forward=32)
    shapes = count_passes(extractor)
    step(extractor, [random_video(length, seed=length) for length in lengths])
    assert shapes == [(32, 3, 8, 8)] * expected_passes


def test_one_tensor_a_video() -> None:
    """A step gives one float32 tensor `[num_frames, feature_dim]` a video."""
    extractor = make()
    lengths = [1, 3, 7, 64]
    found = step(extractor, [random_video(length, seed=length) for length in lengths])
    expected = [(output_length(length, extractor.scales), TINY_DIM) for length in lengths]
    assert [tuple(features.shape) for features in found] == expected
    assert all(features.dtype == torch.float32 for features in found)


@pytest.mark.parametrize("frames_per_forward", [1, 5, 32])
def test_neighbours_do_not_matter(frames_per_forward: int) -> None:
    """A video's features are the same alone and among others, and with any size of a pass."""
    videos = [random_video(length, seed=length) for length in (3, 20, 7)]
    extractor = make(frames_per_forward=frames_per_forward)
    together = step(extractor, videos)
    for video, features in zip(videos, together, strict=True):
        assert torch.equal(step(extractor, [video])[0], features)
        torch.testing.assert_close(step(make(), [video])[0], features)


def test_repeated_frames_go_through_the_cnn_once() -> None:
    """A video of 8 distinct frames, stretched to 64, is as fast as 8 and as exact as 64."""
    stretched = random_video(8).repeat_interleave(8, dim=0)
    extractor = make(frames_per_forward=8)
    expected = step(extractor, [stretched, random_video(3)])
    distinct, frames = drop_repeats(stretched)
    others = VideoItem(1, random_video(3), torch.arange(3))
    batch = VideoBatch([VideoItem(0, distinct, frames), others])
    shapes = count_passes(extractor)
    found = extractor.predict_step(batch)
    assert len(shapes) == 2
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_sizes_and_dtypes_may_differ_in_a_batch() -> None:
    """Frames of other sizes and dtypes go through passes of their own."""
    videos = [
        random_video(3, size=8),
        random_video(3, size=12),
        random_video(3, size=8),
        torch.randn(2, 3, 8, 8),
        torch.randn(2, 3, 8, 8, dtype=torch.float64),
        torch.randn(2, 3, 8, 8).half(),
    ]
    extractor = make()
    found = step(extractor, videos)
    for video, features in zip(videos, found, strict=True):
        assert torch.equal(step(extractor, [video])[0], features)


def test_single_scale_is_the_cnn_alone() -> None:
    """Without scales, features are the per-frame ones; with them, their average."""
    video = random_video(9)
    alone = step(make(multi_scale=False), [video])[0]
    assert alone.shape == (9, TINY_DIM)
    averaged = step(make(scales=(1, 0.5)), [video])[0]
    torch.testing.assert_close(averaged, average_scales(alone, (1.0, 0.5)))


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"scale_average": "present"},
        {"scale_align": "time"},
        {"scale_average": "present", "scale_align": "time"},
    ],
)
def test_how_scales_are_averaged(choice: dict[str, Any]) -> None:
    """However they are, no frame more goes through the CNN; the choice is recorded."""
    videos = [random_video(length, seed=length) for length in (1, 3, 7, 64)]
    alone = step(make(multi_scale=False), videos)
    extractor = make(frames_per_forward=25, **choice)
    shapes = count_passes(extractor)
    found = step(extractor, videos)
    assert shapes == [(25, 3, 8, 8)] * 3
    names = [name.removeprefix("scale_") for name in choice]
    said = dict(zip(names, choice.values(), strict=True))
    for features, per_frame in zip(found, alone, strict=True):
        assert len(features) == output_length(len(per_frame), extractor.scales)
        torch.testing.assert_close(features, average_scales(per_frame, extractor.scales, **said))
    usual = make().settings()
    assert extractor.settings() == usual | {"frames_per_forward": 25} | choice


def test_a_single_scale_has_nothing_to_average() -> None:
    """Without `multi_scale`, how scales are averaged leaves no trace, also not in the record."""
    choice = {"scale_average": "present", "scale_align": "time"}
    extractor, usual = make(multi_scale=False, **choice), make(multi_scale=False)
    assert extractor.settings() == usual.settings()
    assert torch.equal(step(extractor, [random_video(9)])[0], step(usual, [random_video(9)])[0])


def test_it_stays_in_eval_mode() -> None:
    """Whatever is asked, nothing trains: also a batch norm that was not fused."""
    extractor = make()
    extractor.backbone = nn.Sequential(
        nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()
    )
    extractor.backbone.eval()
    before = step(extractor, [random_video(4)])[0]
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert torch.equal(step(extractor, [random_video(4)])[0], before)


def test_half_precision_keeps_the_normalization() -> None:
    """In bfloat16 pixels are normalized, and scales averaged, in float32."""
    video = random_video(16)
    exact = step(make(), [video])[0]
    rough = step(make().bfloat16(), [video])[0]
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 1e-2


def test_a_half_precision_run_leaves_no_trace() -> None:
    """Inside a Trainer of half precision the default dtype is another; constants are not."""
    video = random_video(16)
    transforms._scale_and_shift.cache_clear()
    torch.set_default_dtype(torch.bfloat16)
    try:
        normalized = transforms.normalize(video)
    finally:
        torch.set_default_dtype(torch.float32)
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(transforms.normalize(video), normalized)
    torch.testing.assert_close(normalized, reference.normalize(video), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_compiled_it_gives_the_same() -> None:
    """A compiled backbone gives what the plain one does."""
    video = random_video(5)
    expected = step(make(frames_per_forward=4), [video])[0]
    torch.testing.assert_close(step(make(frames_per_forward=4, compile=True), [video])[0], expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scales": ()}, "scales: expected one or more, above 0 and up to 100, found"),
        ({"scales": (1.0, -0.5)}, "scales: expected"),
        ({"scales": (1e9,)}, "scales: expected"),
        ({"scales": (float("nan"),)}, "scales: expected"),
        ({"scale_average": "mean"}, "scale_average: expected zeros or present, found 'mean'"),
        ({"scale_align": "frame"}, "scale_align: expected index or time, found 'frame'"),
        ({"frames_per_forward": 0}, "frames_per_forward: expected 1 or more, found 0"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    """The setting, what is accepted and what was found are told."""
    with pytest.raises(UsageError, match=message):
        make(**wrong)
