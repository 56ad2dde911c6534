"""Repeated frames go to the device once."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from featx.data.batches import drop_repeats


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=30),
    st.sampled_from([torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_only_repeats_are_dropped(levels: list[int], dtype: torch.dtype) -> None:
    """Whatever repeats, no two neighbours are left equal, and the video can be put together."""
    video = torch.tensor(levels, dtype=dtype)[:, None, None, None].repeat(1, 3, 2, 2)
    distinct, index = drop_repeats(video)
    runs = [level for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]]
    assert distinct[:, 0, 0, 0].tolist() == runs
    assert torch.equal(distinct[index], video)


def test_a_repeat_is_the_same_to_the_last_byte() -> None:
    """The last pixel and the sign of a zero count; the order of the axes in memory does not."""
    video = torch.zeros(4, 3, 8, 8)
    video[1, 2, 7, 7] = 1e-30
    video[3, 0, 0, 0] = -0.0
    for order in (video, video.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2)):
        distinct, index = drop_repeats(order)
        assert torch.equal(distinct, video)
        assert torch.signbit(distinct[3, 0, 0, 0])
        assert index.tolist() == [0, 1, 2, 3]
    distinct, index = drop_repeats(video[2:3].repeat(4, 1, 1, 1))
    assert distinct.shape == (1, 3, 8, 8)
    assert index.tolist() == [0, 0, 0, 0]


def test_without_repeats_nothing_is_copied() -> None:
    """A video whose frames all differ goes on as it is."""
    video = torch.arange(5, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2)
    assert drop_repeats(video)[0] is video
