"""A clip that no scan has opened: it is checked when its turn comes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from featx.data.clip_file import Needs, open_clip
from featx.data.cut import Cut, find_part
from featx.data.known import format_line
from featx.data.preprocessing import Preprocessing
from featx.data.video_file import CPU, Home, Video, VideoFile
from featx.errors import InputError


@dataclass(frozen=True, slots=True)
class LazyClip(VideoFile):
    """A clip, or a part of one, that is opened when it is read; its digest is not known.

    Attributes:
        name: What the video is called.
        preprocessing: How it becomes a video.
        home: Its split and category.
        length: Frames of the video.
        clip_name: What the clip itself is called.
        cut: What is taken of it, as somebody has asked for it.
    """

    name: str
    preprocessing: Preprocessing
    home: Home
    length: int
    clip_name: str
    cut: Cut = Cut()  # noqa: RUF009  # a tuple

    @property
    def split(self) -> str:
        """The split."""
        return self.home.split

    @property
    def category(self) -> str | None:
        """The category; None if it has none."""
        return self.home.category

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of the video."""
        size = self.preprocessing.image_size
        return [(self.length, 3, size, size)]

    @property
    def names(self) -> Sequence[str]:
        """Name of the video."""
        return [self.name]

    @property
    def places(self) -> Sequence[str]:
        """The name again: there may be other clips at the same place."""
        return [self.name]

    @property
    def identities(self) -> Sequence[str]:
        """Not known."""
        return [""]

    def read(self, index: int = 0, device: torch.device = CPU) -> Video:
        """Check the clip as a scan would have done, and decode it; see `ClipFile.read`.

        Raises:
            InputError: The clip is bad, or has not what is to be taken of it.
            ChangedInputError: It changes meanwhile, or cannot be read any more.
        """
        needs = Needs(times=self.cut.is_segment, size=self.cut.box is not None)
        opened = open_clip(self.path, self.preprocessing, needs, self.clip_name)
        try:
            segment = find_part(self.cut, opened)
        except InputError as error:
            raise type(error)(f"{self.name}: {error}") from error
        clip = opened.take(self.place, self.name, self.home, segment, self.cut.box)
        video = clip.read(index, device)
        if video.made_of is None:
            return video
        facts = replace(opened.facts, digest=video.made_of.file_digest)
        line = format_line(opened.name, facts)
        return video._replace(made_of=video.made_of._replace(line=line))
