"""Heartbeats: each rank of a run reports its progress in a small JSON file.

The files are `OUTPUT/.featx/status/<rank>.json`. Rank 0 and `featx status`, also on another
machine, read them. An error while a heartbeat is written never ends the run.
"""

import json
import os
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from featx.files import read_json

STATUS_FOLDER = "status"
"""In the staging folder."""

Phase = Literal["scan", "extraction", "waiting", "merging"]

_WRITE_SECONDS = 1.0  # between two writes of a rank
_READ_SECONDS = 5.0  # between two reads of the other ranks' files
_STALE_SECONDS = 600.0  # because a batch of long videos may take minutes
_MAX_REASONS = 3


@dataclass(slots=True)
class Heartbeat:
    """What a rank reports of itself.

    Attributes:
        rank: The rank.
        num_ranks: Number of ranks of the run; 0 until it is known.
        host: Name of its machine.
        pid: Its process number there.
        device: Device of its backbone.
        time: When it was written, in seconds since 1970.
        phase: What the rank is doing; `waiting` is for other ranks.
        videos: Number of videos that it has finished or skipped in this run.
        frames: Number of frames of these videos.
        rate: Frames per second since its extraction began; 0 in the other phases.
        total_videos: Number of videos that all ranks together have to do in this run.
        total_frames: Number of frames of these videos.
        found: Number of videos that earlier runs have finished.
        skipped: Number of inputs that it has skipped.
        reasons: Error messages of the first skipped inputs.
    """

    rank: int = 0
    num_ranks: int = 0
    host: str = ""
    pid: int = 0
    device: str = ""
    time: float = 0.0
    phase: Phase = "scan"
    videos: int = 0
    frames: int = 0
    rate: float = 0.0
    total_videos: int = 0
    total_frames: int = 0
    found: int = 0
    skipped: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether its rank runs on this machine."""
        return self.host == socket.gethostname()

    def is_stale(self, now: float) -> bool:
        """Whether it was not rewritten for ten minutes."""
        return now - self.time > _STALE_SECONDS

    def is_alive(self, now: float) -> bool:
        """Whether its process exists; of another machine, whether the heartbeat is not stale."""
        if not self.is_local:
            return not self.is_stale(now)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # the process belongs to another user
            pass
        return True


class RunTotals(NamedTuple):
    """Progress of a run over all ranks.

    Attributes:
        videos: Number of videos that are finished or skipped in this run.
        frames: Number of frames of these videos.
        rate: Frames per second of all ranks that extract.
        slowest: Of several such ranks, the heartbeat with the lowest rate.
        fastest: Of several such ranks, the heartbeat with the highest rate.
        seconds_left: Time for the rest at this rate; None if no rank extracts.
    """

    videos: int
    frames: int
    rate: float
    slowest: Heartbeat | None
    fastest: Heartbeat | None
    seconds_left: float | None


def sum_up(heartbeats: Collection[Heartbeat], now: float) -> RunTotals:
    """Sum up the heartbeats of all ranks.

    The counts of dead ranks are included, because their finished rows are on disk.

    Args:
        heartbeats: One per rank.
        now: Seconds since 1970.
    """
    working = [beat for beat in heartbeats if beat.rate > 0 and not beat.is_stale(now)]
    working.sort(key=lambda beat: beat.rate)
    rate = sum(beat.rate for beat in working)
    frames = sum(beat.frames for beat in heartbeats)
    left = max((beat.total_frames for beat in heartbeats), default=0) - frames
    several = len(working) > 1
    return RunTotals(
        sum(beat.videos for beat in heartbeats),
        frames,
        rate,
        working[0] if several else None,
        working[-1] if several else None,
        max(left, 0) / rate if rate else None,
    )


def read_heartbeats(folder: Path) -> list[Heartbeat]:
    """Return the heartbeats in a folder, by rank; files of another form are ignored."""
    default = json.loads(json.dumps(asdict(Heartbeat())))
    heartbeats = []
    for path in folder.glob("[0-9]*.json"):
        content = read_json(path)
        fits = content.keys() == default.keys() and all(
            isinstance(content[name], type(value)) for name, value in default.items()
        )
        if fits and content["phase"] in get_args(Phase):
            content["reasons"] = tuple(content["reasons"])
            heartbeats.append(Heartbeat(**content))
    return sorted(heartbeats, key=lambda beat: beat.rank)


class HeartbeatFile:
    """Writes the heartbeat of this rank, and reads those of the other ranks.

    Args:
        folder: The folder of the files. It is created, and removed with its last file.
        rank: This rank.

    Attributes:
        heartbeat: What the next write will report.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        self._path, self._temporary = folder / f"{rank}.json", folder / f"{rank}.tmp"
        self._extraction_start = self._last_write = self._last_read = 0.0
        self._others: list[Heartbeat] = []
        self.heartbeat = Heartbeat(rank, host=socket.gethostname(), pid=os.getpid())
        self.enter("scan")

    def enter(self, phase: Phase) -> None:
        """Report a new phase."""
        self.heartbeat.phase = phase
        self._extraction_start = time.monotonic()
        self.write(at_once=True)

    def advance(self, videos: int, frames: int) -> None:
        """Count videos, and their frames, as done."""
        self.heartbeat.videos += videos
        self.heartbeat.frames += frames

    def skip(self, reason: str) -> None:
        """Count an input as skipped."""
        self.heartbeat.skipped += 1
        if len(self.heartbeat.reasons) < _MAX_REASONS:
            self.heartbeat.reasons += (reason,)

    def write(self, at_once: bool = False) -> None:
        """Replace the file, at most once a second unless `at_once` is set.

        It is not synced to disk, because after a power failure it would be wrong anyway.
        """
        beat, now = self.heartbeat, time.monotonic()
        if not at_once and now - self._last_write < _WRITE_SECONDS:
            return
        self._last_write = now
        seconds = now - self._extraction_start
        beat.rate = beat.frames / seconds if beat.phase == "extraction" and seconds > 0 else 0.0
        beat.time = time.time()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._temporary.write_text(json.dumps(asdict(beat)), "utf-8")
            self._temporary.replace(self._path)

    def sum_up(self, at_once: bool = False) -> RunTotals:
        """Sum up all ranks; the other ranks' files are read every five seconds, or `at_once`."""
        beat, now = self.heartbeat, time.monotonic()
        if beat.num_ranks != 1 and (at_once or now - self._last_read >= _READ_SECONDS):
            self._last_read = now
            with suppress(OSError):
                beats = read_heartbeats(self._folder)
                self._others = [other for other in beats if other.rank != beat.rank]
        return sum_up([beat, *self._others], time.time())

    def remove(self) -> None:
        """Remove the file, and the folder if it is empty then."""
        for path in (self._path, self._temporary):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):  # the files of other ranks are in it
            self._folder.rmdir()
