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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from featx.durable import read_json

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
    reasons: list[str] = field(default_factory=list)

    def is_stale(self, now: float) -> bool:
        """Whether it was not rewritten for ten minutes."""
        return now - self.time > _STALE_SECONDS

    def judge(self, now: float) -> Literal["alive", "ended", "stale"]:
        """Return the state of the process; of another machine, only the heartbeat tells it."""
        if self.host != socket.gethostname():
            return "stale" if self.is_stale(now) else "alive"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "ended"
        except OSError:  # the process belongs to another user
            pass
        return "alive"


class RunTotals(NamedTuple):
    """Sum over the ranks of a run: videos and frames done, frames per second, and time left."""

    videos: int
    frames: int
    rate: float
    seconds_left: float | None


def sum_up(heartbeats: Collection[Heartbeat], now: float) -> RunTotals:
    """Sum up the heartbeats of one rank or more, at a time in seconds since 1970.

    The counts of dead ranks are included, because their finished rows are on disk.
    """
    rate = sum(beat.rate for beat in heartbeats if not beat.is_stale(now))
    frames = sum(beat.frames for beat in heartbeats)
    left = max(0, max(beat.total_frames for beat in heartbeats) - frames)
    videos = sum(beat.videos for beat in heartbeats)
    return RunTotals(videos, frames, rate, left / rate if rate else None)


def read_heartbeats(folder: Path) -> list[Heartbeat]:
    """Return the heartbeats in a folder, by rank; files with other fields are ignored."""
    heartbeats = []
    for path in folder.glob("[0-9]*.json"):
        with suppress(TypeError):
            heartbeats.append(Heartbeat(**read_json(path)))
    return sorted(heartbeats, key=lambda beat: beat.rank)


class HeartbeatFile:
    """Writes the heartbeat `beat` of this rank, and reads those of the other ranks.

    The folder of the files is created, and removed with its last file.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        self._path, self._temporary = folder / f"{rank}.json", folder / f"{rank}.tmp"
        self._last_write = self._last_read = 0.0
        self._others: list[Heartbeat] = []
        self.beat = Heartbeat(rank, host=socket.gethostname(), pid=os.getpid())
        self.enter("scan")

    def enter(self, phase: Phase) -> None:
        """Report a new phase."""
        self.beat.phase = phase
        self._phase_start = time.monotonic()
        self.write(at_once=True)

    def advance(self, videos: int, frames: int) -> None:
        """Count videos, and their frames, as done."""
        self.beat.videos += videos
        self.beat.frames += frames

    def skip(self, reason: str) -> None:
        """Count an input as skipped."""
        self.beat.skipped += 1
        if len(self.beat.reasons) < _MAX_REASONS:
            self.beat.reasons.append(reason)

    def write(self, at_once: bool = False) -> None:
        """Replace the file, at most once a second unless `at_once` is set.

        It is not synced to disk, because after a power failure it would be wrong anyway.
        """
        beat, now = self.beat, time.monotonic()
        if not at_once and now - self._last_write < _WRITE_SECONDS:
            return
        self._last_write = now
        seconds = now - self._phase_start
        beat.rate = beat.frames / seconds if beat.phase == "extraction" and seconds > 0 else 0.0
        beat.time = time.time()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._temporary.write_text(json.dumps(asdict(beat)), "utf-8")
            self._temporary.replace(self._path)

    def sum_up(self, at_once: bool = False) -> RunTotals:
        """Sum up all ranks; the other ranks' files are read every five seconds, or `at_once`."""
        beat, now = self.beat, time.monotonic()
        if at_once or now - self._last_read >= _READ_SECONDS:
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
