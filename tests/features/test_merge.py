"""Feature files of several machines become one: merged right, or refused in one line."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import ROW_DIM, complete, prepare, problems, sha256
from numpy.typing import NDArray

from featx.cli import main
from featx.errors import InputError, OutputError
from featx.features.feature_file import FileLayout, create, encode, read_inputs, write_row
from featx.features.merge import join_categories, merge_files
from featx.features.provenance import Provenance
from featx.features.resume.parts import PendingFile

Rows = Mapping[str, tuple[str, int]]
"""Names of videos, each with its category and its content."""

Write = Callable[..., Path]


def features_of(content: int) -> NDArray[np.float32]:
    """The features of a content: as many frames as its number, and three."""
    shape = (3 + content % 5, ROW_DIM)
    return np.random.default_rng(content).standard_normal(shape).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a feature file."""

    def write_file(
        name: str,
        rows: Rows,
        categories: Mapping[str, int] | None = None,
        dim: int = ROW_DIM,
        columns: Mapping[str, NDArray[Any]] | None = None,
        **settings: object,
    ) -> Path:
        known = categories or {
            category: label for label, category in enumerate(sorted({c for c, _ in rows.values()}))
        }
        run = {"root": f"/{name}", "split": "train", "precision": "32-true", "torch": "2"}
        made = Provenance(known, True, run | settings)
        features = [features_of(content)[:, :dim] for _, content in rows.values()]
        layout = FileLayout.plan(
            np.array([known[category] for category, _ in rows.values()]),
            np.array([len(each) for each in features], np.int32),
            [*rows],
            dim,
            replace(made, runs=[made.last_bits()]),
            columns,
            input_sha256=[sha256(f"{content}") for _, content in rows.values()],
        )
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            create(file, layout)
            for row, each in enumerate(features):
                write_row(file, row, encode(each, layout))
        return path

    return write_file


def read(path: Path) -> dict[str, tuple[str, int]]:
    """The rows of a file, after a check of each one's features."""
    assert problems(path) == []
    with h5py.File(path) as file:
        mapping = Provenance.from_attributes(file.attrs).categories
        name_of = {label: name for name, label in mapping.items()}
        contents = {sha256(f"{content}"): content for content in range(100)}
        found = {}
        names, inputs = file["video_ids"].asstr()[:], file["input_sha256"].asstr()[:]
        for row, (name, made_of) in enumerate(zip(names, inputs, strict=True)):
            content = contents[made_of]
            features = file["features"][row, : file["num_frames"][row]]
            np.testing.assert_array_equal(features, features_of(content))
            found[name] = (name_of[int(file["labels"][row])], content)
    return found


def test_eight_files(write: Write, tmp_path: Path) -> None:
    """All rows in order, with labels by the names of categories, and one mapping for all."""
    parts: list[Rows] = [
        {f"{n}/{i}": ("abcdefghi"[(n + i) % 9], 10 * n + i) for i in range(1 + n)} for n in range(8)
    ]
    paths = [write(f"{number}", rows) for number, rows in enumerate(parts)]
    merged = merge_files(paths, tmp_path / "out" / "train_features.h5")
    assert (merged.num_videos, merged.repeated, merged.renamed) == (36, 0, [])
    expected = {name: row for rows in parts for name, row in rows.items()}
    assert [*read(merged.path).items()] == [*expected.items()]
    with h5py.File(merged.path) as file:
        made = Provenance.from_attributes(file.attrs)
    assert made.categories == {name: label for label, name in enumerate("abcdefghi")}
    assert made.split == "train"
    assert "root" not in made.run
    assert [path.name for path in merged.path.parent.iterdir()] == ["train_features.h5"]


def test_the_same_video_counts_once(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is called; another one of the same name gets a number."""
    write("one", {"x": ("a", 1), "y": ("b", 2)})
    write("two", {"z": ("b", 2), "x": ("b", 3), "x (2)": ("a", 4)})
    files = [str(tmp_path / f"{name}.h5") for name in ("one", "two")]
    assert main(["merge", *files, "--output", str(tmp_path / "c.h5")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"4 videos of 2 files in {tmp_path / 'c.h5'}, 1 repeated rows left out",
        "names of several videos, which have a number now: x",
    ]
    assert read(tmp_path / "c.h5") == {
        "x": ("a", 1),
        "y": ("b", 2),
        "x (3)": ("b", 3),
        "x (2)": ("a", 4),
    }


def test_rows_of_several_runs(write: Write, tmp_path: Path) -> None:
    """Settings that change last bits may differ: the file says of each row which they were."""
    paths = [write("one", {"x": ("a", 1)}), write("two", {"y": ("a", 2)}, torch="3")]
    merged = merge_files(paths, tmp_path / "c.h5").path
    with h5py.File(merged) as file:
        runs = Provenance.from_attributes(file.attrs).runs
        assert [runs[run]["torch"] for run in file["run"][:]] == ["2", "3"]


def test_a_run_over_a_merged_file(write: Write, tmp_path: Path) -> None:
    """Its rows are as good as any: a run on the data set of all of them makes none again."""
    rows: Rows = {"x": ("a", 1), "y": ("b", 2), "z": ("b", 3)}
    both = {name: rows[name] for name in "xy"}, {name: rows[name] for name in "yz"}
    paths = [write(f"{number}", each) for number, each in enumerate(both)]
    target = merge_files(paths, tmp_path / "out" / "train_features.h5").path
    with h5py.File(write("whole", rows)) as file:
        made = Provenance.from_attributes(file.attrs)
        layout = FileLayout.plan(
            file["labels"][:],
            file["num_frames"][:],
            [*rows],
            ROW_DIM,
            made,
            input_sha256=read_inputs(file),
        )
    staging = PendingFile(target, layout)
    assert prepare(staging) == {0, 1, 2}
    content = target.read_bytes()
    complete(staging)
    assert target.read_bytes() == content
    assert read(target) == rows


@pytest.mark.parametrize("name", ["fps", "start_times", "my_own", "views", "features"])
def test_rows_that_cannot_be_copied(write: Write, tmp_path: Path, name: str) -> None:
    """Datasets and attributes that a copy would lose are refused in one line."""
    path = write("one", {"x": ("a", 1)})
    with h5py.File(path, "r+") as file:
        if name in ("fps", "my_own"):
            file[name] = np.array([25.0])
        elif name == "start_times":
            file[name] = np.zeros(file["features"].shape[:2], np.float32)
        elif name == "views":
            file.attrs[name] = "[]"
        else:
            half = file[name][:].astype(np.float16)
            del file[name]
            file[name] = half
    assert problems(path) == []
    with pytest.raises(InputError, match=rf"whose rows can be copied, found .*{name}") as caught:
        merge_files([path], tmp_path / "c.h5")
    assert "\n" not in str(caught.value)


def test_columns_of_tables(write: Write, tmp_path: Path) -> None:
    """What one table has not is empty, or NaN."""
    first = {"signer": np.array(["ann"], object), "take": np.array([4])}
    second = {"take": np.array([5]), "age": np.array([30])}
    paths = [
        write("one", {"x": ("a", 1)}, columns=first),
        write("two", {"y": ("a", 2)}, columns=second),
    ]
    with h5py.File(merge_files(paths, tmp_path / "c.h5").path) as file:
        columns = file["columns"]
        assert columns["signer"].asstr()[:].tolist() == ["ann", ""]
        assert columns["take"][:].tolist() == [4, 5]
        assert np.array_equal(columns["age"][:], [np.nan, 30], equal_nan=True)


def test_what_does_not_fit(write: Write, tmp_path: Path) -> None:
    """One line says which files, and what it is; nothing is written."""
    rows: Rows = {"x": ("a", 1)}
    first, out = write("first", rows), tmp_path / "c.h5"
    for other, told in (
        (write("settings", rows, precision="bf16-mixed"), "precision is 32-true instead of bf16"),
        (write("average", rows, scale_average="present"), "scale_average is zeros instead of pres"),
        (write("align", rows, scale_align="time"), "scale_align is index instead of time"),
        (write("width", {"y": ("a", 2)}, dim=3), "feature_dim is 4 instead of 3"),
        (write("label", {"y": ("b", 1)}), "found a for x and b for y"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            merge_files([first, other], out)
        assert str(first) in str(caught.value)
        assert str(other) in str(caught.value)
        assert "\n" not in str(caught.value)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(first) as source, h5py.File(foreign, "w") as target:
        for name in ("features", "labels", "num_frames"):
            source.copy(name, target)
        for name in ("num_videos", "max_frames", "feature_dim", "category_mapping", "multi_scale"):
            target.attrs[name] = source.attrs[name]
    with pytest.raises(InputError, match="found one of another program"):
        merge_files([first, foreign], out)
    assert not out.exists()
    out.write_text("")
    with pytest.raises(OutputError, match="expected no file, found one"):
        merge_files([first], out)
    assert read(merge_files([first], out, overwrite=True).path) == rows


@pytest.mark.parametrize(
    ("mappings", "joined"),
    [
        ([{"a": 0, "b": 1}, {"a": 0, "b": 1, "c": 2}], {"a": 0, "b": 1, "c": 2}),
        ([{"b": 0}, {"a": 0}], {"a": 0, "b": 1}),
        ([{"a": 0, "b": 1}, {"b": 0, "c": 1}], {"a": 0, "b": 1, "c": 2}),
        ([{"7": 7, "3": 3}, {"3": 3, "12": 12}], {"3": 3, "7": 7, "12": 12}),
        ([{}, {"a": 0}], {"a": 0}),
    ],
)
def test_labels_go_by_names(mappings: list[dict[str, int]], joined: dict[str, int]) -> None:
    """Those on which all agree stay; otherwise they are those of sorted names."""
    assert [*join_categories(mappings).items()] == [*joined.items()]


def test_settings_in_which_files_differ(write: Write, tmp_path: Path) -> None:
    """The record of the merge has only those that are the same in all files."""
    made = {"frames_per_video": 3, "image_size": [8, 8], "processing_mode": "cpu"}
    paths = [
        write("one", {"x": ("a", 1)}, source="clips", preprocessing=made, root="/one"),
        write("two", {"y": ("a", 2)}, source="clips", preprocessing=made, root="/two"),
    ]
    merged = merge_files(paths, tmp_path / "c.h5").path
    with h5py.File(merged) as file:
        found = Provenance.from_attributes(file.attrs)
    assert found.run["preprocessing"] == made
    assert "root" not in found.run
    assert merge_files([merged, paths[0]], tmp_path / "d.h5").num_videos == 2


def test_damage_is_not_handed_on(write: Write, tmp_path: Path) -> None:
    """A file with a flipped bit is refused."""
    path = write("one", {"x": ("a", 1)})
    with h5py.File(path) as file:
        offset = file["features"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset + 10)
        raw.write(b"xxxx")
    with pytest.raises(InputError, match=r"one\.h5: features\[0\]: expected readable chunks"):
        merge_files([path], tmp_path / "c.h5")
