"""Parts on disk, and their merge into the published file: plain files, no Lightning.

Finished rows go to disk as parts: small, complete feature files with one more dataset, `rows`.
A part is built in memory and written atomically, and its name holds the digest of its bytes, so it
either exists in full or not at all. When every row is in a part, the compressed chunks are copied
into one file, which is renamed into place.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import IncompleteError, InputError, OutputError, shorten
from featx.features.feature_file import (
    FileLayout,
    create,
    open_feature_file,
    read_row,
    read_times,
    write_row,
    write_times,
)
from featx.features.provenance import Provenance
from featx.features.validation import find_problems
from featx.files import check_replaceable, file_sha256, publish_file, remove, replace_file, writing

STAGING_FOLDER = ".featx"


class Staging:
    """The parts of one feature file on their way to it.

    Args:
        target: Path of the file to publish.
        layout: Its layout.
    """

    def __init__(self, target: Path, layout: FileLayout) -> None:
        self.target = target
        self.layout = layout
        # A folder for each fingerprint: rows of other inputs or settings cannot get among these,
        # not even those of a process that outlives its run.
        content = json.dumps(layout.provenance.fingerprint(), sort_keys=True).encode()
        key = hashlib.sha256(content).hexdigest()[:16]
        self.folder = target.parent / STAGING_FOLDER / target.stem / key
        self._published = False  # by an earlier run

    def prepare(self, overwrite: bool, allow_skipped: bool = False) -> set[int]:
        """Find what an earlier run with the same inputs and settings has finished.

        Damaged parts, temporary files and the notes about rows that are not finished are removed:
        these rows are tried again.

        Args:
            overwrite: Replace what other inputs or settings made, what is damaged, and a file
                that lacks videos because of an error.
            allow_skipped: Accept a published file that lacks videos because of an error.

        Returns:
            The rows that are finished: all of them, if the file is published.

        Raises:
            OutputError: The folder cannot be written; or the file, or a part, is of other inputs
                or settings, damaged or incomplete, and `overwrite` is off.
        """
        check_replaceable(self.target)
        done: set[int] = set()
        with writing(self.folder):
            if self.target.exists() and self._is_published(overwrite, allow_skipped):
                self._published = True
                self._remove_folder()
                return {*range(len(self.layout.labels))}
            self.folder.mkdir(parents=True, exist_ok=True)
            for other in {*self.folder.parent.iterdir()} - {self.folder}:
                if not overwrite:
                    self._check_others(other)
                remove(other)
            for path in {*self.folder.iterdir()} - {*self.folder.glob("damaged-*.txt")}:
                try:
                    with _open_part(path) as part:
                        done.update(part["rows"][:].tolist())
                except IncompleteError:
                    remove(path)
            for row, path in self._notes("damaged").items():
                if row not in done:
                    remove(path)
        return done

    def _is_published(self, overwrite: bool, allow_skipped: bool) -> bool:
        """Whether the published file is what this run would make; one to overwrite is not."""
        try:
            self._check_published(allow_skipped and not overwrite, read_features=overwrite)
        except OutputError:
            if not overwrite:
                raise
            return False
        return True

    def _check_others(self, folder: Path) -> None:
        """Refuse parts that other inputs or settings made."""
        for path in folder.glob("part-*.h5"):
            with suppress(IncompleteError), _open_part(path) as part:
                self._check_fingerprint(path, part)

    def _check_published(self, allow_skipped: bool, read_features: bool) -> None:
        """Refuse a published file that is not what this run would make."""
        way_out = "Set overwrite to true to replace it, or move it away."
        try:
            with open_feature_file(self.target) as file:
                self._check_fingerprint(self.target, file)
                problems = find_problems(file, read_features)
                skipped = Provenance.from_attributes(file.attrs).skipped
        except InputError as error:
            raise OutputError(f"{error} {way_out}") from error
        if problems:
            raise OutputError(f"{self.target}: {problems[0]}. {way_out}")
        if skipped and not allow_skipped:
            raise OutputError(
                f"{self.target}: expected all videos, found a file that an earlier run made "
                f"without {shorten([*skipped])}. Set overwrite to true to try these again, or "
                "on_error to skip to leave it as it is."
            )

    def _check_fingerprint(self, path: Path, file: h5py.File) -> None:
        """Refuse a file whose rows depend on other inputs or settings."""
        expected = self.layout.provenance.fingerprint()
        found = Provenance.from_attributes(file.attrs).fingerprint()
        differences = [
            f"{name} {found.get(name)!r} instead of {expected.get(name)!r}"
            for name in expected | found
            if found.get(name) != expected.get(name)
        ]
        if differences:
            raise OutputError(
                f"{path}: expected a file of the same inputs and settings, found "
                f"{shorten(differences)}. "
                "Set overwrite to true to replace it, or choose another output_dir."
            )

    def write_part(
        self,
        encoded: Mapping[int, list[bytes]],
        times: Mapping[int, NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        """Write finished rows; on return they are safe on disk.

        Args:
            encoded: The compressed chunks of each row.
            times: When the frames of each row are shown, where the layout has that.
        """
        buffer = io.BytesIO()
        rows = [*encoded]
        with h5py.File(buffer, "w") as file:
            create(file, self.layout.select(rows))
            file.create_dataset("rows", data=np.array(rows, dtype=np.int64))
            for position, chunks in enumerate(encoded.values()):
                write_row(file, position, chunks)
            for position, row in enumerate(rows):
                if row in times:
                    write_times(file, position, times[row])
        content = buffer.getbuffer()
        name = f"part-{rows[0]:09d}-{hashlib.sha256(content).hexdigest()}.h5"
        with writing(self.folder):
            replace_file(self.folder / name, content)

    def skip(self, row: int, reason: str) -> None:
        """Note on disk that a row is left out of the file, and why."""
        self._note("skipped", row, reason)

    def note_damage(self, row: int, damage: str) -> None:
        """Note on disk, before the row is there, what is missing of its video."""
        self._note("damaged", row, damage)

    def _note(self, kind: str, row: int, text: str) -> None:
        with writing(self.folder):
            replace_file(self.folder / f"{kind}-{row}.txt", text.encode())

    def _notes(self, kind: str) -> dict[int, Path]:
        """The notes of a kind, by row."""
        return {
            int(path.stem.removeprefix(f"{kind}-")): path
            for path in self.folder.glob(f"{kind}-*.txt")
        }

    def has_parts(self) -> bool:
        """Whether finished rows are on disk."""
        return any(self.folder.glob("part-*.h5"))

    def publish(self) -> None:
        """Merge the parts into the published file, and remove them.

        Raises:
            IncompleteError: A row is missing, or a part was changed; or all rows were skipped.
            OutputError: The disk is full, or the file cannot be written.
        """
        if self._published:
            return
        paths = sorted(self.folder.glob("part-*.h5"))
        place: dict[int, tuple[Path, int]] = {}
        for path in paths:
            with _open_part(path) as part:
                place |= {row: (path, k) for k, row in enumerate(part["rows"][:].tolist())}
        skipped = {
            row: path.read_text("utf-8")
            for row, path in self._notes("skipped").items()
            if row not in place
        }
        damaged = {
            row: path.read_text("utf-8")
            for row, path in self._notes("damaged").items()
            if row in place
        }
        names = self.layout.video_ids
        missing = [
            name for row, name in enumerate(names) if row not in place and row not in skipped
        ]
        if missing:
            raise IncompleteError(
                f"{self.target}: expected {len(names)} videos, found {len(names) - len(missing)}, "
                f"without {shorten(missing)}. This split is not published: run again without "
                "limit_predict_batches."
            )
        if not place:
            raise IncompleteError(
                f"{self.target}: expected one good video or more, found none: "
                f"{shorten([*skipped.values()], 1)}"
            )
        self._check_space(sum(path.stat().st_size for path in paths))
        merged = self.folder / "merged.h5"
        with writing(self.target):
            with h5py.File(merged, "w", locking=False) as file:
                create(file, self.layout.note_damage(damaged).leave_out(skipped))
                numbers = count()
                for path, positions in groupby((place[r] for r in sorted(place)), itemgetter(0)):
                    with h5py.File(path, "r", locking=False) as part:
                        for _, position in positions:
                            number = next(numbers)
                            write_row(file, number, read_row(part, position))
                            if self.layout.has_times:
                                write_times(file, number, read_times(part, position))
            with h5py.File(merged, "r", locking=False) as file:
                problems = find_problems(file, read_features=False)
            if problems:
                raise OutputError(
                    f"{merged}: expected a valid file, found {problems[0]}. Run again."
                )
            publish_file(merged, self.target)
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self.folder.exists():
            remove(self.folder)
        for parent in (self.folder.parent, self.folder.parent.parent):
            with suppress(OSError):  # there are other parts in it, or there is no such folder
                parent.rmdir()

    def _check_space(self, needed: int) -> None:
        """Check before the merge, because HDF5 crashes on a full disk."""
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                f"{self.target}: expected {needed / 2**20:.0f} MB of free disk space for the "
                f"merge, found {free / 2**20:.0f} MB. Free some, and run again."
            )


def _open_part(path: Path) -> h5py.File:
    """Open a part, after a check of its bytes against the digest in its name."""
    if path.is_file() and file_sha256(path) == path.stem.rpartition("-")[2]:
        with suppress(OSError):  # it is no HDF5 file
            part = h5py.File(path, "r", locking=False)
            if "rows" in part:
                return part
            part.close()
    raise IncompleteError(
        f"{path}: expected the bytes that were written, found others. "
        "The disk or another program has changed them: run again."
    )
