"""A split in shards: read as one file, grown by touching what changes, moved, damaged, undone."""

import json
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import complete, finish_in, make_rows, plan, problems, sha256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from featx.commands.inspect.command import summarize
from featx.errors import ChangedInputError, IncompleteError, InputError, OutputError
from featx.features.dataset import FeatureDataset
from featx.features.feature_file import FileLayout, open_feature_file, to_digests
from featx.features.merge import merge_files
from featx.features.resume.parts import PendingFile
from featx.features.resume.plan import plan_files
from featx.features.resume.publish import merge_share
from featx.features.resume.publish import publish as publish_merged
from featx.features.shards import describe_structure, find_shards, shard_path

LENGTHS = [3, 9, 1, 3, 3, 12, 2, 5]
ROWS = make_rows(LENGTHS)


def choose(numbers: Sequence[int], **changes: Any) -> FileLayout:  # noqa: ANN401  # of any field
    """The layout of a file of some of the rows."""
    layout = replace(plan(LENGTHS).select([*numbers]), **changes)
    planned = FileLayout.plan(
        layout.labels,
        layout.num_frames,
        layout.video_ids,
        layout.feature_dim,
        replace(layout.provenance, skipped={}),
        layout.columns,
        layout.has_times,
    )
    return replace(planned, input_sha256=layout.input_sha256)


def publish(
    target: Path,
    numbers: Sequence[int],
    size: int | None,
    overwrite: bool = False,
    skip: Sequence[int] = (),
    **changes: Any,  # noqa: ANN401  # of any field
) -> list[int]:
    """Publish a file of some of the rows; returns those that were not finished."""
    staging = PendingFile(target, choose(numbers, **changes), rows_per_file=size)
    plan_files([staging], overwrite)
    made = [row for row in range(len(numbers)) if row not in staging.locations]
    for row in made:
        if numbers[row] in skip:
            staging.skip(row, f"reason {numbers[row]}")
        else:
            staging.write_part({row: finish_in(staging, row, ROWS[numbers[row]])})
    complete(staging, overwrite)
    return [numbers[row] for row in made]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file was touched."""
    found = {p.name: p.stat() for p in folder.rglob("*.h5")}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def read_all(path: Path) -> dict[str, Any]:
    """Everything in a file but how its features are stored."""
    with h5py.File(path) as file:
        found: dict[str, Any] = {}
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tolist()}) if isinstance(item, h5py.Dataset) else None
            )
        )
        return found | {name: repr(value) for name, value in file.attrs.items()}


def test_as_if_it_were_one_file(tmp_path: Path) -> None:
    """Each shard is a feature file; the one over them has all rows, from wherever it is opened."""
    publish(tmp_path / "one" / "train_features.h5", range(8), None)
    target = tmp_path / "many" / "train_features.h5"
    publish(target, range(8), 3)
    assert {*contents(target.parent)} == {
        "train_features.h5",
        *(f"train_features/0000{number}.h5" for number in range(3)),
    }
    with h5py.File(target) as file:
        lengths = [[9, 3], [12, 3], [5, 5]]
        assert [shard.start for shard in find_shards(file)] == [0, 3, 6]
    for number, (longest, median) in enumerate(lengths):
        path = shard_path(target, number)
        assert problems(path) == []
        with h5py.File(path) as file:
            assert (file.attrs["max_frames"], file["features"].chunks[1]) == (longest, median)
    assert read_all(target) == read_all(tmp_path / "one" / "train_features.h5")
    assert problems(target) == []
    moved = tmp_path / "moved"
    target.parent.rename(moved)
    before = Path.cwd()
    os.chdir("/")
    try:
        found = read_all(moved / target.name)
    finally:
        os.chdir(before)
    assert found == read_all(tmp_path / "one" / "train_features.h5")


def test_a_link_to_the_file_alone(tmp_path: Path) -> None:
    """Its shards are beside the file, as for HDF5, and not beside the link."""
    target, link = tmp_path / "out" / "train_features.h5", tmp_path / "mine_features.h5"
    publish(target, range(8), 3)
    link.symlink_to(target)
    assert problems(link) == []
    np.testing.assert_array_equal(FeatureDataset(link)[4].features.numpy(), ROWS[4])


def test_the_usual_file_is_as_it_was(tmp_path: Path) -> None:
    """Without a size, a split is one file, and no folder is made."""
    publish(tmp_path / "train_features.h5", range(8), None)
    assert [path.name for path in tmp_path.iterdir()] == ["train_features.h5"]


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ([0, 1, 2, 3, 4, 5, 6], {"00000.h5", "00001.h5"}),
        ([6, 0, 1, 2, 3, 4, 5], set()),
        ([0, 1, 2, 6, 3, 4, 5], {"00000.h5"}),
    ],
)
def test_growth(tmp_path: Path, numbers: list[int], kept: set[str]) -> None:
    """At the end, front and middle: the bytes of a fresh run; a shard that stays is not touched."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    publish(target, range(6), 3)
    before = inodes(target.parent)
    assert publish(target, numbers, 3) == [6]
    assert {n for n, status in inodes(target.parent).items() if before.get(n) == status} == kept
    publish(fresh, numbers, 3)
    assert contents(target.parent) == contents(fresh.parent)
    before = inodes(target.parent)
    assert publish(target, numbers, 3) == []
    assert inodes(target.parent) == before


def test_rows_that_move_between_shards(tmp_path: Path) -> None:
    """In any order, and with another name or label: nothing is made again."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    order = [7, 2, 5, 0, 1, 6, 3, 4]
    publish(target, range(8), 3)
    assert publish(target, order, 3) == []
    publish(fresh, order, 3)
    assert contents(target.parent) == contents(fresh.parent)
    names = [f"new {number}" for number in order]
    before = inodes(target.parent)
    assert (
        publish(
            target, order, 3, video_ids=[*names[:1], *plan(LENGTHS).select(order[1:]).video_ids]
        )
        == []
    )
    assert {n for n, s in inodes(target.parent).items() if before[n] == s} == {
        "00001.h5",
        "00002.h5",
    }


@pytest.mark.parametrize(("first", "second"), [(None, 3), (3, None), (3, 2), (2, 3), (1, 8)])
def test_another_size(tmp_path: Path, first: int | None, second: int | None) -> None:
    """Rows are taken over, shards that are not needed are removed, and nothing else is."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    publish(target, range(8), first)
    other = shard_path(target, 0).with_name("notes.txt")
    other.parent.mkdir(exist_ok=True)
    other.write_text("mine")
    (other.parent / "00099.h5").write_text("mine, too")
    assert publish(target, range(8), second) == []
    assert {path.name: path.read_text() for path in (other, other.parent / "00099.h5")} == {
        "notes.txt": "mine",
        "00099.h5": "mine, too",
    }
    other.unlink()
    (other.parent / "00099.h5").unlink()
    publish(fresh, range(8), second)
    assert contents(target.parent) == contents(fresh.parent)


def test_skipped_rows(tmp_path: Path) -> None:
    """A shard has fewer rows then, or does not exist; the file over all has no gaps."""
    target = tmp_path / "out" / "train_features.h5"
    publish(target, range(8), 2, skip=[1, 2, 3])
    assert [path.name for path in sorted(target.with_suffix("").iterdir())] == [
        "00000.h5",
        "00002.h5",
        "00003.h5",
    ]
    assert problems(target) == []
    with h5py.File(target) as file:
        assert file["num_frames"][:].tolist() == [3, 3, 12, 2, 5]
        assert [*json.loads(file.attrs["skipped"])] == ["video 1", "video 2", "video 3"]
    with h5py.File(shard_path(target, 0)) as file:
        assert json.loads(file.attrs["skipped"]) == {"video 1": "reason 1"}
    assert publish(target, range(8), 2) == [1, 2, 3]
    publish(tmp_path / "fresh" / "train_features.h5", range(8), 2)
    assert contents(target.parent) == contents(tmp_path / "fresh")


def test_a_shard_of_which_nothing_is_left(tmp_path: Path) -> None:
    """It is removed once the file over the others is there."""
    target = tmp_path / "train_features.h5"
    publish(target, range(8), 3)
    assert publish(target, range(3), 3, overwrite=True) == []
    assert {*contents(tmp_path)} == {"train_features.h5", "train_features/00000.h5"}


def write_rows(staging: PendingFile, *rows: int) -> None:
    """Write some rows, each into a part of its own."""
    for row in rows:
        staging.write_part({row: finish_in(staging, row, ROWS[row])})


def put_in_place(staging: PendingFile, shard: int) -> None:
    """Move a merged shard into place, as a run does that is killed right after it."""
    [merged] = merge_share([staging], shard, len(staging.shards))
    assert merged.path is not None
    path = shard_path(staging.target, shard)
    path.parent.mkdir(exist_ok=True)
    merged.path.rename(path)


def test_ranks_share_the_shards(tmp_path: Path) -> None:
    """Each merges its own, also of rows of earlier runs, and removes their parts at once."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    earlier = PendingFile(target, choose(range(8)), rows_per_file=3)
    plan_files([earlier])
    write_rows(earlier, 0, 4)
    first, second = (PendingFile(target, choose(range(8)), rows_per_file=3) for _ in range(2))
    plan_files([first])
    second.follow(first.plan)
    write_rows(first, 1, 3, 6)
    write_rows(second, 2, 5, 7)
    merged = merge_share([second], 1, 2)
    assert [shard.number for shard in merged] == [1]
    parts = [int(path.name.split("-")[1]) for path in target.parent.rglob("part-*.h5")]
    assert sorted(parts) == [0, 1, 2, 6, 7]
    merged += merge_share([first], 0, 2)
    assert [*target.parent.rglob("part-*.h5")] == []
    assert not target.exists()
    publish_merged(first, merged)
    publish(fresh, range(8), 3)
    assert contents(target.parent) == contents(fresh.parent)


def test_shards_that_lack_rows_that_are_still_to_be_made(tmp_path: Path) -> None:
    """The others are merged all the same, and a rerun takes them as they are."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    staging = PendingFile(target, choose(range(8)), rows_per_file=3)
    plan_files([staging])
    write_rows(staging, 3, 4, 0, 5)
    with pytest.raises(IncompleteError, match="without video 1, video 2, video 6, video 7"):
        complete(staging)
    assert not target.exists()
    assert len([*staging.folder.glob("part-*")]) == 1  # that of a row of the first shard
    [waiting] = staging.folder.glob("shard-*")
    before = waiting.stat().st_ino
    assert publish(target, range(8), 3) == [1, 2, 6, 7]
    assert inodes(target.parent)["00001.h5"][0] == before
    publish(fresh, range(8), 3)
    assert contents(target.parent) == contents(fresh.parent)


def test_a_part_that_another_shard_needs(tmp_path: Path) -> None:
    """Rows of the same content in two shards may be taken from one part: it stays for both."""
    target = tmp_path / "train_features.h5"
    same = to_digests([sha256("x"), sha256("y"), sha256("z"), sha256("x")])
    layout = replace(choose([0, 1, 2, 3]), input_sha256=same)
    earlier = PendingFile(target, layout, rows_per_file=2)
    plan_files([earlier])
    write_rows(earlier, 0, 1, 2)
    staging = PendingFile(target, layout, rows_per_file=2)
    plan_files([staging])
    assert {*staging.locations} == {0, 1, 2, 3}
    merged = merge_share([staging], 0, 2)
    merged += merge_share([staging], 1, 2)
    publish_merged(staging, merged)
    assert problems(target) == []
    assert not staging.home.exists()


def test_a_shard_that_lacks_rows(tmp_path: Path) -> None:
    """What is left out of a shard is left out of the file; what was finished after all is not."""
    target = tmp_path / "train_features.h5"
    staging = PendingFile(target, choose(range(8)), rows_per_file=3)
    plan_files([staging])
    for row in range(8):
        if row in (1, 4):
            staging.skip(row, "bad")
        else:
            staging.write_part({row: finish_in(staging, row, ROWS[row])})
    staging.skip(6, "bad, but it was finished")
    complete(staging)
    with open_feature_file(target) as file:
        names = file["video_ids"].asstr()[:].tolist()
    assert names == [f"video {row}" for row in (0, 2, 3, 5, 6, 7)]
    assert problems(target) == []


def spoil(path: Path, how: str) -> None:
    """Do something to a shard."""
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        shutil.copy(path.with_name("00000.h5"), path)


@pytest.mark.parametrize(
    ("how", "found"),
    [("missing", "no file"), ("cut", "expected an HDF5 file"), ("foreign", "a file with others")],
)
def test_a_shard_that_is_not_what_was_written(tmp_path: Path, how: str, found: str) -> None:
    """One line says which rows; a run refuses it, or makes these alone again."""
    target = tmp_path / "out" / "train_features.h5"
    publish(target, range(8), 3)
    expected = contents(target.parent)
    path = shard_path(target, 1)
    spoil(path, how)
    [problem] = problems(target)
    assert problem.startswith(f"{path}: expected rows 3 to 5 of train_features.h5, found ")
    assert found in problem
    assert "\n" not in problem
    with pytest.raises(OutputError, match=r"expected rows 3 to 5 of .*Set overwrite to true"):
        publish(target, range(8), 3)
    with pytest.raises(InputError, match="expected rows 3 to 5 of"):
        merge_files([target], tmp_path / "merged.h5")
    assert publish(target, range(8), 3, overwrite=True) == [3, 4, 5]
    assert contents(target.parent) == expected


def test_a_run_that_was_killed_while_it_published(tmp_path: Path) -> None:
    """Shards that wait are taken as they are; one that is damaged there is merged again."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    publish(target, range(6), 2)
    staging = PendingFile(target, choose([1, 0, 2, 3, 4, 5]), rows_per_file=2)
    plan_files([staging])
    merged = [shard.path for shard in merge_share([staging])]
    assert merged[1:] == [shard_path(target, 1), shard_path(target, 2)]
    assert merged[0] is not None
    spoil(merged[0], "cut")
    assert publish(target, [1, 0, 2, 3, 4, 5], 2) == []
    publish(fresh, [1, 0, 2, 3, 4, 5], 2)
    assert contents(target.parent) == contents(fresh.parent)


def test_a_shard_that_waits_has_a_row_of_another(tmp_path: Path) -> None:
    """Of the same content, in a later run: it stays where it is until that row is copied, too."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    staging = PendingFile(target, choose(range(8)), rows_per_file=2)
    plan_files([staging])
    for row in range(8):
        staging.write_part({row: finish_in(staging, row, ROWS[row])})
    [merged] = merge_share([staging], 1, 4)
    assert merged.path is not None
    numbers = [*range(8), 2]
    names = [*staging.layout.video_ids, "copy"]
    assert publish(target, numbers, 2, video_ids=names) == []
    publish(fresh, numbers, 2, video_ids=names)
    assert contents(target.parent) == contents(fresh.parent)


def test_a_file_of_somebody_else_in_the_place_of_a_shard(tmp_path: Path) -> None:
    """It is replaced by nobody who does not ask for it."""
    target = tmp_path / "train_features.h5"
    path = shard_path(target, 1)
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"00001\.h5: expected an HDF5 file.*Set overwrite"):
        publish(target, range(8), 3)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("how", ["cut", "other settings"])
def test_a_shard_in_the_place_of_one_that_is_to_be(tmp_path: Path, how: str) -> None:
    """With overwrite, it is not taken for one that the run has published, and it is replaced."""
    target, fresh = tmp_path / "out" / "train_features.h5", tmp_path / "fresh" / "train_features.h5"
    staging = PendingFile(target, choose(range(8)), rows_per_file=3)
    plan_files([staging])
    for row in range(3):
        staging.write_part({row: finish_in(staging, row, -ROWS[row])})
    put_in_place(staging, 0)
    made = plan(LENGTHS, backbone="another" if how == "other settings" else "it").provenance
    if how == "cut":
        spoil(shard_path(target, 0), how)
    assert publish(target, range(8), 3, overwrite=True, provenance=made) == [*range(8)]
    publish(fresh, range(8), 3, provenance=made)
    assert contents(target.parent) == contents(fresh.parent)


@pytest.mark.parametrize("how", ["missing", "cut", "foreign"])
def test_rows_are_read_from_their_shards(tmp_path: Path, how: str) -> None:
    """One by one and all; of those of a bad shard, one line says so, and the others are read."""
    target = tmp_path / "train_features.h5"
    publish(target, range(8), 3)
    data = FeatureDataset(target)
    spoil(shard_path(target, 1), how)
    copy: FeatureDataset = pickle.loads(pickle.dumps(data))
    for row in (7, 0, 2, 6):
        np.testing.assert_array_equal(copy[row].features.numpy(), ROWS[row])
        with pytest.raises(InputError, match=r"00001\.h5: expected rows 3 to 5 of train_fea") as e:
            copy[4]
        assert "\n" not in str(e.value)
    found = [*copy.map_rows(lambda features: features.copy(), [6, 1])]
    for row, features in zip((6, 1), found, strict=True):
        np.testing.assert_array_equal(features, ROWS[row])
    with pytest.raises(InputError, match="expected rows 3 to 5"):
        [*copy.map_rows(len)]


@pytest.mark.slow
def test_a_dataset_of_many_shards(tmp_path: Path) -> None:
    """A bounded number of them is open, in whatever order rows are read, also by workers."""
    target = tmp_path / "train_features.h5"
    numbers = [number % 8 for number in range(80)]
    inputs = to_digests([sha256(f"{row}") for row in range(80)])
    publish(target, numbers, 1, input_sha256=inputs, video_ids=[f"{row}" for row in range(80)])
    data = FeatureDataset(target)
    for row in [*range(80), *range(0, 80, 7)]:
        np.testing.assert_array_equal(data[row].features.numpy(), ROWS[numbers[row]])
    opened = [
        path
        for path in os.listdir("/proc/self/fd")
        if _find_folder(path) == data.path.with_suffix("")
    ]
    assert 0 < len(opened) <= 64
    loader = DataLoader(data, batch_size=None, num_workers=2)
    for row, item in enumerate(loader):
        np.testing.assert_array_equal(item.features.numpy(), ROWS[numbers[row]])


def _find_folder(descriptor: str) -> Path | None:
    """The folder of a file that is open."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent
    except FileNotFoundError:  # of the listing itself
        return None


def test_a_shard_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    """Rows of a file that was grown since are not mixed with those of the file that was opened."""
    target = tmp_path / "train_features.h5"
    publish(target, range(6), 3)
    data = FeatureDataset(target)
    np.testing.assert_array_equal(data[0].features.numpy(), ROWS[0])
    publish(target, [6, 0, 1, 2, 3, 4, 5], 3)
    np.testing.assert_array_equal(data[1].features.numpy(), ROWS[1])
    with pytest.raises(ChangedInputError, match="make the dataset again"):
        data[4]


def test_what_is_said_of_it(tmp_path: Path) -> None:
    """Structure, size and compression are those of all shards together."""
    target = tmp_path / "train_features.h5"
    publish(target, range(8), 3)
    with open_feature_file(target) as file:
        found = describe_structure(file)
    publish(tmp_path / "one" / "train_features.h5", range(8), None)
    with open_feature_file(tmp_path / "one" / "train_features.h5") as file:
        assert found == describe_structure(file)
    sizes = [path.stat().st_size for path in (target, *target.with_suffix("").iterdir())]
    assert summarize(target)["bytes"] == sum(sizes)


def test_merged_from_shards(tmp_path: Path) -> None:
    """A file that is merged of shards is the one that is merged of one file."""
    one, many = tmp_path / "one" / "train_features.h5", tmp_path / "many" / "train_features.h5"
    publish(one, range(8), None)
    publish(many, range(8), 3)
    for path in (one, many):
        merge_files([path], path.with_name("merged_features.h5"))
    assert (many.with_name("merged_features.h5")).read_bytes() == (
        one.with_name("merged_features.h5")
    ).read_bytes()


def test_rows_of_another_split(tmp_path: Path) -> None:
    """They are found in its shards; in a shard that is gone, they are not."""
    train, test = tmp_path / "train_features.h5", tmp_path / "test_features.h5"
    publish(train, range(6), 3)
    assert publish(test, [4, 7], 1) == [7]
    shard_path(train, 0).unlink()
    test.unlink()
    shutil.rmtree(test.with_suffix(""))
    assert publish(test, [4, 7], 1) == [4, 7]


def test_times_and_columns_and_odd_names(tmp_path: Path) -> None:
    """They stand in the file over all as in one file, and a percent sign in its name is one."""
    columns = {"age": np.arange(8), "who": np.array([*"abcdefgh"], object)}
    found = []
    for size, name in ((None, "one"), (3, "50%d_features.h5")):
        target = tmp_path / name / "50%d_features.h5"
        staging = PendingFile(target, choose(range(8), columns=columns, has_times=True), None, size)
        plan_files([staging])
        for row in range(8):
            times = np.arange(LENGTHS[row], dtype=np.float32)
            made = finish_in(staging, row, ROWS[row])._replace(times=times)
            staging.write_part({row: made})
        complete(staging)
        assert problems(target) == []
        found.append(repr(read_all(target)))
    assert found[0] == found[1]


def test_runs_are_numbered_over_all_shards(tmp_path: Path) -> None:
    """As in one file, in the order of the first row of each."""
    found = []
    for size in (None, 2):
        target = tmp_path / f"{size}" / "train_features.h5"
        for numbers, frames in (([0, 1, 2], 32), ([3, 0, 1, 4, 2], 16)):
            made = plan(LENGTHS, frames_per_forward=frames).provenance
            publish(target, numbers, size, provenance=made)
        found.append(read_all(target))
    assert found[0] == found[1]
    assert found[0]["run"] == [0, 1, 1, 0, 1]


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[*HealthCheck])
@given(
    steps=st.lists(
        st.tuples(st.permutations(range(8)), st.integers(1, 8), st.none() | st.integers(1, 9)),
        min_size=1,
        max_size=3,
    )
)
def test_any_growth(
    steps: list[tuple[list[int], int, int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever rows there were, in whatever shards: the bytes of a fresh run, and all is read."""
    folder = tmp_path_factory.mktemp("shards")
    target, known = folder / "out" / "train_features.h5", set[int]()
    for order, count, size in steps:
        numbers = order[:count]
        made = publish(target, numbers, size, overwrite=True)
        assert {*made} == {*numbers} - known
        known = {*numbers}
        assert problems(target) == []
    fresh, one = folder / "fresh" / "train_features.h5", folder / "one" / "train_features.h5"
    publish(fresh, numbers, size)
    publish(one, numbers, None)
    assert contents(target.parent) == contents(fresh.parent)
    assert read_all(target) == read_all(one)
    with open_feature_file(target) as file:
        assert (
            file["input_sha256"][:].tolist()
            == to_digests([sha256(f"video {number}") for number in numbers]).tolist()
        )
