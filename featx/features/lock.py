"""One run at a time on an output folder."""

import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from featx.durable import writing
from featx.errors import OutputError

_PATIENCE_SECONDS = 60.0  # torchrun kills within half of it what does not end
_POLL_SECONDS = 0.2


class RunLock:
    """A lock that the kernel releases when the process ends, however it ends.

    Args:
        path: A file of its own for the lock; it exists while the lock is held.
        run: Who this is of several runs, if anybody has a name for it: it is restarted under the
            same one, and waits a moment for the process that it has lost.
    """

    def __init__(self, path: Path, run: str = "") -> None:
        self.path = path
        self._run = run and f", run {run}"
        self._has_made_folder = False
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutputError: Another process holds it, or the folder cannot be written.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with writing(self.path):
            while self._file is None:
                self._has_made_folder |= not self.path.parent.parent.exists()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = self.path.open("a+")
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    file.seek(0)
                    holder = file.read().strip() or "an unknown process"
                    file.close()
                    if self._run and holder.endswith(self._run) and time.monotonic() < deadline:
                        time.sleep(_POLL_SECONDS)
                        continue
                    raise OutputError(
                        f"{self.path.parent.parent}: expected no other run on this folder, found "
                        f"{holder}. Wait for it to end, or choose another output_dir."
                    ) from error
                if _is_same_file(file, self.path):
                    self._file = file
                else:  # the holder removed it in the meantime
                    file.close()
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}{self._run}\n")
            self._file.flush()

    def release(self) -> None:
        """Release the lock, if it is held, and remove its file and the folders made for it."""
        with suppress(OSError):  # a file that stays does no harm, nor does a folder with parts
            if self._file is not None:
                self.path.unlink()
            self.path.parent.rmdir()
            if self._has_made_folder:  # if nothing came of the run
                self.path.parent.parent.rmdir()
        if self._file is not None:
            with suppress(OSError):  # on a full disk, the holder's name is still to be written
                self._file.close()
            self._file = None


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
