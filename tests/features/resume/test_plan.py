"""What an update takes, what it makes, what it refuses, and what it says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import complete, finish, make_rows, plan, prepare, problems, sha256
from numpy.typing import NDArray

from featx.errors import IncompleteError, OutputError
from featx.features.feature_file import Digests, FileLayout, encode, read_inputs, to_digests
from featx.features.provenance import Provenance
from featx.features.resume.parts import ContentLookup, PendingFile, Row
from featx.features.resume.plan import Change, plan_files

LENGTHS = [3, 9, 1, 3, 3, 12]
ROWS = make_rows(LENGTHS)


def choose(numbers: Sequence[int], **changes: Any) -> FileLayout:  # noqa: ANN401
    """A layout of some of the rows."""
    layout = plan(LENGTHS).select([*numbers])
    lengths = [LENGTHS[number] for number in numbers]
    settings = {"max_frames": max(lengths), "chunk_frames": sorted(lengths)[len(lengths) // 2]}
    return replace(layout, **(settings | changes))


def choose_many(count: int, kind: str) -> tuple[FileLayout, list[int]]:
    """The layout of so many videos of a kind, and the numbers of their rows."""
    numbers = [(0, 3, 4)[number % 3] for number in range(count)]
    names = [f"video {number}" for number in range(count)]
    inputs = [sha256(f"{kind} {name}") for name in names]
    return replace(choose(numbers), video_ids=names, input_sha256=to_digests(inputs)), numbers


def publish(
    target: Path, layout: FileLayout, numbers: Sequence[int], overwrite: bool = False
) -> tuple[list[int], str]:
    """Publish a file of some of the rows: those that were not finished, and what was said."""
    staging = PendingFile(target, layout)
    said = plan_files([staging], overwrite)
    made = [row for row in range(len(numbers)) if row not in staging.locations]
    if made:
        staging.write_part({row: finish(staging, row, ROWS[numbers[row]]) for row in made})
    complete(staging, overwrite)
    return made, "".join(map(str, said))


def test_what_is_said(tmp_path: Path) -> None:
    """One line: what is finished, what is to do, and what has changed."""
    target = tmp_path / "train_features.h5"
    assert publish(target, choose([0, 1, 2, 3]), [0, 1, 2, 3]) == ([0, 1, 2, 3], "")
    assert publish(target, choose([0, 1, 2, 3]), [0, 1, 2, 3]) == (
        [],
        "train: 4 of 4 videos are in the file",
    )
    layout = choose([3, 5, 1, 0, 2])
    layout.labels[0] ^= 1
    layout = replace(layout, video_ids=["another", *layout.video_ids[1:]])
    assert publish(target, layout, [3, 5, 1, 0, 2]) == (
        [1],
        "train: 4 of 5 videos are in the file, 1 to do; 1 label and 1 name have changed",
    )
    inputs = to_digests([*layout.input_sha256[:4], sha256("new").encode()])
    layout = replace(layout, input_sha256=inputs)
    assert publish(target, layout, [3, 5, 1, 0, 2]) == (
        [4],
        "train: 4 of 5 videos are in the file, 1 to do (1 of them with other content than before)",
    )
    assert publish(target, choose([0]), [0], overwrite=True) == (
        [],
        "train: 1 of 1 videos are in the file; 4 rows of the file are no longer in the data set",
    )


def test_numbers_that_are_large() -> None:
    """They are written as a person would."""
    change = Change(Path("f"), "train", 10_000, 9_990, True, 3, 2, [], [*"abcd"])
    assert str(change) == (
        "train: 9,990 of 10,000 videos are in the file, 10 to do; 3 labels and 2 names have "
        "changed; 4 rows of the file are no longer in the data set"
    )


def test_rows_are_not_lost(tmp_path: Path) -> None:
    """A data set without some videos is refused, by their names, as long as nobody insists."""
    target = tmp_path / "train_features.h5"
    publish(target, choose(range(6)), range(6))
    content = target.read_bytes()
    with pytest.raises(OutputError, match=r"2 rows without one: video 4, video 5\. Check"):
        publish(target, choose(range(4)), range(4))
    assert target.read_bytes() == content
    assert [*tmp_path.iterdir()] == [target]
    assert publish(target, choose(range(4)), range(4), overwrite=True)[0] == []
    fresh = tmp_path / "fresh" / "train_features.h5"
    assert publish(fresh, choose(range(4)), range(4))[0] == [0, 1, 2, 3]
    assert fresh.read_bytes() == target.read_bytes()


def test_a_row_that_has_only_come_to_the_name_of_another(tmp_path: Path) -> None:
    """Without its first video, a list has other videos at the same places: the first is gone."""
    target = tmp_path / "train_features.h5"
    publish(target, choose(range(4)), range(4))
    shifted = replace(choose([1, 2, 3]), video_ids=["video 0", "video 1", "video 2"])
    with pytest.raises(OutputError, match=r"1 row without one: video 0\."):
        publish(target, shifted, [1, 2, 3])
    assert publish(target, shifted, [1, 2, 3], overwrite=True)[0] == []


def test_unfinished_rows_are_not_lost_either(tmp_path: Path) -> None:
    """Parts of a run on another data set are not dropped in silence."""
    target = tmp_path / "train_features.h5"
    staging = PendingFile(target, choose(range(6)))
    prepare(staging)
    staging.write_part({row: finish(staging, row, ROWS[row]) for row in (0, 5)})
    with pytest.raises(
        OutputError, match=r"which is not finished: .* 1 row without one: video 5\."
    ):
        publish(target, choose(range(4)), range(4))
    assert publish(target, choose(range(4)), range(4), overwrite=True)[0] == [1, 2, 3]
    assert [*tmp_path.iterdir()] == [target]


def test_a_data_set_in_which_nothing_is_as_it_was(tmp_path: Path) -> None:
    """The names are those of the file, but every video is another: that is no edit."""
    target = tmp_path / "train_features.h5"
    first, numbers = choose_many(12, "old")
    second, _ = choose_many(12, "new")
    publish(target, first, numbers)
    with pytest.raises(OutputError, match="12 of its videos have other content"):
        publish(target, second, numbers)
    assert publish(target, second, numbers, overwrite=True)[0] == [*range(12)]


def test_chunks_of_another_shape(tmp_path: Path) -> None:
    """Where the median length has changed, rows are compressed again, and nothing is made."""
    target, fresh = tmp_path / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    publish(target, choose([2]), [2])
    with h5py.File(target) as file:
        before = file["features"].chunks
    assert publish(target, choose(range(6)), range(6))[0] == [0, 1, 3, 4, 5]
    with h5py.File(target) as file:
        assert file["features"].chunks != before
    publish(fresh, choose(range(6)), range(6))
    assert target.read_bytes() == fresh.read_bytes()
    assert problems(target) == []


def test_a_video_that_moves_to_another_file(tmp_path: Path) -> None:
    """It is not made again, even if the file that it comes from is published first."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    publish(train, choose([0, 1, 2]), [0, 1, 2])
    publish(test, choose([3]), [3])
    stagings = [PendingFile(train, choose([0])), PendingFile(test, choose([1, 3, 2]))]
    plan_files(stagings)
    assert [{*staging.locations} for staging in stagings] == [{0}, {0, 1, 2}]
    complete(stagings[0])
    again = PendingFile(test, choose([1, 3, 2]))  # as if the run were killed in between
    assert prepare(again) == {0, 1, 2}
    complete(again)
    publish(tmp_path / "fresh" / "train_features.h5", choose([1, 3, 2]), [1, 3, 2])
    assert test.read_bytes() == (tmp_path / "fresh" / "train_features.h5").read_bytes()


def test_a_file_of_another_split_is_a_source_too(tmp_path: Path) -> None:
    """Even if the run is not of that split, whose file stays as it is."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    publish(train, choose([0, 1]), [0, 1])
    content = train.read_bytes()
    assert publish(test, choose([1, 2]), [1, 2])[0] == [1]
    assert train.read_bytes() == content


def test_runs_are_told_apart(tmp_path: Path) -> None:
    """Rows of several runs stand in one file, which tells the settings of each."""
    target = tmp_path / "train_features.h5"
    for numbers, size in (([0, 1], 32), ([0, 1, 2], 16), ([2, 0, 1, 3], 32)):
        made = Provenance({"a": 0, "b": 1}, True, {"root": "x", "frames_per_forward": size})
        publish(target, choose(numbers, provenance=made), numbers)
    with h5py.File(target) as file:
        assert file["run"][:].tolist() == [0, 1, 1, 1]
        runs = json.loads(file.attrs["runs"])
        assert [run["frames_per_forward"] for run in runs] == [16, 32]
    content = target.read_bytes()
    made = Provenance({"a": 0, "b": 1}, True, {"root": "y", "frames_per_forward": 8})
    assert publish(target, choose(numbers, provenance=made), numbers)[0] == []
    assert target.read_bytes() == content  # nothing has changed but what nobody has made


def test_inputs_are_read_only_where_it_may_pay(tmp_path: Path) -> None:
    """All of them, if there is a row that nobody has taken; otherwise, what may be a copy."""
    target, asked = tmp_path / "train_features.h5", []
    whole = choose(range(4))

    def identify(rows: Any, copies: bool) -> Digests:  # noqa: ANN401
        asked.append(([*rows], copies))
        return [*whole.input_sha256[:2], b"", b""] if copies else whole.input_sha256

    def start(unknown: set[int], layout: FileLayout = whole) -> set[int]:
        inputs = [
            b"" if row in unknown else made_of for row, made_of in enumerate(layout.input_sha256)
        ]
        staging = PendingFile(
            target,
            replace(layout, input_sha256=to_digests(inputs)),
            ContentLookup(identify),
        )
        plan_files([staging])
        return {*staging.locations}

    assert start({0, 1, 2, 3}) == set()
    assert asked == []
    publish(target, choose([0, 1]), [0, 1])
    assert start({2, 3}) == {0, 1}
    assert start({1, 2, 3}) == {0, 1}
    assert asked == [([2, 3], True), ([1, 2, 3], False)]


def test_times_are_kept(tmp_path: Path) -> None:
    """A row that does not tell them is made again, where they are wanted."""
    target = tmp_path / "train_features.h5"
    times: NDArray[np.float32] = np.array([0.0, 0.5, 1.0], np.float32)
    publish(target, choose([0]), [0])
    layout = choose([0, 3], has_times=True)
    staging = PendingFile(target, layout)
    assert prepare(staging) == set()
    rows = {0: finish(staging, 0, ROWS[0]), 1: finish(staging, 1, ROWS[3])}
    staging.write_part({row: each._replace(times=times + row) for row, each in rows.items()})
    complete(staging)
    staging = PendingFile(target, choose([3, 0], has_times=True))
    assert prepare(staging) == {0, 1}
    complete(staging)
    with h5py.File(target) as file:
        assert file["times"][:].tolist() == [[1.0, 1.5, 2.0], [0.0, 0.5, 1.0]]
    assert publish(target, choose([3, 0]), [3, 0])[0] == []
    with h5py.File(target) as file:
        assert "times" not in file


def test_one_of_two_equal_videos(tmp_path: Path) -> None:
    """The content is not lost as long as one of them has it, in whatever file that is."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    twice = replace(
        choose([0, 1, 3]), input_sha256=to_digests([sha256("x"), sha256("y"), sha256("x")])
    )
    publish(train, twice, [0, 1, 0])
    single = twice.select([0, 1])
    moved = replace(choose([3]), input_sha256=to_digests([sha256("x")]))
    stagings = [PendingFile(train, single), PendingFile(test, moved)]
    plan_files(stagings)
    assert [{*staging.locations} for staging in stagings] == [{0, 1}, {0}]


def test_a_video_that_moves_while_its_old_file_waits(tmp_path: Path) -> None:
    """The one that it comes to may be published first: the row in the other is no loss then."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    publish(train, choose([0, 1]), [0, 1])
    publish(test, choose([3]), [3])
    for _ in range(2):
        stagings = [PendingFile(train, choose([1, 4])), PendingFile(test, choose([0, 3]))]
        plan_files(stagings)
        assert [{*staging.locations} for staging in stagings] == [{0}, {0, 1}]
        with pytest.raises(IncompleteError, match="without video 4"):
            complete(stagings[0])
        complete(stagings[1])
    stagings[0].write_part({1: finish(stagings[0], 1, ROWS[4])})
    complete(stagings[0])
    fresh = tmp_path / "fresh" / "train_features.h5"
    publish(fresh, choose([1, 4]), [1, 4])
    assert train.read_bytes() == fresh.read_bytes()


def test_a_bad_video_at_the_name_of_one_that_was_renamed(tmp_path: Path) -> None:
    """No row is lost: it has another name now."""
    target = tmp_path / "train_features.h5"
    publish(target, choose([0, 1]), [0, 1])
    inputs = [sha256("bad").encode(), *choose([0, 1]).input_sha256]
    names = ["video 0", "renamed", "video 1"]
    staging = PendingFile(
        target, replace(choose([3, 0, 1]), input_sha256=to_digests(inputs), video_ids=names)
    )
    assert prepare(staging) == {1, 2}
    staging.skip(0, "bad")
    complete(staging)
    with h5py.File(target) as file:
        assert file["video_ids"].asstr()[:].tolist() == ["renamed", "video 1"]
    staging = PendingFile(target, replace(choose([3, 1]), input_sha256=to_digests(inputs[::2])))
    with pytest.raises(OutputError, match="1 row without one: renamed"):
        prepare(staging)


def test_a_video_that_cannot_take_its_place(tmp_path: Path) -> None:
    """With the row that it replaces, the file stays as it was, unless somebody insists."""
    target = tmp_path / "train_features.h5"
    publish(target, choose([0, 1]), [0, 1])
    content = target.read_bytes()
    inputs = [sha256("bad").encode(), choose([0, 1]).input_sha256[1]]
    staging = PendingFile(target, replace(choose([0, 1]), input_sha256=to_digests(inputs)))
    assert prepare(staging) == {1}
    staging.skip(0, "video 0: damaged")
    with pytest.raises(IncompleteError, match=r"video 0 would be lost: .* rows: video 0: damaged"):
        complete(staging)
    assert target.read_bytes() == content
    complete(staging, overwrite=True)
    with h5py.File(target) as file:
        assert file["video_ids"].asstr()[:].tolist() == ["video 1"]


def test_a_part_that_is_made_again(tmp_path: Path) -> None:
    """To the last bit: it counts as any other."""
    target = tmp_path / "train_features.h5"
    layout, unknown = choose([0, 1]), replace(choose([0, 1]), input_sha256=to_digests(["", ""]))
    for _ in range(2):
        staging = PendingFile(target, unknown, ContentLookup(lambda rows, copies: ["", ""]))
        assert prepare(staging, overwrite=True) == set()
        rows = {row: Row(encode(ROWS[row], layout), layout.input_sha256[row]) for row in range(2)}
        staging.write_part(rows)
    assert len([*staging.folder.iterdir()]) == 1
    complete(staging, overwrite=True)
    assert problems(target) == []


def test_a_part_of_another_content_does_not_count(tmp_path: Path) -> None:
    """Even if a process that has outlived its run puts it where those of this run are."""
    target = tmp_path / "train_features.h5"
    staging = PendingFile(target, choose([0, 1]))
    prepare(staging)
    staging.write_part({0: finish(staging, 0, ROWS[0])})
    staging.write_part({1: finish(staging, 1, ROWS[1])._replace(made_of=sha256("other"))})
    with pytest.raises(IncompleteError, match="without video 1"):
        complete(staging)


@pytest.mark.parametrize(
    "kind",
    [
        {"chunks": (1, 3, 4), "compression": "gzip", "shuffle": True},
        {"chunks": (1, 3, 4), "compression": "gzip", "compression_opts": 9},
        {"chunks": (1, 3, 4), "compression": "lzf"},
        {"chunks": (1, 3, 4), "fletcher32": True, "compression": "gzip", "compression_opts": 4},
        {"chunks": (2, 3, 2), "compression": "gzip", "compression_opts": 4},
        {"chunks": (1, 3, 4)},
        {"chunks": None},
    ],
)
def test_a_file_that_was_packed_again(tmp_path: Path, kind: dict[str, Any]) -> None:
    """In another way: its rows are decoded, and written as they always are."""
    target = tmp_path / "train_features.h5"
    publish(target, choose([0, 3]), [0, 3])
    with h5py.File(target, "r+") as file:
        features = file["features"][:]
        del file["features"]
        file.create_dataset("features", data=features, **kind)
    assert problems(target) == []
    assert publish(target, choose([0, 3, 4]), [0, 3, 4])[0] == [2]
    fresh = tmp_path / "fresh" / "train_features.h5"
    publish(fresh, choose([0, 3, 4]), [0, 3, 4])
    assert target.read_bytes() == fresh.read_bytes()


def test_a_damaged_row_of_another_file_is_not_taken(tmp_path: Path) -> None:
    """It is made, as if it were not there."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    publish(test, choose([0, 1]), [0, 1])
    with h5py.File(test) as file:
        offset = file["features"].id.get_chunk_info(0).byte_offset
    with test.open("r+b") as raw:
        raw.seek(offset + 10)
        raw.write(b"xxxx")
    assert publish(train, choose([0, 1, 3]), [0, 1, 3])[0] == [0, 2]
    assert problems(train) == []


@pytest.mark.parametrize("name", ["train_features.h5", "old_features.h5"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """Of its own, it is refused in one line, or replaced; of another, it is as if not there."""
    target = tmp_path / "train_features.h5"
    publish(tmp_path / name, choose([0, 1]), [0, 1])
    with h5py.File(tmp_path / name, "r+") as file:
        del file.attrs["runs"]
    if name == target.name:
        with pytest.raises(OutputError, match="expected a readable feature file, found") as caught:
            publish(target, choose([0, 1]), [0, 1])
        assert "\n" not in str(caught.value)
    assert publish(target, choose([0, 1]), [0, 1], overwrite=True)[0] == [0, 1]


def test_a_data_set_most_of_which_is_another(tmp_path: Path) -> None:
    """That a few videos are the same does not make it the same data set."""
    target = tmp_path / "train_features.h5"
    first, numbers = choose_many(21, "old")
    publish(target, first, numbers)
    inputs = [*choose_many(21, "new")[0].input_sha256]
    inputs[:3] = first.input_sha256[:3]
    with pytest.raises(OutputError, match="18 of its videos have other content, and 3 the same"):
        publish(target, replace(first, input_sha256=to_digests(inputs)), numbers)
    inputs[:11] = first.input_sha256[:11]
    assert len(publish(target, replace(first, input_sha256=to_digests(inputs)), numbers)[0]) == 10


@pytest.mark.parametrize("is_published", [False, True])
def test_content_that_a_killed_run_has_replaced(tmp_path: Path, is_published: bool) -> None:
    """A rerun on the same videos asks nobody; if the video is gone then, it needs overwrite."""
    target = tmp_path / "train_features.h5"
    old, new, other = sha256("old"), sha256("new"), sha256("b")

    def start(content: str, name: str, overwrite: bool = False) -> PendingFile:
        inputs = to_digests([content, other])
        layout = replace(choose([0, 1]), input_sha256=inputs, video_ids=[name, "y"])
        staging = PendingFile(target, layout)
        done = prepare(staging, overwrite)
        if 0 not in done:
            staging.write_part({0: finish(staging, 0, ROWS[0])})
        return staging

    first = start(old, "x")
    if is_published:
        first.write_part({1: finish(first, 1, ROWS[1])})
        complete(first)
    for _ in range(3):
        staging = start(new, "x")
    with pytest.raises(OutputError, match=r"1 row without one: x\."):
        start(new, "z")
    staging = start(new, "z", overwrite=True)
    if 1 not in staging.locations:
        staging.write_part({1: finish(staging, 1, ROWS[1])})
    complete(staging, overwrite=True)
    with h5py.File(target) as file:
        assert read_inputs(file).tolist() == [new.encode(), other.encode()]
        assert file["video_ids"].asstr()[:].tolist() == ["z", "y"]
    assert [*tmp_path.iterdir()] == [target]


def test_a_row_that_no_other_file_has_yet(tmp_path: Path) -> None:
    """It stays where it is, as long as the file that it moves to cannot take it."""
    clips = {"source": "clips", "preprocessing": {}}
    kept = plan(LENGTHS, **clips, keep_damaged=True).provenance
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    staging = PendingFile(train, choose([0, 1], provenance=kept))
    prepare(staging)
    rows = {row: finish(staging, row, ROWS[row]) for row in (0, 1)}
    staging.write_part({0: rows[0], 1: rows[1]._replace(damage="half of it")})
    complete(staging)
    content = train.read_bytes()
    made = plan(LENGTHS, **clips).provenance
    stagings = [PendingFile(train, choose([0], provenance=made))]
    stagings.append(PendingFile(test, choose([3, 1], provenance=made)))
    plan_files(stagings)
    assert [{*staging.locations} for staging in stagings] == [{0}, set()]
    stagings[1].write_part({0: finish(stagings[1], 0, ROWS[3])})
    stagings[1].skip(1, "damaged")
    with pytest.raises(IncompleteError, match="video 1 would be lost"):
        complete(stagings[0])
    complete(stagings[1])
    assert train.read_bytes() == content
    assert [*tmp_path.glob("*")] != []


def test_a_row_that_another_file_has(tmp_path: Path) -> None:
    """It is no loss, be that file of this run or not; but a copy by another name does not count."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    publish(train, choose([0, 1, 3]), [0, 1, 3])
    publish(test, choose([4, 1]), [4, 1])
    (tmp_path / "copy_features.h5").write_bytes(train.read_bytes())
    with h5py.File(tmp_path / "copy_features.h5", "r+") as file:
        file.attrs["config"] = json.dumps({"root": "somewhere", "split": "train"})
    assert publish(train, choose([0, 3]), [0, 3])[0] == []
    with pytest.raises(OutputError, match=r"1 row without one: video 3\."):
        publish(train, choose([0]), [0])


def test_videos_that_are_told_by_their_file(tmp_path: Path) -> None:
    """Where another video in a file makes all of them others, that is no other data set."""
    target = tmp_path / "train_features.h5"
    before, numbers = choose_many(15, "old")
    after, _ = choose_many(15, "new")
    publish(target, before, numbers)
    with pytest.raises(OutputError, match="15 of its videos have other content, and 0 the same"):
        publish(target, after, numbers)
    inputs = ContentLookup(lambda rows, copies: after.input_sha256, tells_content=False)
    assert prepare(PendingFile(target, after, inputs)) == set()
