"""A clip that no scan has opened: it is checked when its turn comes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from featx.data.media.clip import Needs, OneVideo, Opened, open_clip
from featx.data.media.cut import Cut, find_part
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.video_file import CPU, Home, Video
from featx.data.scan_cache import format_line
from featx.data.storage import is_remote
from featx.errors import ChangedInputError, InputError, first_line


@dataclass(frozen=True, slots=True)
class LazyClip(OneVideo):
    """A clip, or a part of one, that is opened when it is read; its digest is not known."""

    name: str
    preprocessing: Preprocessing
    home: Home
    length: int  # frames of the video
    clip_name: str
    cut: Cut = Cut()  # noqa: RUF009  # a tuple
    root: str | None = None  # the folder that its name is relative to; None if to none

    @property
    def identities(self) -> Sequence[str]:
        """Not known."""
        return [""]

    def read(self, index: int = 0, device: torch.device = CPU) -> Video:
        """Check the clip as a scan would have done, and decode it; see `ClipFile.read`.

        Raises:
            InputError: The clip is bad, or has not what is to be taken of it.
            ChangedInputError: It changes meanwhile, or cannot be read any more; or none can.
        """
        opened = self._open()
        try:
            segment = find_part(self.cut, opened)
        except InputError as error:
            raise type(error)(f"{self.name}: {error}") from error
        clip = opened.take(self.place, self.name, self.home, segment, self.cut.box)
        video = clip.read(index, device)
        if video.made_of is None:
            return video
        entry = replace(opened.cache_entry, digest=video.made_of.file_digest)
        line = format_line(opened.name, entry)
        return video._replace(made_of=video.made_of._replace(line=line))

    def _open(self) -> Opened:
        needs = Needs(times=self.cut.is_segment, size=self.cut.box is not None)
        try:
            return open_clip(self.path, self.preprocessing, needs, self.clip_name)
        except InputError as error:
            cause = error.__cause__
            is_of_system = isinstance(cause, OSError) and not _has_any(self.root)
            if cause and (is_of_system or isinstance(cause, MemoryError)):
                raise ChangedInputError(
                    f"{self.path}: expected to read clips of {self.root}, found: "
                    f"{first_line(cause)}. Check the disk, and start again."
                ) from error
            raise


def _has_any(root: str | None) -> bool:
    """Whether there is something in a folder: otherwise its disk is gone, and not just a clip."""
    if root is None or is_remote(root):  # where a fault of the network has an error of its own
        return True
    try:
        with os.scandir(root) as entries:
            return any(entries)
    except OSError:
        return False
