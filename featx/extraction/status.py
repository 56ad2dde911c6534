"""Signs of life: what each process of a run says of itself, in a small file, every few seconds.

They lie in the output folder, `.featx/status/<rank>.json`, so that the first process and
`featx status` can tell how far a run is, also from another machine. Whatever becomes of them, the
run goes on.
"""

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from featx.console import find_step
from featx.files import read_json

STATUS_FOLDER = "status"
"""In the staging folder."""

Phase = Literal["scan", "extraction", "waiting", "merging"]

_BEAT_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0  # after which a silent process is doubtful
_WINDOW_SECONDS = 600.0
_TOLD = 3  # reasons


@dataclass(slots=True)
class Sign:
    """What a process says of itself.

    Attributes:
        rank: Its rank.
        num_ranks: How many processes the run has; 0 as long as that is not known.
        host: Its machine.
        pid: Its number there.
        device: Where its CNN runs.
        time: When it said so, in seconds since 1970.
        phase: What it is at; waiting is for other processes.
        step: What a bar would show of that, if there is one: its name, what is done, of how many.
        videos: Videos that it has finished in this run, with those that it has left out.
        frames: Their frames.
        rate: Frames a second, over the last ten minutes of its own work; 0 if it does not work.
        total_videos: What is to be done in this run, by all processes.
        total_frames: The frames of these.
        found: Videos that earlier runs have finished.
        skipped: Inputs that it has left out.
        reasons: Why, of the first ones.
    """

    rank: int = 0
    num_ranks: int = 0
    host: str = ""
    pid: int = 0
    device: str = ""
    time: float = 0.0
    phase: Phase = "scan"
    step: tuple[str, int, int] | None = None
    videos: int = 0
    frames: int = 0
    rate: float = 0.0
    total_videos: int = 0
    total_frames: int = 0
    found: int = 0
    skipped: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is of another machine."""
        return self.host != socket.gethostname()

    def is_silent(self, now: float) -> bool:
        """Whether it has said nothing for a minute."""
        return now - self.time > _PATIENCE_SECONDS

    def is_alive(self, now: float) -> bool:
        """Whether the process goes on, for all that is known here."""
        if self.is_elsewhere:
            return not self.is_silent(now)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is another user's
            pass
        return True


class Overall(NamedTuple):
    """How far all processes of a run are.

    Attributes:
        videos: Videos that are finished in this run.
        frames: Their frames.
        rate: Frames a second, over the last ten minutes, of all that are at work.
        slowest: Who of several has the lowest rate.
        fastest: Who has the highest one.
        seconds_left: How long the rest takes at this rate; None if nobody knows.
    """

    videos: int
    frames: int
    rate: float
    slowest: Sign | None
    fastest: Sign | None
    seconds_left: float | None


def sum_up(signs: Collection[Sign], now: float) -> Overall:
    """How far a run is.

    Args:
        signs: Those of its processes; what one has done counts even if it is gone, for its rows are
            on disk or will be.
        now: Seconds since 1970.
    """
    working = [sign for sign in signs if sign.rate > 0 and not sign.is_silent(now)]
    rate = sum(sign.rate for sign in working)
    frames = sum(sign.frames for sign in signs)
    left = max((sign.total_frames for sign in signs), default=0) - frames
    working.sort(key=lambda sign: sign.rate)
    several = len(working) > 1
    return Overall(
        sum(sign.videos for sign in signs),
        frames,
        rate,
        working[0] if several else None,
        working[-1] if several else None,
        max(left, 0) / rate if rate else None,
    )


def read_signs(folder: Path) -> list[Sign]:
    """The signs of life in a folder, by rank; a file that is none is left out."""
    usual = json.loads(json.dumps(asdict(Sign())))
    usual["step"] = None  # or a list
    signs = []
    for path in folder.glob("[0-9]*.json"):
        content = read_json(path)
        fits = content.keys() == usual.keys() and all(
            isinstance(content[name], type(value))
            for name, value in usual.items()
            if value is not None
        )
        if fits and content["phase"] in get_args(Phase):
            content["reasons"] = tuple(content["reasons"])
            signs.append(Sign(**content))
    return sorted(signs, key=lambda sign: sign.rank)


class Pace:
    """How fast frames have come in the last ten minutes.

    Args:
        now: When the first one could, in seconds of any clock.
    """

    def __init__(self, now: float) -> None:
        self._marks = deque([(now, 0)])

    def find_rate(self, now: float, frames: int) -> float:
        """Frames a second, when there are so many by now."""
        while len(self._marks) > 1 and self._marks[1][0] <= now - _WINDOW_SECONDS:
            self._marks.popleft()
        start, before = self._marks[0]
        if now - self._marks[-1][0] >= _BEAT_SECONDS:
            self._marks.append((now, frames))
        return (frames - before) / (now - start) if now > start else 0.0


class Reporter:
    """Writes the signs of life of this process, and reads those of the others.

    Args:
        folder: Where they are; it is made, and removed with the last one.
        sign: What is known of this process from the beginning.
    """

    def __init__(self, folder: Path, sign: Sign) -> None:
        self._folder = folder
        self._path = folder / f"{sign.rank}.json"
        self._temporary = folder / f"{sign.rank}.tmp"
        self._pace: Pace | None = None
        self._others: list[Sign] = []
        self._ended = threading.Event()
        self._sign_lock = threading.Lock()
        self.sign = sign
        sign.host, sign.pid = socket.gethostname(), os.getpid()
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)
        self._thread.start()

    def begin(self, phase: Phase) -> None:
        """Enter a phase."""
        with self._sign_lock:
            self._pace = Pace(time.monotonic()) if phase == "extraction" else None
            self.sign.phase = phase

    def advance(self, videos: int, frames: int) -> None:
        """Count videos, and their frames, as done."""
        with self._sign_lock:
            self.sign.videos += videos
            self.sign.frames += frames

    def skip(self, reason: str) -> None:
        """Count an input as left out."""
        with self._sign_lock:
            self.sign.skipped += 1
            if len(self.sign.reasons) < _TOLD:
                self.sign.reasons += (reason,)

    def sum_up(self) -> Overall:
        """How far the run is, as far as is known here."""
        self._update()
        return sum_up([self.sign, *self._others], self.sign.time)

    def stop(self) -> None:
        """Say no more, and remove what was said."""
        self._ended.set()
        self._thread.join()
        for path in (self._path, self._temporary):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):  # others are in it
            self._folder.rmdir()

    def _update(self) -> Sign:
        """What is true of this process now."""
        with self._sign_lock:
            sign = self.sign
            sign.time = time.time()
            sign.step = None if sign.phase == "extraction" else find_step()
            sign.rate = self._pace.find_rate(time.monotonic(), sign.frames) if self._pace else 0.0
            return sign

    def _run(self) -> None:
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(OSError):  # a full disk is nothing that a run must end for
                self._write()
            if self.sign.rank == 0 and self.sign.num_ranks != 1:
                with suppress(OSError):
                    self._others = [sign for sign in read_signs(self._folder) if sign.rank]
            if self._ended.wait(_BEAT_SECONDS):
                return

    def _write(self) -> None:
        """Replace the file; not durably, for after a power cut it would be wrong anyhow."""
        self._temporary.write_text(json.dumps(asdict(self._update())), "utf-8")
        self._temporary.replace(self._path)
