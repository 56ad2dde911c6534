"""The scan cache saves time, and never gives a stale entry."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from clips import survey_clip
from helpers import grey_levels
from PIL import Image

from featx.data.media.clip import Needs, open_clip, write_clip
from featx.data.media.images import stamp_frames
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.video_file import Home
from featx.data.scan_cache import (
    CacheEntry,
    FileStamp,
    Journal,
    ScanCache,
    format_line,
    stamp_file,
)
from featx.durable import file_stats
from featx.errors import ChangedInputError

LONG_AGO = 1_000_000_000
ABC, OLD, NEW = ("abc" + f"{number:061}" for number in range(3))
ENTRY = CacheEntry((5, LONG_AGO), ABC, {"survey": [1]})


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    """Of what has not changed since: by its size and its time."""
    cache = ScanCache()
    assert cache.note("a/é.mp4", ENTRY)
    cache.save(tmp_path / "known")
    again = ScanCache.load(tmp_path / "known")
    assert again.find("a/é.mp4", (5, LONG_AGO)) == ENTRY
    assert again.find("a/é.mp4", (6, LONG_AGO)) is None
    assert again.find("a/é.mp4", (5, LONG_AGO + 1)) is None
    assert again.find("b", (5, LONG_AGO)) is None


def test_journals_are_joined(tmp_path: Path) -> None:
    """Several processes note what they read; a line that was cut off costs only itself."""
    cache = ScanCache()
    cache.note("a", CacheEntry((5, LONG_AGO), "", {"survey": [1]}))
    cache.note("b", CacheEntry((5, LONG_AGO), OLD))
    cache.save(tmp_path)
    Journal(tmp_path / "0.jsonl").write(format_line("a", CacheEntry((5, LONG_AGO), ABC)))
    Journal(tmp_path / "1.jsonl").write(format_line("b", CacheEntry((6, LONG_AGO), NEW)))
    with (tmp_path / "1.jsonl").open("a") as file:
        file.write('["c", [5, 1')
    joined = ScanCache.load(tmp_path)
    assert joined.find("a", (5, LONG_AGO)) == ENTRY
    assert joined.find("b", (5, LONG_AGO)) is None
    assert joined.find("b", (6, LONG_AGO)) == CacheEntry((6, LONG_AGO), NEW)
    joined.save(tmp_path)
    [path] = tmp_path.iterdir()
    assert ScanCache.load(tmp_path).find("a", (5, LONG_AGO)) == ENTRY
    before = path.stat()
    ScanCache.load(tmp_path).save(tmp_path)  # there is nothing new
    assert path.stat() == before


def test_what_was_changed_just_now_is_not_noted(tmp_path: Path) -> None:
    """Another change could have the same time."""
    for age, settled in ((0, False), (10**10, True)):
        assert FileStamp.make((5, 1), (0, 0), time.time_ns() - age).is_settled == settled
    fresh = CacheEntry((5, LONG_AGO), ABC, is_settled=False)
    cache = ScanCache()
    assert not cache.note("a", fresh)
    Journal(tmp_path / "0.jsonl").write(format_line("a", fresh))
    assert cache.find("a", fresh.stats) is None
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\xff",
        "[]\n",
        '{"scan_cache": 0}\n["a", [5, 1], [0, 0], "", {}]\n',
        '{"scan_cache": 1}\n["a", [5, 1], [0, 0], "abc", {}]\n',
        '{"scan_cache": 1}\n["a", [5, 1], [0, 0], "", [5]]\n',
        '{"scan_cache": 1}\n["a", [5, "1"], [0, 0], "", {}]\n',
        '{"scan_cache": 1}\n["a"]\n5\n[["a"], [5, 1], [0, 0], "", {}]\n',
    ],
)
def test_other_files(tmp_path: Path, content: str) -> None:
    """What is damaged, or of another version, is as if it were not there."""
    (tmp_path / "0.jsonl").write_text(content, "latin-1")
    assert ScanCache.load(tmp_path).find("a", (5, 1)) is None
    assert ScanCache.load(tmp_path / "nothing").find("a", (5, 1)) is None


def test_damage(tmp_path: Path) -> None:
    """A cache file that a disk has damaged is noticed, and counts as empty."""
    cache = ScanCache()
    for number in range(9):
        cache.note(f"a/{number}", CacheEntry((number, LONG_AGO), ABC, {"survey": [number]}))
    cache.save(tmp_path)
    [path] = tmp_path.iterdir()
    content = path.read_bytes()
    changed = (
        content[:at] + bytes([b ^ 1]) + content[at + 1 :] for at, b in [*enumerate(content)][::7]
    )
    cut = (content[:at] for at in range(0, len(content), 7))
    for damaged in (*changed, *cut, b"", bytes(len(content))):
        path.write_bytes(damaged)
        assert ScanCache.load(tmp_path).find("a/3", (3, LONG_AGO)) is None
    path.write_bytes(content)
    assert ScanCache.load(tmp_path).find("a/3", (3, LONG_AGO))


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"survey": 5},
        {"survey": [1] * 99},
        {"survey": []},
        {"survey": ["x", "y"]},
        {"survey": [1, "", None]},
        {"survey": [1, ""], "size": 5},
        [1],
    ],
)
def test_odd_entries_are_found_again(tmp_path: Path, kept: Any) -> None:  # noqa: ANN401
    """Whatever stands in the file of the cache."""
    path = tmp_path / "a.mp4"
    write_clip(path, grey_levels(5))
    os.utime(path, (1, 1))
    cache = ScanCache()
    status = path.stat()
    marks = status.st_ino, status.st_ctime_ns
    cache.note("a", CacheEntry(file_stats(status), ABC, kept, marks))
    opened = open_clip(path, Preprocessing(), name="a", cache=cache)
    assert (opened.digest, opened.found.survey.container) == (ABC, "mov")


@pytest.mark.parametrize("needs", [Needs(), Needs(times=True), Needs(True, True, True)])
def test_a_known_clip_is_not_opened(
    tmp_path: Path, needs: Needs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the cache knows enough of it."""
    path = tmp_path / "a.mp4"
    write_clip(path, grey_levels(9))
    os.utime(path, (1, 1))
    cache = ScanCache()
    first = open_clip(path, Preprocessing(), needs, "a", cache)
    cache.note("a", first.cache_entry)
    cache.save(tmp_path / "known")
    cache = ScanCache.load(tmp_path / "known")
    if needs.times:
        assert first.found.timeline is not None
        assert len(first.found.timeline) == 9

    def fail(path: Path) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("featx.data.media.survey.open_container", fail)
    again = open_clip(path, Preprocessing(), needs, "a", cache)
    assert again.found.survey == first.found.survey
    assert repr(again.found.timeline) == repr(first.found.timeline)
    assert again.found.size == first.found.size
    with pytest.raises(AssertionError, match="it was opened"):
        survey_clip(path)


def test_surveys_of_all_kinds(tmp_path: Path) -> None:
    """Numbers, digests and texts in them are what they were, and what is alike is stored once."""
    surveys: list[dict[str, Any]] = [
        {},
        {"a": [0, -7, 0.5, 1e-9, 2**70, "007", "é\0\n7"], "b": {"c": None, "0": [True, ABC]}},
        {"made_of": [OLD, NEW, OLD + "0"], "steps": [[512, 99], [-3, 1]]},
    ]
    cache = ScanCache()
    for number in range(300):
        survey = {"survey": [number, "", ["x"]], "made_of": [f"{number:064x}"]}
        cache.note(f"clip {number}", CacheEntry((number, LONG_AGO), ABC, survey))
    for number, survey in enumerate(surveys):
        cache.note(f"other {number}", CacheEntry((number, LONG_AGO), "", survey))
    cache.save(tmp_path)
    cache = ScanCache.load(tmp_path)
    for number, survey in enumerate(surveys):
        entry = cache.find(f"other {number}", (number, LONG_AGO))
        assert entry
        assert entry.survey == survey
    entry = cache.find("clip 17", (17, LONG_AGO))
    assert entry
    assert entry.survey == {"survey": [17, "", ["x"]], "made_of": [f"{17:064x}"]}
    [path] = tmp_path.iterdir()
    assert path.stat().st_size < 200 * 300


def test_entries_that_are_noted_again_and_again(tmp_path: Path) -> None:
    """What was noted last counts, and one row of it is kept."""
    cache = ScanCache()
    for number in range(50):
        cache.note("a", CacheEntry((number, LONG_AGO), f"{number:064x}"))
        cache.note(f"b{number}", ENTRY)
    cache.save(tmp_path)
    for each in (cache, ScanCache.load(tmp_path)):
        assert each.find("a", (48, LONG_AGO)) is None
        assert each.find("a", (49, LONG_AGO)) == CacheEntry((49, LONG_AGO), f"{49:064x}")
        assert "b7" in each
        assert each.find_sizes().tolist() == [5, 49]


def test_names_that_were_exchanged(tmp_path: Path) -> None:
    """A file of the same size and time is another one by its number, or by its status."""
    cache = ScanCache()
    cache.note("a", CacheEntry((5, LONG_AGO), OLD, file=(1, 10)))
    cache.note("b", CacheEntry((5, LONG_AGO), NEW, file=(2, 20)))
    cache.save(tmp_path)
    for each in (cache, ScanCache.load(tmp_path)):
        for name, number, digest in (("a", 1, OLD), ("b", 2, NEW)):
            found = each.find(name, (5, LONG_AGO), (number, 10 * number))
            assert found is not None
            assert found.digest == digest
            assert each.find(name, (5, LONG_AGO), (number, 30)) is None
            assert each.find(name, (5, LONG_AGO), (3 - number, 10 * number)) is None
    cache.note("b", CacheEntry((5, LONG_AGO), "", file=(1, 30)))  # moved here
    found = cache.find("b", (5, LONG_AGO), (1, 30))
    assert found is not None
    assert found.digest == ""
    assert cache.find_sizes().tolist() == [5]


def test_a_clip_that_gets_the_size_and_the_time_of_another(tmp_path: Path) -> None:
    """Its own bytes are read, by the scan and when its turn comes."""
    path = tmp_path / "a.avi"
    write_clip(path, grey_levels(6), "rawvideo")
    os.utime(path, (1, 1))
    cache = ScanCache()
    clip = open_clip(path, Preprocessing(3, 8), name="a").take("", "", Home("", None)).find_digest()
    cache.note(*clip.cache_entry)
    content = path.read_bytes()
    path.write_bytes(content[:-999] + bytes(999))
    os.utime(path, (1, 1))
    assert open_clip(path, Preprocessing(3, 8), Needs(), "a", cache).digest == ""
    with pytest.raises(ChangedInputError, match="expected the clip that was scanned"):
        clip.read()


@pytest.mark.parametrize("kind", ["clips", "frames"])
def test_clips_that_were_exchanged(tmp_path: Path, kind: str) -> None:
    """Of one size and of one time, as an archive may leave them: each is what it is."""
    paths = [tmp_path / name for name in "ab"]
    for path, frames in zip(paths, (grey_levels(6), grey_levels(6)[::-1]), strict=True):
        if kind == "clips":
            write_clip(path.with_suffix(".avi"), frames.copy(), "rawvideo")
            path.with_suffix(".avi").rename(path)
        else:
            path.mkdir()
            for number, frame in enumerate(frames):
                Image.fromarray(frame).save(path / f"{number}.bmp")
        for each in [*path.iterdir()] if path.is_dir() else [path]:
            os.utime(each, (1, 1))
    stamps = [stamp_frames(path) if path.is_dir() else stamp_file(path) for path in paths]
    assert stamps[0].stats == stamps[1].stats
    assert stamps[0].file != stamps[1].file
    cache = ScanCache()
    for path in paths:
        [file] = [open_clip(path, Preprocessing(), name=path.name).take("", "", Home("", None))]
        name, entry = file.find_digest().cache_entry or ("", CacheEntry((0, 0)))
        assert cache.note(name, entry)
    assert all(open_clip(path, Preprocessing(), Needs(), path.name, cache).digest for path in paths)
    paths[0].rename(tmp_path / "c")
    paths[1].rename(paths[0])
    (tmp_path / "c").rename(paths[1])
    for path in paths:
        assert open_clip(path, Preprocessing(), Needs(), path.name, cache).digest == ""
