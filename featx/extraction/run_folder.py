"""The folder of a run: its lock, and what the ranks keep in `OUTPUT/.featx/` during the run."""

import os
import secrets
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from featx.data.manifest import Manifest
from featx.data.scan_cache import Journal, ScanCache
from featx.durable import remove, writing
from featx.extraction.status import STATUS_FOLDER, HeartbeatFile
from featx.features.lock import RunLock
from featx.features.resume import STAGING_FOLDER

_MANIFEST_SECONDS = 90


class RunFolder:
    """The output folder of a run, which one run at a time may use.

    Its staging folder `.featx/` holds the lock, the scan cache (kept for the next run), the
    manifest and the heartbeats of the run, and the parts of unfinished feature files.

    Args:
        path: The output folder.

    Attributes:
        path: The output folder.
        staging: Its staging folder.
        scan_cache: What runs have found out about inputs.
        heartbeat: The heartbeat of this rank, once it has one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.staging = path / STAGING_FOLDER
        self.scan_cache = ScanCache()
        self.heartbeat: HeartbeatFile | None = None
        # When a rank dies, torchrun restarts the run under the same name.
        run = os.environ.get("TORCHELASTIC_RUN_ID", "")
        self._lock = RunLock(self.staging / "lock", run)
        self._status_folder = self.staging / STATUS_FOLDER
        self._manifest_folder = self.staging / "manifest"
        self._scan_cache_folder = self.staging / "scan_cache"

    def open(self) -> None:
        """Lock the folder, and begin the heartbeat; only rank 0 calls this, before the scan.

        Raises:
            OutputError: Another run holds the lock, or the folder cannot be written.
        """
        self._lock.acquire()
        if self._status_folder.exists():  # heartbeats of a run that was killed
            with writing(self._status_folder):
                remove(self._status_folder)
        self.start_heartbeat(0)

    def close(self) -> None:
        """Stop the heartbeat and release the lock, whether `open` was successful or not."""
        self.stop_heartbeat()
        self._lock.release()

    def start_heartbeat(self, rank: int) -> HeartbeatFile:
        """Return the heartbeat of this rank; rank 0 has one since `open`."""
        self.heartbeat = self.heartbeat or HeartbeatFile(self._status_folder, rank)
        return self.heartbeat

    def stop_heartbeat(self) -> None:
        """Remove the heartbeat of this rank."""
        if self.heartbeat is not None:
            self.heartbeat.remove()
            self.heartbeat = None

    def load_scan_cache(self) -> ScanCache:
        """Return what earlier runs have found out about inputs."""
        self.scan_cache = ScanCache.load(self._scan_cache_folder)
        return self.scan_cache

    def save_scan_cache(self) -> None:
        """Keep the scan cache for the next run."""
        with writing(self._scan_cache_folder):
            self.scan_cache.save(self._scan_cache_folder)

    def make_journal(self, rank: int) -> Journal:
        """Return the file in which a rank notes what it finds; `load_scan_cache` reads it, too."""
        return Journal(self._scan_cache_folder / f"{rank}.jsonl")

    def save_manifest(self, manifest: Manifest) -> Path:
        """Save the manifest for the other ranks, and return its path."""
        with writing(self._manifest_folder):
            self.remove_manifest()  # that of a run that was killed
            # A new name, because a network file system may still show others the old content.
            path = self._manifest_folder / f"{secrets.token_hex(8)}.arrow"
            manifest.save(path)
        return path

    def open_manifest(self, folder: Path) -> Manifest:
        """Open the manifest of rank 0; a network file system may show it only after some time."""
        for _ in range(_MANIFEST_SECONDS):
            with suppress(OSError):
                return Manifest.open(folder)
            time.sleep(1)
        with writing(folder):
            return Manifest.open(folder)

    def remove_manifest(self) -> None:
        """Remove the saved manifest; if that fails, the next run does it."""
        with suppress(OSError):
            remove(self._manifest_folder)


class RunOwner(ABC):
    """The FeatureWriter, for the data module: a Trainer callback that owns the run's folder."""

    run_folder: RunFolder

    @abstractmethod
    def find_finished(self, trainer: Trainer) -> NDArray[np.bool_]:
        """Return which videos `[num_videos]` earlier runs have finished; all ranks call this."""


def find_owner(trainer: Trainer | None) -> RunOwner | None:
    """Return the callback of a Trainer that owns the run's folder; None without one."""
    callbacks = getattr(trainer, "callbacks", ())
    return next((each for each in callbacks if isinstance(each, RunOwner)), None)
