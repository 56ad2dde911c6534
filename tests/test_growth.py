"""A data set that is edited, and extracted again: the bytes of a fresh run, for what is new."""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jobs
import numpy as np
import pytest
import torch
from helpers import EagerWriter, grey_levels, random_videos
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from featx import FeatureExtractor, VideoDataModule
from featx.data.batches import VideoBatch
from featx.data.media.clip import ClipFile, write_clip
from featx.data.media.processed_file import save_videos
from featx.data.storage import Content, fetch
from featx.errors import IncompleteError, OutputError

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:.* categories have no videos"),
]

MAX_EXAMPLES = int(os.environ.get("FEATX_EXAMPLES", "8"))  # a search can be longer than a test
NUM_CONTENTS = 6
SPLITS, CATEGORIES = ("train", "test"), ("a", "b")


class Entry(NamedTuple):
    """A video of a data set."""

    split: str
    category: str
    name: str
    content: int


class Counting(FeatureExtractor):
    """Counts the videos that pass the CNN."""

    passed = 0

    def predict_step(self, batch: VideoBatch, batch_idx: int = 0) -> list[Tensor]:
        """Count."""
        self.passed += len(batch.videos)
        return super().predict_step(batch, batch_idx)


def save_processed(root: Path, entries: Sequence[Entry], contents: Path) -> None:
    """A file for each category of a split."""
    videos = random_videos(NUM_CONTENTS, 3)
    for split in SPLITS:
        for category in CATEGORIES:
            chosen = [e for e in entries if (e.split, e.category) == (split, category)]
            place = root / split / category / "x"
            place.mkdir(parents=True)
            save_videos(
                place / "processed_data.pt",
                (({"clips": entry.name}, videos[entry.content]) for entry in chosen),
            )


def save_clips(root: Path, entries: Sequence[Entry], contents: Path) -> None:
    """A clip each, with the time of change that its content has."""
    for entry in entries:
        place = root / entry.split / entry.category
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(contents / f"{entry.content}.mp4", place / f"{entry.name}.mp4")


def save_frames(root: Path, entries: Sequence[Entry], contents: Path) -> None:
    """A folder of images each, of a new time of change."""
    for entry in entries:
        place = root / entry.split / entry.category / entry.name
        shutil.copytree(contents / f"{entry.content}", place, copy_function=shutil.copyfile)


def save_table(root: Path, entries: Sequence[Entry], contents: Path) -> None:
    """A row each: a segment of one of two long clips, by frames."""
    root.mkdir(exist_ok=True)
    for name in ("long0.mp4", "long1.mp4"):
        shutil.copy2(contents / name, root / name)
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "label", "id", "start_frame", "end_frame"])
        for entry in entries:
            path, start = f"long{entry.content % 2}.mp4", entry.content // 2 * 4
            writer.writerow([path, entry.split, entry.category, entry.name, start, start + 4])


class Kind(NamedTuple):
    """A kind of data set: how it is saved, and how it is read."""

    save: Callable[[Path, Sequence[Entry], Path], None]
    settings: dict[str, Any]


KINDS = {
    "processed": Kind(save_processed, {}),
    "clips": Kind(save_clips, {"source": "clips", "num_frames": 3, "image_size": 8}),
    "frames": Kind(save_frames, {"source": "frames", "num_frames": 3, "image_size": 8}),
    "table": Kind(save_table, {"table": "table.csv", "num_frames": 3, "image_size": 8}),
}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips and folders of frames to choose from, some with a time of change long ago."""
    folder = tmp_path_factory.mktemp("contents")
    for number in range(NUM_CONTENTS):
        frames = grey_levels(12)[number : number + 5]
        write_clip(folder / f"{number}.mp4", frames)
        if number % 2:
            os.utime(folder / f"{number}.mp4", (number, number))
        (folder / f"{number}").mkdir()
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{number}" / f"{index}.png")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 16, 3), np.uint8)
        write_clip(folder / f"long{number}.mp4", noise.repeat(4, 1).repeat(4, 2))
    return folder


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(SPLITS),
        st.sampled_from(CATEGORIES),
        st.sampled_from("pqrstu"),
        st.integers(0, NUM_CONTENTS - 1),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: (entry.split, entry.category, entry.name),
).filter(lambda entries: {entry.split for entry in entries} == {*SPLITS})
"""A data set: from one to the next, everything may happen to its videos."""

STEPS = st.lists(st.tuples(ENTRIES, st.none() | st.integers(0, 2)), min_size=2, max_size=4)
"""A data set after the other, and after how many videos the run on it is stopped, if it is."""


def run(root: Path, out: Path, kind: Kind, limit: int | None, overwrite: bool) -> tuple[int, bool]:
    """One run: the number of videos that have passed the CNN, and whether it has ended well."""
    extractor = Counting("resnet50", "random", frames_per_forward=4)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[EagerWriter(out, overwrite)],
        logger=False,
        limit_predict_batches=limit,
        enable_progress_bar=False,
    )
    chosen = dict(kind.settings)
    if "table" in chosen:
        chosen["table"] = root / chosen["table"]
    data = VideoDataModule(root, num_workers=0, **({"splits": [*SPLITS]} | chosen))
    try:
        trainer.predict(extractor, data, return_predictions=False)
    except IncompleteError:
        return extractor.passed, False
    return extractor.passed, True


class Model:
    """What is finished, said in another way: the contents in each file, and in the parts of it."""

    def __init__(self) -> None:
        self.published: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        self.parts: dict[str, set[int]] = {split: set() for split in SPLITS}

    def loses(self, entries: Sequence[Entry]) -> bool:
        """Whether there is a row that no video stands for any more."""
        now = {s: Counter(e.content for e in entries if e.split == s) for s in SPLITS}
        there = {entry.content for entry in entries}
        return any(
            self.parts[split] - there
            or any(
                count > now[split][content]
                and not any(now[other][content] for other in SPLITS if other != split)
                for content, count in self.published[split].items()
            )
            for split in SPLITS
        )

    def run(self, entries: Sequence[Entry], limit: int | None) -> tuple[int, bool]:
        """What a run does: how many videos pass the CNN, and whether it ends well."""
        known = set[int]().union(*self.published.values(), *self.parts.values())
        to_do = [entry for entry in entries if entry.content not in known]
        made = to_do if limit is None else to_do[:limit]
        for split in SPLITS:
            mine = Counter(entry.content for entry in entries if entry.split == split)
            if any(entry.split == split for entry in to_do[len(made) :]):
                own = {*self.published[split], *self.parts[split]}
                self.parts[split] |= {e.content for e in made if e.split == split}
                self.parts[split] |= {*mine} & known - own  # of other splits
            else:
                self.published[split], self.parts[split] = mine, set()
        return len(made), len(made) == len(to_do)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
@given(steps=STEPS)
@example(
    steps=[([Entry("train", "a", "p", 0), Entry("test", "a", name, 0)], None) for name in "pq"]
)
def test_any_edit(
    name: str,
    steps: list[tuple[list[Entry], int | None]],
    contents: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Added, removed, replaced, renamed, relabelled, reordered, moved; stopped in between.

    The files are those of a fresh run at the end, and nothing has passed the CNN that was finished
    before.
    """
    folder, kind, model = tmp_path_factory.mktemp(name), KINDS[name], Model()
    root, out = folder / "root", folder / "out"
    for entries, limit in [*steps, (steps[-1][0], None)]:
        if name == "table":  # names are those of rows
            entries = [*{(entry.split, entry.name): entry for entry in entries}.values()]
        shutil.rmtree(root, ignore_errors=True)
        kind.save(root, entries, contents)
        ordered = sorted(entries, key=lambda e: (SPLITS.index(e.split), *_order(name, entries, e)))
        try:
            found = run(root, out, kind, limit, overwrite=False)
        except OutputError as error:
            if "without one: " not in str(error) or not model.loses(entries):
                raise
            found = run(root, out, kind, limit, overwrite=True)
        assert found == model.run(ordered, limit)
    run(root, folder / "fresh", kind, None, overwrite=False)
    for path in (folder / "fresh").glob("*.h5"):
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_one_split_after_the_other(contents: Path, tmp_path: Path) -> None:
    """A clip that moves to the split that is extracted next is not made again."""
    root, out = tmp_path / "root", tmp_path / "out"
    # The clip that moves was changed long ago: of one that has just changed, nothing is cached.
    save_clips(root, [Entry("train", "a", "p", 1), Entry("train", "a", "q", 0)], contents)
    kind = KINDS["clips"]
    train, test = (kind._replace(settings=kind.settings | {"splits": [s]}) for s in SPLITS)
    assert run(root, out, train, None, overwrite=False) == (2, True)
    place = root / "test" / "a" / "p.mp4"
    place.parent.mkdir(parents=True)
    (root / "train" / "a" / "p.mp4").rename(place)
    save_clips(root, [Entry("test", "a", "r", 2)], contents)
    assert run(root, out, test, None, overwrite=False) == (1, True)


def test_what_is_read(contents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes of a clip once, when its turn comes; of one that is known, none.

    What may be a copy, by its size, is read before.
    """
    root, out, kind = tmp_path / "root", tmp_path / "out", KINDS["clips"]
    read: list[str] = []
    before_its_turn: list[str] = []
    find_digest = ClipFile.find_digest

    def fetch_and_note(path: str) -> Content:
        read.append(Path(path).stem)
        return fetch(path)

    def find(clip: ClipFile) -> ClipFile:
        before_its_turn.append(Path(clip.path).stem)
        return find_digest(clip)

    monkeypatch.setattr("featx.data.media.clip.fetch", fetch_and_note)
    monkeypatch.setattr(ClipFile, "find_digest", find)
    old = [
        Entry(split, "a", f"{number}", number) for split, number in zip(SPLITS, (1, 3), strict=True)
    ]
    save_clips(root, old, contents)
    assert run(root, out, kind, None, overwrite=False) == (2, True)
    save_clips(root, [Entry("train", "a", "5", 5)], contents)
    assert run(root, out, kind, None, overwrite=False) == (1, True)
    assert run(root, out, kind, None, overwrite=False) == (0, True)
    assert read == ["1", "3", "5"]
    assert before_its_turn == []
    save_clips(root, [Entry("test", "a", "copy", 5)], contents)
    assert run(root, out, kind, None, overwrite=False) == (0, True)
    assert before_its_turn == ["copy"]


def test_a_file_that_does_not_tell_its_videos_apart(tmp_path: Path) -> None:
    """One video more makes all of them others: they are made again, and nobody is asked."""
    root, out = tmp_path / "root", tmp_path / "out"
    place = root / "train" / "a" / "x"
    place.mkdir(parents=True)
    kind = Kind(save_processed, {"splits": ["train"]})
    for count in (12, 13):
        torch.save({"videos": random_videos(count, 3)}, place / "processed_data.pt")
        assert run(root, out, kind, None, overwrite=False) == (count, True)


def test_videos_that_are_noted_as_damaged(tmp_path: Path) -> None:
    """Of files that were made before, they are as good as any; a run that was stopped goes on."""
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "train" / "a" / "x").mkdir(parents=True)
    notes = [{"clips": f"{number}", "damage": "a half" * (number % 2)} for number in range(4)]
    videos = zip(notes, random_videos(4, 3), strict=True)
    save_videos(root / "train" / "a" / "x" / "processed_data.pt", videos)
    kind = Kind(save_processed, {"splits": ["train"]})
    assert run(root, out, kind, 2, overwrite=False) == (2, False)
    assert run(root, out, kind, None, overwrite=False) == (2, True)
    assert run(root, out, kind, None, overwrite=False) == (0, True)


@pytest.mark.processes
def test_two_processes(contents: Path, tmp_path: Path) -> None:
    """They agree where the parts go, also where only one of them has found out what is new."""
    root, out = tmp_path / "root", tmp_path / "out"
    data = {"source": "clips", "num_frames": 3, "image_size": 8}
    entries = [Entry("train", "a", name, content) for content, name in enumerate("pqr")]
    save_clips(root, [*entries, Entry("test", "a", "s", 1)], contents)
    jobs.run(root, out, delay=0, data=data)
    shutil.rmtree(root)
    renamed = [entry._replace(name=f"{entry.name}2") for entry in entries]
    added = [Entry("train", "b", name, content) for content, name in enumerate("tuv", start=3)]
    save_clips(root, [*renamed, *added, Entry("test", "a", "s", 1)], contents)
    found = jobs.run(root, out, delay=0, data=data, **jobs.TWO)
    assert found == jobs.run(root, tmp_path / "fresh", delay=0, data=data)


def _order(name: str, entries: Sequence[Entry], entry: Entry) -> tuple[object, ...]:
    """Where an entry stands in its split."""
    if name == "table":
        return (entries.index(entry),)
    if name == "processed":
        return (entry.category, entries.index(entry))
    return (entry.category, entry.name)
