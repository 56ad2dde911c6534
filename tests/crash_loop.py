"""A small job that fails at its first step, then at its second, then ... until it gets through.

A step is right before, in the middle of, or right after a write, a sync, a rename or a removal.
After each failure the published file must be what it was, or complete; and a rerun must end with
the bytes of an undisturbed run, and leave nothing else behind.

Run as a script, it has no threads when it forks. Its arguments are a folder, how to fail (`SIGKILL`
or an error of the system), and the job: rows of one file, over none (`fresh`), over a foreign one
(`overwrite`) or over one of other rows (`update`); or everything from the scan to the analysis of
two files (`whole`), or of two that are there, of clips that were changed since (`grown`). In
shards: rows over none (`shards`), over those of other rows (`shifted`), over one file (`cut`), or
in one file over shards (`joined`). It prints the number of failures.
"""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import torch
from helpers import (
    TINY,
    complete,
    extract_eagerly,
    grey_levels,
    make_rows,
    plan,
    prepare,
    problems,
    random_videos,
)

from featx.backbones import architectures
from featx.data.media.clip import write_clip
from featx.errors import OutputError
from featx.features.feature_file import FileLayout, to_digests, write_chunks
from featx.features.resume import rows as rows_module
from featx.features.resume.parts import PartWriter, PendingFile

LENGTHS = [3, 9, 1, 3, 3, 12]

_SURVIVED = 3  # status of a job that went well although a step of it failed


class Fuse:
    """Fails at one step of the process: by SIGKILL, or by an error of the system.

    A disk that has gone read-only (EROFS) fails at all later steps too.
    """

    def __init__(self, step: int, mode: str) -> None:
        self.left, self.mode, self.burnt = step, mode, False

    def burn(self) -> None:
        """Count a step."""
        self.left -= 1
        if self.left == 0 or (self.burnt and self.mode == "EROFS"):
            self.burnt = True
            if self.mode == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            code = getattr(errno, self.mode)
            raise OSError(code, os.strerror(code))

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function with a step before it and one after it."""

        def wrapped(*args: Any, **settings: Any) -> Any:  # noqa: ANN401
            self.burn()
            result = function(*args, **settings)
            self.burn()
            return result

        return wrapped

    def write_bytes(self, path: Path, content: memoryview) -> None:
        """`Path.write_bytes` with a step in the middle."""
        self.burn()
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            self.burn()
            file.write(content[len(content) // 2 :])
        self.burn()

    def install(self) -> None:
        """Put steps around everything that changes the disk."""
        for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self.wrap(getattr(os, name)))
        setattr(Path, "write_bytes", lambda path, content: self.write_bytes(path, content))  # noqa: B010

        def write_on_disk(features: h5py.Dataset, row: int, chunks: list[bytes]) -> None:
            in_memory = features.file.driver == "fileobj"
            write = write_chunks if in_memory else self.wrap(write_chunks)
            write(features, row, chunks)

        setattr(rows_module, "write_chunks", write_on_disk)  # noqa: B010


def run_job(folder: Path, kind: str) -> None:
    """The job of one kind."""
    if kind == "whole":
        extract_eagerly(folder.parent / "processed", folder)
    elif kind == "grown":
        settings = {"source": "clips", "num_frames": 3, "image_size": 8}
        extract_eagerly(folder.parent / "clips", folder, **settings)
    else:
        size = 2 if kind in ("shards", "shifted", "cut") else None
        layout = plan(LENGTHS, made="now")
        write_rows(folder, layout, range(len(LENGTHS)), kind == "overwrite", size)


def write_rows(
    folder: Path,
    layout: FileLayout,
    numbers: Sequence[int],
    overwrite: bool,
    size: int | None = None,
) -> None:
    """Resume, write what is missing, one part a row or so, and publish.

    Which of the rows there are is said by their numbers.
    """
    staging = PendingFile(folder / "train_features.h5", layout, rows_per_file=size)
    done = prepare(staging, overwrite)
    rows = [make_rows(LENGTHS)[number] for number in numbers]
    with ThreadPoolExecutor(1) as pool:
        writer = PartWriter(staging, pool)
        for row in sorted({*range(len(rows))} - done):
            writer.add(row, rows[row].copy, staging.layout.input_sha256[row].decode())
            if row % 2:
                writer.flush()
    complete(staging, overwrite)


def run_child(folder: Path, kind: str, step: int, mode: str) -> int:
    """Run the job in a child; its status, or minus the signal that killed it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    fuse = Fuse(step, mode)
    try:
        fuse.install()
        run_job(folder, kind)
    except OutputError:
        os._exit(1)
    except BaseException as error:
        print(f"{mode} at step {step}: {error!r}", file=sys.stderr)
        os._exit(99)
    os._exit(_SURVIVED if fuse.burnt else 0)


def prepare_whole_job(folder: Path) -> None:
    """Inputs, the tiny CNN, a part for each video, and no threads of torch's that a fork breaks."""
    torch.set_num_threads(1)
    architectures.ARCHITECTURES["resnet50"] = TINY
    for split, count in (("train", 2), ("test", 1)):
        place = folder / "processed" / split / "a" / "x"
        place.mkdir(parents=True)
        torch.save(random_videos(count, 3), place / "processed_data.pt")


def save_clips(folder: Path, splits: dict[str, list[int]]) -> None:
    """Clips by their numbers, changed long ago, in place of those that are there."""
    shutil.rmtree(folder / "clips", ignore_errors=True)
    for split, numbers in splits.items():
        place = folder / "clips" / split / "a"
        place.mkdir(parents=True)
        for number in numbers:
            write_clip(place / f"{number}.mp4", grey_levels(9)[number : number + 5])
            os.utime(place / f"{number}.mp4", (1, 1))


def prepare_old_files(folder: Path, kind: str) -> Path:
    """What was published before: a folder of files."""
    old = folder / "old"
    old.mkdir()
    if kind == "overwrite":
        (old / "train_features.h5").write_bytes(b"old")
    elif kind in ("update", "shifted", "cut", "joined"):
        # Of other names and labels, in another order, and one of other content.
        numbers = [4, 1, 5, 3]
        layout = plan(LENGTHS, made="now").select(numbers)
        layout.labels[1] ^= 1
        inputs = [*layout.input_sha256[:3], "0" * 64]
        names = ["another name", *layout.video_ids[1:]]
        layout = replace(layout, input_sha256=to_digests(inputs), video_ids=names)
        size = 2 if kind in ("shifted", "joined") else None
        write_rows(old, layout, numbers, overwrite=False, size=size)
    elif kind == "grown":
        save_clips(folder, {"train": [0, 1], "test": [2]})
        run_job(old, kind)
        save_clips(folder, {"train": [3, 1], "test": [0, 2]})
    return old


def read_files(folder: Path) -> dict[str, bytes]:
    """All files that are published."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(p): (folder / p).read_bytes() for p in paths if p.parts[0] != ".featx"}


def main(folder: Path, mode: str, kind: str) -> None:
    """Fail at every step, one after the other."""
    # A process that ends, however, loses nothing that the system has taken: to wait for the disk
    # would only take time.
    setattr(os, "fsync", lambda descriptor: None)  # noqa: B010
    if kind in ("whole", "grown"):
        prepare_whole_job(folder)
    old = prepare_old_files(folder, kind)
    before = read_files(old)
    undisturbed = folder / "undisturbed"
    run_job(undisturbed, kind)
    expected = read_files(undisturbed)
    step = 0
    while True:
        step += 1
        place = folder / f"{step}"
        shutil.copytree(old, place)
        status = run_child(place, kind, step, mode)
        there = read_files(place)
        found = {name: there[name] for name in expected if name in there}
        complete = found == expected
        # Between the shards that were and those that are to be, no file is over them.
        absent = (None,) if kind == "shifted" else ()
        for name, wanted in expected.items():
            allowed = (before.get(name), wanted, *absent)
            assert found.get(name) in allowed, f"step {step}: {name}"
        target = place / "train_features.h5"
        if kind in ("shards", "shifted", "cut", "joined") and target.exists():
            assert problems(target) == [], f"step {step}"
        if status == 0:
            assert complete, f"step {step}"
            break
        if mode == "SIGKILL":
            assert status == -signal.SIGKILL, f"step {step}: {status}"
        else:
            assert status == 1 or (status == _SURVIVED and complete), f"step {step}"
        run_job(place, kind)
        notes = {path for path in (place / ".featx").rglob("*") if path.is_file()}
        assert notes <= {place / ".featx" / "scan_cache" / "inputs-1.arrow"}, (
            f"rerun after step {step}"
        )
        assert read_files(place) == expected, f"rerun after step {step}"
    print(step - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
