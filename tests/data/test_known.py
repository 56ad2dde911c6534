"""What is known of inputs: a hint that saves time, and never a wrong one."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import grey_levels

from featx.data.clip_file import Needs, open_clip, write_clip
from featx.data.clip_survey import survey_clip
from featx.data.known import Facts, Journal, Known
from featx.data.preprocessing import Preprocessing
from featx.files import file_stats

LONG_AGO = 1_000_000_000
FACTS = Facts((5, LONG_AGO), "abc", {"survey": [1]})


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    """Of what has not changed since: by its size and its time."""
    known = Known()
    assert known.note("a/é.mp4", FACTS)
    known.save(tmp_path / "known")
    again = Known.load(tmp_path / "known")
    assert again.find("a/é.mp4", (5, LONG_AGO)) == FACTS
    assert again.find("a/é.mp4", (6, LONG_AGO)) is None
    assert again.find("a/é.mp4", (5, LONG_AGO + 1)) is None
    assert again.find("b", (5, LONG_AGO)) is None


def test_journals_are_joined(tmp_path: Path) -> None:
    """Several processes note what they read; a line that was cut off costs only itself."""
    known = Known()
    known.note("a", Facts((5, LONG_AGO), "", {"survey": [1]}))
    known.note("b", Facts((5, LONG_AGO), "old"))
    known.save(tmp_path)
    Journal(tmp_path / "0.jsonl").note([("a", Facts((5, LONG_AGO), "abc"))])
    Journal(tmp_path / "1.jsonl").note([("b", Facts((6, LONG_AGO), "new"))])
    with (tmp_path / "1.jsonl").open("a") as file:
        file.write('["c", [5, 1')
    joined = Known.load(tmp_path)
    assert joined.find("a", (5, LONG_AGO)) == FACTS
    assert joined.find("b", (5, LONG_AGO)) is None
    assert joined.find("b", (6, LONG_AGO)) == Facts((6, LONG_AGO), "new")
    joined.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["known.jsonl"]
    assert Known.load(tmp_path).find("a", (5, LONG_AGO)) == FACTS
    before = (tmp_path / "known.jsonl").stat()
    Known.load(tmp_path).save(tmp_path)  # there is nothing new
    assert (tmp_path / "known.jsonl").stat() == before


def test_what_was_changed_just_now_is_not_noted(tmp_path: Path) -> None:
    """Another change could have the same time."""
    fresh = Facts((5, time.time_ns()), "abc")
    known = Known()
    assert not known.note("a", fresh)
    Journal(tmp_path / "0.jsonl").note([("a", fresh)])
    old = Facts((5, LONG_AGO), "abc", changed_ns=time.time_ns())  # such as a folder of frames
    assert not known.note("a", old)
    assert known.find("a", fresh.stats) is None
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "content", ["", "\xff", "[]\n", '{"known": 0}\n["a", [5, 1], "x", {}, 0]\n']
)
def test_other_files(tmp_path: Path, content: str) -> None:
    """What is damaged, or of another version, is as if it were not there."""
    (tmp_path / "known.jsonl").write_text(content, "latin-1")
    assert Known.load(tmp_path).find("a", (5, 1)) is None
    assert Known.load(tmp_path / "nothing").find("a", (5, 1)) is None


@pytest.mark.parametrize("kept", [{}, {"survey": 5}, {"survey": [1] * 99}, {"survey": []}, [1]])
def test_odd_facts_are_found_again(tmp_path: Path, kept: Any) -> None:  # noqa: ANN401
    """Whatever stands in the file of the known."""
    path = tmp_path / "a.mp4"
    write_clip(path, grey_levels(5))
    os.utime(path, (1, 1))
    known = Known()
    known.note("a", Facts(file_stats(path.stat()), "abc", kept))
    opened = open_clip(path, Preprocessing(), name="a", known=known)
    assert (opened.digest, opened.found.survey.container) == ("abc", "mov")


@pytest.mark.parametrize("needs", [Needs(), Needs(times=True), Needs(True, True, True)])
def test_a_known_clip_is_not_opened(
    tmp_path: Path, needs: Needs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it is known well enough."""
    path = tmp_path / "a.mp4"
    write_clip(path, grey_levels(9))
    os.utime(path, (1, 1))
    known = Known()
    first = open_clip(path, Preprocessing(), needs, "a", known)
    known.note("a", first.facts)
    known.save(tmp_path / "known")
    known = Known.load(tmp_path / "known")
    if needs.times:
        assert first.found.timeline is not None
        assert len(first.found.timeline) == 9

    def fail(path: Path) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("featx.data.clip_survey.open_container", fail)
    again = open_clip(path, Preprocessing(), needs, "a", known)
    assert again.found.survey == first.found.survey
    assert repr(again.found.timeline) == repr(first.found.timeline)
    assert again.found.size == first.found.size
    with pytest.raises(AssertionError, match="it was opened"):
        survey_clip(path)


def test_names_that_were_exchanged(tmp_path: Path) -> None:
    """Of two inputs of one size and one time, each is known as the file that it is."""
    known = Known()
    known.note("a", Facts((5, LONG_AGO), "one", inode=1))
    assert known.find("a", (5, LONG_AGO), 2) is not None  # a copy, of which there is no other
    known.note("b", Facts((5, LONG_AGO), "two", inode=2))
    for each in (known, _save_and_load(known, tmp_path)):
        assert each.find("a", (5, LONG_AGO), 2) is None
        assert each.find("b", (5, LONG_AGO), 1) is None
        assert each.find("a", (5, LONG_AGO), 1) == Facts((5, LONG_AGO), "one", inode=1)
    known.note("b", Facts((5, LONG_AGO), "", inode=1))  # moved here
    facts = known.find("b", (5, LONG_AGO), 1)
    assert facts is not None
    assert facts.digest == ""


def _save_and_load(known: Known, folder: Path) -> Known:
    known.save(folder)
    return Known.load(folder)
