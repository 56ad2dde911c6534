"""Mutated files, thousands of them: read right, or refused in words.

Run as a script, because a defect may crash the process. Its arguments are a folder, what to mutate
(`bytes`, `pickles` or `parts`) and how many; it prints how many were read and how many refused.
"""

import json
import os
import random
import struct
import sys
import zipfile
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from helpers import complete, finish, make_rows, plan, prepare, random_video, random_videos
from torch import Tensor

from featx.data.media.processed_file import open_processed_file
from featx.data.media.torch_archive import verify_checksums
from featx.errors import FeatxError, InputError
from featx.features.resume.parts import PendingFile

LENGTHS = [3, 9, 1, 3, 3, 12]

SEEDS: dict[str, Any] = {
    "tensor": {"videos": random_videos(3, 2, size=4), "clips": ["a", "b", "c"]},
    "bare": random_videos(2, 3, size=4).to(torch.float32) / 255,
    "list": [random_video(2, size=4), random_video(1, seed=1, size=4)],
    "tuple": {"videos": tuple(random_videos(2, 2, size=4).to(torch.float16))},
}


def read(path: Path) -> list[Tensor]:
    """All videos of a file.

    Raises:
        FeatxError: One or all are refused.
    """
    file = open_processed_file(path)
    for error in file.rejected.values():
        raise error
    return [file.read(index).frames for index in range(len(file.shapes))]


def is_same(found: list[Tensor], saved: Any) -> bool:  # noqa: ANN401  # whatever torch.load finds
    """Whether these are the videos of what was saved, bit by bit: there may be NaN."""
    videos = saved["videos"] if isinstance(saved, dict) else saved
    return len(found) == len(videos) and all(
        (video.dtype, video.shape) == (wanted.dtype, wanted.shape)
        and video.contiguous().numpy().tobytes() == wanted.detach().contiguous().numpy().tobytes()
        for video, wanted in zip(found, videos, strict=True)
    )


IN_PLACE = ("flip", "overwrite", "edge")
KINDS = ("cut", "insert", "remove", *IN_PLACE)


def mutate(content: bytes, rng: random.Random, kinds: tuple[str, ...] = KINDS) -> bytes:
    """Cut, flip, overwrite, insert or remove bytes."""
    data = bytearray(content)
    start = rng.randrange(len(data))
    length = min(rng.choice([1, 1, 2, 4, 16, 100]), len(data) - start)
    kind = rng.choice(kinds)
    if kind == "cut":
        return content[:start]
    if kind == "flip":
        for _ in range(length):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "overwrite":
        data[start : start + length] = rng.randbytes(length)
    elif kind == "insert":
        data[start:start] = rng.randbytes(length)
    elif kind == "remove":
        del data[start : start + length]
    else:  # numbers at the edges of their types
        data[start] = rng.choice([0, 1, 127, 128, 255])
    return bytes(data)


def mutate_pickle(path: Path, rng: random.Random) -> None:
    """Mutate the pickle inside the archive, which stays an intact archive."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        pickled = archive.read(name)
    hostile = mutate(pickled, rng, IN_PLACE)
    content = path.read_bytes()
    for old, new in ((pickled, hostile), (checksum(pickled), checksum(hostile))):
        assert old in content
        content = content.replace(old, new)
    path.write_bytes(content)


def checksum(content: bytes) -> bytes:
    """As an archive has it."""
    return struct.pack("<I", zlib.crc32(content))


def fuzz_bytes(path: Path, rng: random.Random) -> str:
    """Any byte of the file: what is read is what was saved, or the checksums tell."""
    name = rng.choice([*SEEDS])
    torch.save(SEEDS[name], path)
    path.write_bytes(mutate(path.read_bytes(), rng))
    try:
        found = read(path)
    except FeatxError as error:
        return describe(error)
    if is_same(found, SEEDS[name]):
        return "read"
    try:
        verify_checksums(path)
    except InputError:
        return "other pixels, which the checksums tell"
    raise AssertionError("other numbers without a word")


def fuzz_pickles(path: Path, rng: random.Random) -> str:
    """Hostile shapes, types, offsets and code: what is read is what torch.load reads."""
    expected = SEEDS[rng.choice([*SEEDS])]
    torch.save(expected, path)
    mutate_pickle(path, rng)
    try:
        found = read(path)
    except FeatxError as error:
        return describe(error)
    with suppress(Exception):  # it refuses more, such as sizes of storages that no tensor reaches
        expected = torch.load(path, weights_only=True)
    assert is_same(found, expected), "other numbers than torch.load's"
    return "read"


def fuzz_parts(path: Path, rng: random.Random) -> str:
    """A part of which one byte or more is not what it was: dropped, and made again."""
    rows = make_rows(LENGTHS)
    staging = PendingFile(path.parent / "train_features.h5", plan(LENGTHS))
    staging.folder.mkdir(parents=True, exist_ok=True)
    for first in (0, 2, 4):
        staging.write_part({r: finish(staging, r, rows[r]) for r in (first, first + 1)})
    part = rng.choice(sorted(staging.folder.iterdir()))
    content = part.read_bytes()
    part.write_bytes(mutate(content, rng))
    damaged = part.read_bytes() != content
    done = prepare(staging)
    first = int(part.name.split("-")[1])
    assert done == {*range(6)} - ({first, first + 1} if damaged else set())
    assert part.exists() != damaged
    for row in {*range(6)} - done:
        staging.write_part({row: finish(staging, row, rows[row])})
    complete(staging)
    content = staging.target.read_bytes()
    staging.target.unlink()
    undisturbed = path.parent / "undisturbed"
    if not undisturbed.exists():
        undisturbed.write_bytes(content)
    assert content == undisturbed.read_bytes()
    return "dropped" if damaged else "read"


def describe(error: FeatxError) -> str:
    """Check that an error is fit for a person."""
    assert "\n" not in str(error)
    assert ": expected " in str(error)
    return "refused"


def main(folder: Path, what: str, number: int) -> None:
    """Mutate so many files, and print what became of them."""
    setattr(os, "fsync", lambda descriptor: None)  # noqa: B010  # nothing here outlives a loss of power
    run = {"bytes": fuzz_bytes, "pickles": fuzz_pickles, "parts": fuzz_parts}[what]
    outcomes: Counter[str] = Counter()
    for seed in range(number):
        (folder / "seed").write_text(str(seed))  # after a crash, it tells which one it was
        outcomes[run(folder / "processed_data.pt", random.Random(seed))] += 1
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
