"""Whole jobs on object storage: the features of the local disk, whatever the network does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import jobs
import numpy as np
import pytest
from helpers import TINY_JOB, grey_levels
from PIL import Image
from remote_server import BUCKET, Proxy, filled, make_client, serving

import featx
from featx.cli import main
from featx.data import remote
from featx.errors import ChangedInputError, NetworkError, UsageError

URL = f"s3://{BUCKET}/"

CLIPS: dict[str, Any] = {
    "source": "clips",
    "splits": ["train"],
    "num_frames": 4,
    "image_size": 16,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    """A server for all tests of this file."""
    with serving() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again at once."""
    for name, value in {"PATIENCE": 30.0, "TIMEOUT": 5.0, "PAUSE": 0.01}.items():
        monkeypatch.setattr(remote, name, value)


def run(root: str | Path | None, out: Path, **settings: Any) -> dict[str, Path]:  # noqa: ANN401
    """A small job."""
    job: dict[str, Any] = {**TINY_JOB, "num_frames": None, **settings}
    return featx.extract(root, out, **job)


def contents(paths: dict[str, Path]) -> dict[tuple[str, str], Any]:
    """All of some files, but for where the root is."""
    found: dict[tuple[str, str], Any] = {}
    for split, path in paths.items():
        with h5py.File(path) as file:
            attributes = dict(file.attrs)
            config = json.loads(attributes.pop("config"))
            assert config.pop("root")
            found[split, "config"] = config
            runs = json.loads(attributes.pop("runs", "[]"))
            found[split, "attributes"] = {k: np.array(v).tolist() for k, v in attributes.items()}
            found[split, "runs"] = len(runs)

            def add(name: str, item: object, split: str = split) -> None:
                if isinstance(item, h5py.Dataset):
                    found[split, name] = item[()].tolist(), str(item.dtype), item.chunks

            file.visititems(add)
    return found


def save_images(raw: Path, folder: Path) -> None:
    """Folders of images in the place of clips."""
    for number, name in enumerate(("train/hello/a", "train/hello/b", "train/bye/c")):
        (folder / name).mkdir(parents=True)
        for frame, image in enumerate(grey_levels(6) // 2 + number):
            Image.fromarray(image).save(folder / name / f"{frame}.png")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.usefixtures("tiny")
def test_clips_in_a_tree(server: Proxy, raw: Path, tmp_path: Path, num_workers: int) -> None:
    """They have the features that they have on the disk; a run fetches each once."""
    near = run(raw, tmp_path / "near", **CLIPS)
    with filled(server, raw, "raw/"):
        far = run(f"{URL}raw", tmp_path / "far", num_workers=num_workers, **CLIPS)
        assert server.count("GET", ".mp4") == 2  # the header, and all of it
    assert contents(far) == contents(near)
    with h5py.File(far["train"]) as file:
        assert json.loads(file.attrs["config"])["root"] == f"{URL}raw"
        assert "secret" not in file.attrs["config"]


@pytest.mark.usefixtures("tiny")
def test_folders_of_images(server: Proxy, tmp_path: Path) -> None:
    """They have the features that they have on the disk; a run reads each image once."""
    save_images(tmp_path, tmp_path / "frames")
    settings: dict[str, Any] = {"source": "frames", "num_frames": 4, "image_size": 16}
    near = run(tmp_path / "frames", tmp_path / "near", **settings)
    with filled(server, tmp_path / "frames"):
        far = run(URL, tmp_path / "far", **settings)
        # The header of the first one of each folder, by the scan, and all of each.
        assert server.count("GET", ".png") == 3 + 3 * 6
    assert contents(far) == contents(near)


def test_a_lost_connection_is_no_bad_clip(
    server: Proxy, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan stops where FFmpeg cannot read a header, even if bad clips are skipped."""
    with filled(server, raw):
        monkeypatch.setattr(remote, "PATIENCE", 0.0)
        server.only = "/2.mp4"
        server.faults.extend(["cut"] * 9)
        data = featx.VideoDataModule(URL, on_error="skip", **CLIPS)
        with pytest.raises(NetworkError, match=r"/2\.mp4: expected an answer of the server"):
            data.setup("predict")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.usefixtures("tiny")
def test_processed_files(server: Proxy, small_root: Path, tmp_path: Path, num_workers: int) -> None:
    """They have the features that they have on the disk."""
    near = run(small_root, tmp_path / "near")
    with filled(server, small_root, "a/"):
        far = run(f"{URL}a", tmp_path / "far", num_workers=num_workers, verify_inputs=True)
    assert contents(far) == contents(near)


@pytest.mark.parametrize("is_far", [True, False])
@pytest.mark.usefixtures("tiny")
def test_tables(server: Proxy, raw: Path, tmp_path: Path, is_far: bool) -> None:
    """A table is beside its clips, or has their addresses in it."""
    names = ["train/hello/2.mp4", "train/hello/10.mkv", "train/bye/x/b.MP4"]
    settings: dict[str, Any] = {"num_frames": 4, "image_size": 16}

    def write(prefix: str) -> Path:
        rows = (f"{prefix}{name},{number},video {number}" for number, name in enumerate(names))
        table = raw / "table.csv"
        table.write_text("\n".join(["path,label,id", *rows]))
        return table

    near = run(None, tmp_path / "near", table=write(""), **settings)
    table = write("" if is_far else f"{URL}b/")
    with filled(server, raw, "b/"):
        given = f"{URL}b/table.csv" if is_far else table
        far = run(None, tmp_path / "far", table=given, **settings)
    assert contents(far) == contents(near)


@pytest.mark.parametrize("source", ["clips", "processed"])
@pytest.mark.usefixtures("tiny")
def test_what_is_known_is_not_fetched(
    server: Proxy, raw: Path, small_root: Path, tmp_path: Path, source: str
) -> None:
    """A second run of what is done lists what there is, and fetches no video."""
    folder, settings = (raw, CLIPS) if source == "clips" else (small_root, {})
    out = tmp_path / "far"
    with filled(server, folder):
        run(URL, out, **settings)
        server.requests.clear()
        run(URL, out, **settings)
        suffixes = (".mp4", ".mkv", ".avi", ".MP4", ".pt")
        assert [server.count("GET", suffix) for suffix in suffixes] == [0] * 5
        assert len(server.requests) < 12


@pytest.mark.usefixtures("tiny")
def test_a_passing_fault_is_survived(server: Proxy, raw: Path, tmp_path: Path) -> None:
    """Connections that break and servers that are busy leave no trace in the features."""
    near = run(raw, tmp_path / "near", **CLIPS)
    with filled(server, raw):
        server.faults.extend(["cut", 503, "pass", "cut", 500])
        far = run(URL, tmp_path / "far", **CLIPS)
        assert not server.faults
    assert contents(far) == contents(near)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.usefixtures("tiny")
def test_a_lasting_fault_stops_and_the_next_run_goes_on(
    server: Proxy,
    raw: Path,
    tmp_path: Path,
    on_error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is no bad input to be left out; what is done stays done, and is not fetched again."""
    near = run(raw, tmp_path / "near", **CLIPS)
    out = tmp_path / "far"
    job = {
        "model.backbone": "resnet50",
        "model.weights": "random",
        "model.frames_per_forward": 4,
        "data.root": URL,
        "data.source": "clips",
        "data.splits": "[train]",
        "data.num_frames": 4,
        "data.image_size": 16,
        "data.on_error": on_error,
        "writer.output_dir": out,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
    }
    arguments = ["predict", *(f"--{name}={value}" for name, value in job.items())]
    monkeypatch.setattr("sys.argv", ["featx", *arguments])
    with filled(server, raw):
        monkeypatch.setattr(remote, "PATIENCE", 0.0)
        server.only = "/2.mp4"  # the third
        server.faults.extend(["pass"] + ["cut"] * 9)
        assert main(arguments) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1
        assert "goes on from there" in lines[0]
        assert not [*out.glob("*.h5")]
        server.faults.clear()
        server.requests.clear()
        assert main(arguments) == 0
        assert (server.count("GET", "/b.MP4"), server.count("GET", "/10.mkv")) == (0, 0)
        assert server.count("GET", "/2.mp4") == 1
    assert contents({"train": out / near["train"].name}) == contents(near)


def test_two_processes(server: Proxy, raw: Path, tmp_path: Path) -> None:
    """They have the features of one; each clip is fetched by one of them."""
    with filled(server, raw):
        found = []
        for number, ranks in enumerate(({}, jobs.TWO), start=1):
            server.requests.clear()
            out = tmp_path / f"out {number}"
            found.append(jobs.run(URL, out, delay=0, **ranks, data=CLIPS))
            # The header, by the scan, and all of it.
            assert (server.count("GET", ".mp4"), server.count("GET", ".avi")) == (2, 2)
    assert found[0] == found[1]


@pytest.mark.usefixtures("tiny")
def test_a_clip_that_changes_after_the_scan_is_told(
    server: Proxy, raw: Path, tmp_path: Path
) -> None:
    """Its features would be those of another one."""
    with filled(server, raw):
        data = featx.VideoDataModule(URL, **CLIPS)
        data.setup("predict")
        file, index = data.manifest.locate(0)
        name = str(file.path).removeprefix(URL)
        other = (raw / "test/bye/c.mov").read_bytes()
        make_client(server).put_object(Bucket=BUCKET, Key=name, Body=other)
        with pytest.raises(ChangedInputError, match="has changed since"):
            file.read(index)
        make_client(server).delete_object(Bucket=BUCKET, Key=name)
        with pytest.raises(ChangedInputError, match="readable when it was scanned"):
            file.read(index)


def test_commands_read_object_storage(
    server: Proxy, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scanning and preprocessing find there what they find on the disk."""
    with filled(server, raw, "raw/"):
        assert main(["scan", f"{URL}raw", "--json"]) == 0
        far = json.loads(capsys.readouterr().out)
        assert main(["scan", str(raw), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == far
        for root, name in ((f"{URL}raw", "far"), (str(raw), "near")):
            args = [root, str(tmp_path / name), "--num_frames=4", "--image_size=16"]
            assert main(["preprocess", *args]) == 0
        assert main(["scan", f"{URL}none"]) == 1
        assert f"{URL}none: expected a folder" in capsys.readouterr().err
    files = [path.relative_to(tmp_path / "near") for path in (tmp_path / "near").rglob("*.pt")]
    assert files
    assert all((tmp_path / "far" / path).is_file() for path in files)


@pytest.mark.usefixtures("tiny")
def test_features_are_verified_and_shown(server: Proxy, raw: Path, tmp_path: Path) -> None:
    """The commands that read the videos again read them there, too."""
    near = run(raw, tmp_path / "near", **CLIPS)["train"]
    with filled(server, raw, "raw/"):
        inputs = ["--root", f"{URL}raw", "--source=clips"]
        assert main(["verify", str(near), *inputs, "--all"]) == 0
        assert main(["inspect", str(near), *inputs, "--html", str(tmp_path / "page.html")]) == 0
        assert server.count("GET", "2.mp4") == 4  # each reads its header and all of it
    assert "data:image" in (tmp_path / "page.html").read_text("utf-8")


def test_outputs_are_on_this_machine(tmp_path: Path) -> None:
    """An address of an output folder is refused, before anything is done."""
    with pytest.raises(UsageError, match="expected a path on this machine, found an address"):
        featx.FeatureWriter("s3://bucket/features")
    with pytest.raises(UsageError, match=r"^ftp://\.\.\.@server/a\?\.\.\.: expected a path"):
        featx.FeatureWriter("ftp://user:secret@server/a?secret")
