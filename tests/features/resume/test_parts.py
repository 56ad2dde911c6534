"""Parts and their merge: the same bytes however the rows came, and nothing half-written."""

import errno
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import complete, finish, make_rows, plan, prepare, problems
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featx.errors import FeatureError, IncompleteError, OutputError
from featx.features.feature_file import open_feature_file
from featx.features.resume.parts import PartLimits, PartWriter, PendingFile

LENGTHS = [3, 9, 1, 3, 3, 12]


def start(folder: Path) -> PendingFile:
    """A staging with its folder made."""
    staging = PendingFile(folder / "train_features.h5", plan(LENGTHS))
    prepare(staging, overwrite=False)
    return staging


def write_parts(staging: PendingFile, parts: list[list[int]]) -> None:
    """Parts that hold these rows."""
    rows = make_rows(LENGTHS)
    for part in parts:
        staging.write_part({row: finish(staging, row, rows[row]) for row in part})


def made_of(staging: PendingFile, row: int) -> str:
    """What a row is made of."""
    return str(staging.layout.input_sha256[row].decode())


def publish(folder: Path, parts: list[list[int]]) -> bytes:
    """The published file's bytes."""
    staging = start(folder)
    write_parts(staging, parts)
    complete(staging)
    return staging.target.read_bytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(range(len(LENGTHS))), st.lists(st.integers(0, 6), max_size=4))
def test_same_bytes_however_rows_are_spread(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int]
) -> None:
    """Rows in any order, over any number of parts: the same file."""
    bounds = [0, *sorted(cuts), len(order)]
    parts = [order[a:b] for a, b in pairwise(bounds) if b > a]
    folders = [tmp_path_factory.mktemp("staging") for _ in range(2)]
    assert publish(folders[0], parts) == publish(folders[1], [[*range(len(LENGTHS))]])


def test_published_file_is_valid_and_alone(tmp_path: Path) -> None:
    """The file holds every row; parts, temporary files and their folder are gone."""
    publish(tmp_path, [[0, 1, 2], [3, 4, 5]])
    assert [path.name for path in tmp_path.iterdir()] == ["train_features.h5"]
    assert problems(tmp_path / "train_features.h5") == []
    with h5py.File(tmp_path / "train_features.h5") as file:
        for row, features in enumerate(make_rows(LENGTHS)):
            np.testing.assert_array_equal(file["features"][row, : len(features)], features)
        assert [*file["video_ids"].asstr()] == [f"video {i}" for i in range(6)]


def test_a_part_is_a_feature_file(tmp_path: Path) -> None:
    """A part reads like a feature file, and says which rows it holds."""
    staging = start(tmp_path)
    write_parts(staging, [[4, 1]])
    (part,) = staging.folder.iterdir()
    with h5py.File(part) as file:
        assert file["rows"][:].tolist() == [4, 1]
        np.testing.assert_array_equal(file["features"][1, :9], make_rows(LENGTHS)[1])
        assert file["labels"][:].tolist() == [0, 1]


def test_missing_rows_are_named(tmp_path: Path) -> None:
    """With a row missing nothing is published, and what is there stays."""
    staging = start(tmp_path)
    write_parts(staging, [[0, 1, 2], [5]])
    with pytest.raises(
        IncompleteError, match="expected 6 videos, found 4, without video 3, video 4\\."
    ):
        complete(staging)
    assert not staging.target.exists()
    assert len([*staging.folder.glob("part-*")]) == 2


def test_a_damaged_part_is_not_published(tmp_path: Path) -> None:
    """One flipped bit in a part is noticed before anything is published."""
    staging = start(tmp_path)
    write_parts(staging, [[*range(6)]])
    (part,) = staging.folder.glob("part-*")
    content = bytearray(part.read_bytes())
    content[-100] ^= 1
    part.write_bytes(content)
    with pytest.raises(IncompleteError, match="expected the bytes that were written"):
        complete(staging)
    assert not staging.target.exists()


def test_a_published_file_is_left_alone(tmp_path: Path) -> None:
    """With the same inputs and settings, everything is done; nothing is written."""
    publish(tmp_path, [[*range(6)]])
    staging = PendingFile(tmp_path / "train_features.h5", plan(LENGTHS))
    before = staging.target.stat()
    assert prepare(staging, overwrite=False) == {*range(6)}
    complete(staging)
    assert staging.target.stat() == before
    assert [*tmp_path.iterdir()] == [staging.target]


@pytest.mark.parametrize("published", [True, False])
def test_other_settings_are_refused(tmp_path: Path, published: bool) -> None:
    """A file, or a part, of other settings is refused with the names of what differs."""
    other = PendingFile(tmp_path / "train_features.h5", plan(LENGTHS, scales=[1.0], same=1))
    prepare(other, overwrite=False)
    write_parts(other, [[*range(6)]])
    if published:
        complete(other)
    staging = PendingFile(other.target, plan(LENGTHS, scales=[1.0, 0.5], same=1))
    with pytest.raises(OutputError, match=r"scales is \[1\.0, 0\.5\] instead of \[1\.0\]\. Set"):
        prepare(staging, overwrite=False)
    assert prepare(staging, overwrite=True) == set()
    assert [*staging.folder.iterdir()] == []
    write_parts(staging, [[*range(6)]])
    complete(staging)
    assert problems(staging.target) == []


def test_the_place_of_the_data_does_not_matter(tmp_path: Path) -> None:
    """A data set that was moved is the same data set."""
    publish(tmp_path, [[*range(6)]])
    staging = PendingFile(tmp_path / "train_features.h5", plan(LENGTHS, root="elsewhere"))
    assert prepare(staging, overwrite=False) == {*range(6)}


def test_an_old_file_keeps_its_place_until_the_new_one_is_ready(tmp_path: Path) -> None:
    """While it is being overwritten, the old file stays as it was."""
    expected = publish(tmp_path, [[*range(6)]])
    staging = PendingFile(tmp_path / "train_features.h5", plan(LENGTHS))
    staging.target.write_bytes(b"old")
    prepare(staging, overwrite=True)
    write_parts(staging, [[*range(6)]])
    assert staging.target.read_bytes() == b"old"
    complete(staging)
    assert staging.target.read_bytes() == expected


def test_a_damaged_published_file_is_refused(tmp_path: Path) -> None:
    """It is neither taken for done nor replaced without being told to."""
    publish(tmp_path, [[*range(6)]])
    staging = PendingFile(tmp_path / "train_features.h5", plan(LENGTHS))
    staging.target.write_bytes(staging.target.read_bytes()[:3000])
    with pytest.raises(OutputError, match=r"expected an HDF5 file.*Set overwrite to true"):
        prepare(staging, overwrite=False)
    assert prepare(staging, overwrite=True) == set()


def test_a_later_run_goes_on_from_the_parts(tmp_path: Path) -> None:
    """Rows in parts are done; what is damaged, cut off or foreign is dropped."""
    expected = publish(tmp_path / "undisturbed", [[*range(6)]])
    staging = start(tmp_path)
    write_parts(staging, [[0], [1, 2], [3], [4]])
    parts = sorted(staging.folder.glob("part-*"))
    flipped, cut = bytearray(parts[0].read_bytes()), parts[2].read_bytes()
    flipped[len(flipped) // 2] ^= 1
    parts[0].write_bytes(flipped)
    parts[2].write_bytes(cut[:-1])
    parts[3].rename(parts[3].with_name("part-000000009-" + "0" * 64 + ".h5"))
    (staging.folder / ".part-1.h5.17.tmp").write_bytes(b"half")
    (staging.folder / "merged.h5").write_bytes(b"half")
    again = PendingFile(staging.target, plan(LENGTHS))
    assert prepare(again, overwrite=False) == {1, 2}
    assert [*staging.folder.iterdir()] == [parts[1]]
    write_parts(again, [[0, 3], [4, 5]])
    complete(again)
    assert again.target.read_bytes() == expected


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The path and the system's reason are told in one line."""
    (tmp_path / "file").write_text("")
    staging = PendingFile(tmp_path / "file" / "train_features.h5", plan(LENGTHS))
    with pytest.raises(OutputError, match=r"expected a writable place, found: Not a directory"):
        prepare(staging, overwrite=False)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves no part under its name, and says why."""
    staging = start(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_parts(staging, [[0]])
    assert [*staging.folder.iterdir()] == []


def test_no_room_for_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 would crash on a full disk, so the room is asked for before the merge."""
    staging = start(tmp_path)
    write_parts(staging, [[*range(6)]])
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="free disk space for the merge"):
        complete(staging)
    assert not staging.target.exists()


def test_part_writer_bounds_what_it_holds(tmp_path: Path) -> None:
    """A part is written whenever enough bytes are together, not at the end."""
    staging = start(tmp_path)
    rows = make_rows(LENGTHS)
    with ThreadPoolExecutor(2) as pool:
        writer = PartWriter(staging, pool, limits=PartLimits(num_bytes=1, queued=1))
        for row in (0, 1, 2, 3, 4):
            writer.add(row, rows[row].copy, made_of(staging, row))
        assert len([*staging.folder.glob("part-*")]) >= 2
        writer.add(5, rows[5].copy, made_of(staging, 5))
        writer.flush()
        writer.flush()
    complete(staging)
    assert problems(staging.target) == []


def test_part_writer_does_not_wait_for_bytes_forever(tmp_path: Path) -> None:
    """However few the bytes, rows go to disk after some seconds."""
    staging = start(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        writer = PartWriter(staging, pool, limits=PartLimits(seconds=0.0, queued=0))
        writer.add(0, make_rows(LENGTHS)[0].copy, made_of(staging, 0))
    assert len([*staging.folder.glob("part-*")]) == 1


def test_a_row_that_is_not_finite(tmp_path: Path) -> None:
    """The rows around it are written all the same; it is an error, or left out."""
    staging = start(tmp_path)
    rows = make_rows(LENGTHS)
    rows[2][0, 0] = np.nan
    with ThreadPoolExecutor(1) as pool:
        writer = PartWriter(staging, pool)
        with pytest.raises(FeatureError, match="video 2: expected finite features, found NaN"):  # noqa: PT012
            for row in range(6):
                writer.add(row, rows[row].copy, made_of(staging, row))
            writer.flush()
        with suppress(FeatureError):
            writer.flush()
        done = prepare(staging, overwrite=False)
        assert done >= {0, 1}
        assert 2 not in done
        writer = PartWriter(staging, pool, skips=True)
        for row in sorted({*range(6)} - done):
            writer.add(row, rows[row].copy, made_of(staging, row))
        writer.flush()
    complete(staging)
    with open_feature_file(staging.target) as file:
        assert [*json.loads(file.attrs["skipped"])] == ["video 2"]
        assert file.attrs["num_videos"] == 5


def test_an_invalid_merge_is_not_published(tmp_path: Path) -> None:
    """The merged file is checked before it is renamed into place."""
    staging = start(tmp_path)
    write_parts(staging, [[*range(6)]])
    staging.layout.labels[2] = 9
    with pytest.raises(OutputError, match="expected a valid file, found labels: expected those"):
        complete(staging)
    assert not staging.target.exists()


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    """It is found before the work, not after it."""
    (tmp_path / "train_features.h5").mkdir()
    staging = PendingFile(tmp_path / "train_features.h5", plan(LENGTHS))
    with pytest.raises(OutputError, match="found a folder"):
        prepare(staging, overwrite=True)


def test_skipped_rows(tmp_path: Path) -> None:
    """They are left out of the file, which lists them; but a new run tries them again."""
    staging = start(tmp_path)
    write_parts(staging, [[1], [5, 4]])
    for row in (0, 2, 3):
        staging.skip(row, f"reason {row}\n")
    with pytest.raises(IncompleteError, match="without video 0, video 2, video 3"):
        complete(start(tmp_path))
    staging = start(tmp_path)
    for row in (0, 2, 3):
        staging.skip(row, f"reason {row}")
    complete(staging)
    assert problems(staging.target) == []
    with h5py.File(staging.target) as file:
        assert [*file["video_ids"].asstr()] == ["video 1", "video 4", "video 5"]
        skipped = json.loads(file.attrs["skipped"])
        assert skipped == {f"video {row}": f"reason {row}" for row in (0, 2, 3)}
        for position, row in enumerate((1, 4, 5)):
            found = file["features"][position][: LENGTHS[row]]
            np.testing.assert_array_equal(found, make_rows(LENGTHS)[row])
    assert not staging.folder.exists()


def test_a_note_that_is_cut_off(tmp_path: Path) -> None:
    """It has not been said: the row is missing. All notes of a process are in one file."""
    staging = start(tmp_path)
    write_parts(staging, [[1, 2, 3, 4]])
    for row in (0, 5):
        staging.skip(row, f"reason {row}")
    [journal] = staging.folder.glob("skipped-*")
    journal.write_bytes(journal.read_bytes()[:-1])
    with pytest.raises(IncompleteError, match="without video 5"):
        complete(staging)
    other = PendingFile(staging.target, staging.layout)  # another process of the run
    other.folder = staging.folder
    other.skip(5, "reason 5")
    complete(staging)
    with open_feature_file(staging.target) as file:
        assert [*json.loads(file.attrs["skipped"])] == ["video 0", "video 5"]


@pytest.mark.parametrize("content", [b"", b"something else", None])
def test_foreign_files(tmp_path: Path, content: bytes | None) -> None:
    """What another program put among the parts is removed, even if its name fits its bytes."""
    staging = start(tmp_path)
    write_parts(staging, [[0, 1]])
    foreign = staging.folder / "foreign"
    if content is None:
        with h5py.File(foreign, "w") as file:
            file["features"] = [1.0]
        content = foreign.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for name in (f"part-000000002-{digest}.h5", "foreign", ".hidden", "part-2.h5.tmp"):
        (staging.folder / name).write_bytes(content)
    assert prepare(start(tmp_path)) == {0, 1}
    assert len([*staging.folder.iterdir()]) == 1


def test_a_process_that_outlives_its_run(tmp_path: Path) -> None:
    """What it writes after others have begun with other settings is not among their rows."""
    old, new = (PendingFile(tmp_path / "train_features.h5", plan(LENGTHS, made=m)) for m in "12")
    prepare(old, overwrite=False)
    write_parts(old, [[0, 1]])
    with pytest.raises(OutputError, match="made is 2 instead of 1"):
        prepare(new, overwrite=False)
    assert prepare(new, overwrite=True) == set()
    with pytest.raises(OutputError):
        write_parts(old, [[2, 3]])
    prepare(old, overwrite=True)  # as if they had begun at once
    prepare(new, overwrite=True)
    old.folder.mkdir(exist_ok=True)
    write_parts(old, [[2, 3]])
    write_parts(new, [[0, 1, 2], [4, 5]])
    with pytest.raises(IncompleteError, match="without video 3"):
        complete(new)


def test_overwriting_what_is_as_it_should_be(tmp_path: Path) -> None:
    """It is left alone; of one that is damaged, the rows that can be read are kept."""
    publish(tmp_path, [[*range(6)]])
    target = tmp_path / "train_features.h5"
    assert prepare(PendingFile(target, plan(LENGTHS)), overwrite=True) == {*range(6)}
    with h5py.File(target, "r+") as file:
        offset = file["features"].id.get_chunk_info(0).byte_offset
    with target.open("r+b") as raw:
        raw.seek(offset + 10)
        raw.write(b"xxxx")
    assert prepare(PendingFile(target, plan(LENGTHS)), overwrite=False) == {*range(6)}
    assert prepare(PendingFile(target, plan(LENGTHS)), overwrite=True) == {*range(1, 6)}
