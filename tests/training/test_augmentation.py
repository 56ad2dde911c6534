"""Frames that are drawn in each epoch."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from featx.training.augmentation import draw_frames


def test_all_frames() -> None:
    """Without a crop and jitter, or of a video that is not longer than the crop."""
    assert draw_frames(4).tolist() == [0, 1, 2, 3]
    assert draw_frames(4, crop_frames=4).tolist() == [0, 1, 2, 3]
    assert draw_frames(4, crop_frames=9).tolist() == [0, 1, 2, 3]


def test_a_crop_from_every_place() -> None:
    """Successive frames, the first and the last place among them."""
    torch.manual_seed(0)
    found = {(*draw_frames(5, crop_frames=3).tolist(),) for _ in range(100)}
    assert found == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}


def test_jitter_reaches_both_sides() -> None:
    """Each of the frames around comes in the place of a frame, also from outside of the crop."""
    torch.manual_seed(0)
    drawn = [draw_frames(9, jitter_frames=2) for _ in range(300)]
    assert {frames[4] for frames in drawn} == {2, 3, 4, 5, 6}
    assert {frames[0] for frames in drawn} == {0, 1, 2}
    single = {(*draw_frames(3, crop_frames=1, jitter_frames=2).tolist(),) for _ in range(100)}
    assert single == {(0,), (1,), (2,)}


@given(
    st.integers(1, 30), st.none() | st.integers(1, 40), st.integers(0, 10), st.integers(0, 2**31)
)
def test_frames_of_the_video_in_order(
    num_frames: int, crop_frames: int | None, jitter_frames: int, seed: int
) -> None:
    """Whatever is asked for: as many as the crop, none too far away, the same for the same seed."""
    torch.manual_seed(seed)
    drawn = draw_frames(num_frames, crop_frames, jitter_frames).tolist()
    assert len(drawn) == min(num_frames, crop_frames or num_frames)
    assert drawn == sorted(drawn)
    assert all(0 <= frame < num_frames for frame in drawn)
    starts = range(num_frames - len(drawn) + 1)
    assert any(
        all(abs(frame - start - i) <= jitter_frames for i, frame in enumerate(drawn))
        for start in starts
    )
    torch.manual_seed(seed)
    assert draw_frames(num_frames, crop_frames, jitter_frames).tolist() == drawn
