"""The command line: exit statuses, and one clear line for what a person did wrong."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import pytest
import torch
from helpers import Evil, Save, grey_levels, random_videos
from lightning.pytorch import Trainer

from featx.cli import COMMANDS, main
from featx.data.media.clip import write_clip
from featx.errors import InputError

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: its exit status, and the last line on standard error."""

    def run_command(*args: object) -> tuple[int, str]:
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as error:
            status = int(error.code or 0)
        lines = capsys.readouterr().err.strip().splitlines()
        return status, lines[-1] if lines else ""

    return run_command


@pytest.fixture
def predict(run: Run, root: Path, tmp_path: Path, tiny: None) -> Run:
    """Run `featx predict` with the tiny CNN on the data set of the test."""

    def run_predict(*args: object, without: str = "nothing") -> tuple[int, str]:
        defaults = [
            "--model.backbone=resnet50",
            "--model.weights=random",
            f"--data.root={root}",
            "--data.num_workers=0",
            f"--writer.output_dir={tmp_path / 'out'}",
            "--trainer.accelerator=cpu",
        ]
        return run("predict", *(o for o in defaults if not o.startswith(without)), *args)

    return run_predict


def test_predict(predict: Run, small_root: Path, tmp_path: Path) -> None:
    """The whole job, with status 0; again, nothing is left to do; with other settings, refused."""
    assert predict()[0] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names - {".featx"} == {
        "configuration_analysis.json",
        *(f"{split}_features_multiscale.h5" for split in ("train", "val", "test")),
    }
    assert predict()[0] == 0
    status, line = predict("--model.scales=[1.0, 0.5]")
    assert status == 1
    assert "scales is [1.0, 0.5] instead of [1.0, 0.85, 1.15]. Set overwrite to true" in line
    assert predict("--model.scales=[1.0, 0.5]", "--writer.overwrite=true")[0] == 0


def test_predict_takes_every_setting(predict: Run, small_root: Path, tmp_path: Path) -> None:
    """The parameters that scripts rely on are taken, dashes or underscores."""
    status, line = predict(
        "--model.multi_scale=false",
        "--model.scales=[1.0, 0.5]",
        "--model.frames-per-forward=4",
        "--model.compile=false",
        "--data.splits=[test]",
        "--data.batch_size=2",
        "--trainer.devices=1",
        "--trainer.precision=bf16-mixed",
    )
    assert (status, line.startswith("featx")) == (0, False)
    with h5py.File(tmp_path / "out" / "test_features.h5") as file:
        assert not file.attrs["multi_scale"]
        config = json.loads(file.attrs["config"])
    assert config["frames_per_forward"] == 4
    assert config["precision"] == "bf16-mixed"
    assert config["scales"] == [1.0]


@pytest.mark.parametrize("form", ["1", "=1", "yaml"])
def test_one_batch_is_one_batch(predict: Run, small_root: Path, tmp_path: Path, form: str) -> None:
    """A whole number of batches stays one, and a split that lacks videos is not published."""
    option = "--trainer.limit_predict_batches"
    config = tmp_path / "config.yaml"
    config.write_text("trainer:\n  limit_predict_batches: 1\n")
    forms = {"1": [option, "1"], "=1": [f"{option}=1"], "yaml": [f"--config={config}"]}
    status, line = predict(*forms[form])
    assert status == 1
    assert "expected 4 videos" not in line  # of train, the first one is done
    assert "expected 3 videos, found 1" in line or "expected 5 videos, found 1" in line
    assert predict(option, "1.0")[0] == 0  # a share of all


WRONG_USES = {
    "a verb": (["fit"], "unrecognized arguments: fit. Accepted: --"),
    "a misspelled option": (
        ["--model.backbon", "resnet50"],
        "Did you mean --model.backbone? Accepted: --model.backbone, --model.weights",
    ),
    "a misspelled block": (["--modle.backbone=resnet50"], "Did you mean --model.backbone?"),
    "an unknown backbone": (
        ["--model.backbone=resnet5"],
        "one of resnet50, resnet101, efficientnet_v2_s, efficientnet_v2_m, efficientnet_lite0, ",
    ),
    "text for a number": (["--data.batch_size=many"], "Expected int. Got value: many"),
    "text for a switch": (["--model.multi_scale=perhaps"], "Expected bool"),
    "a number for a list": (["--model.scales=1.0"], "Expected Sequence"),
    "a number out of range": (["--data.batch_size=0"], "batch_size: expected 1 or more, found 0"),
    "a scale out of range": (
        ["--model.scales=[-1]"],
        "above 0 and up to 100, found [-1.0].",
    ),
    "an unknown reaction": (["--data.on_error=ignore"], "'stop', 'skip'"),
    "no splits": (["--data.splits=[]"], "splits: expected a list of one split or more, found []"),
    "no such device": (["--trainer.accelerator=gpu"], "trainer: "),
    "an unknown strategy": (["--trainer.strategy=none"], "trainer: "),
    "no devices": (["--trainer.devices=0"], "trainer: "),
    "no such config": (["--config=none.yaml"], "none.yaml"),
}


@pytest.mark.parametrize("name", WRONG_USES)
def test_wrong_use(predict: Run, small_root: Path, tmp_path: Path, name: str) -> None:
    """Status 2, and one line that says what is accepted."""
    args, message = WRONG_USES[name]
    status, line = predict(*args)
    assert status == 2
    assert line.startswith("featx predict: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_wrong_config(predict: Run, small_root: Path, tmp_path: Path) -> None:
    """A misspelled key in a file is a wrong use too."""
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  backbon: resnet50\n")
    status, line = predict(f"--config={config}")
    assert status == 2
    assert "Did you mean --model.backbone? Accepted: --model.backbone, --model.weights" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"writer:\n  output_dir:\n", "output_dir"),
        (b"writer:\n", "writer"),
        (b"writer: [1]\n", "writer"),
        (b"model:\n  backbone: \xff\n", "UTF-8"),
        (b"model: {\n", "config"),
    ],
)
def test_odd_configs(
    predict: Run, small_root: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    """Empty blocks, blocks of another type and damaged files are wrong uses too."""
    config = tmp_path / "config.yaml"
    config.write_bytes(content)
    output = "--writer.output_dir"
    status, line = predict(f"--config={config}", without=output)
    assert status == 2
    assert line.startswith("featx predict: error: ")
    assert message in line


def test_predictions_are_not_kept(
    predict: Run, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command keeps no predictions in memory."""
    kept: list[object] = []
    original = Trainer.predict

    def spy(trainer: Trainer, *args: object, **settings: object) -> object:
        kept.append(original(trainer, *args, **settings))  # type: ignore[arg-type]
        return kept[-1]

    monkeypatch.setattr(Trainer, "predict", spy)
    assert predict()[0] == 0
    assert kept == [None]


@pytest.mark.parametrize("args", [[], ["fit"], ["inspect"], ["preprocess", "a"], ["demo", "x"]])
def test_wrong_commands(run: Run, args: list[str]) -> None:
    """Other commands end with status 2 too."""
    assert run(*args)[0] == 2


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every command tells its use, with status 0."""
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert " ".join(["usage: featx", *command]) in capsys.readouterr().out


def test_the_help_begins_with_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """Five options of the many, on the first screen; those of the Trainer come last."""
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    for option in ("data.root", "writer.output_dir", "model.backbone", "trainer.devices"):
        assert any(line.startswith(f"  --{option} ") for line in lines[:16])
    assert text.rindex("--writer.overwrite") < text.index("--trainer.accelerator")
    assert len(lines) < 560  # it does not list every module that could be a backbone


def save_nan(save: Save, root: Path) -> None:
    """A video with a NaN in its middle."""
    data = torch.zeros(1, 3, 3, 8, 8)
    data[0, 1, 1, 4, 4] = float("nan")
    save("train/b/x", data)


def write_bytes(content: bytes) -> Callable[[Save, Path], None]:
    """A file of these bytes."""

    def write(save: Save, root: Path) -> None:
        save("train/b/x", 0).write_bytes(content)

    return write


def put(data: object) -> Callable[[Save, Path], None]:
    """A file that holds this."""

    def write(save: Save, root: Path) -> None:
        save("train/b/x", data)

    return write


def truncate(save: Save, root: Path) -> None:
    """A file cut off in its middle."""
    path = save("train/b/x", random_videos(2, 4))
    path.write_bytes(path.read_bytes()[:2000])


BAD_INPUTS: dict[str, tuple[Callable[[Save, Path], None], str]] = {
    "empty": (write_bytes(b""), "an empty file"),
    "text": (write_bytes(b"hello"), "found text"),
    "truncated": (truncate, "a truncated archive"),
    "plain pickle": (write_bytes(pickle.dumps([1])), "a plain pickle"),
    "no key": (put({"frames": random_videos(1, 2)}), "the key 'videos'"),
    "3-D": (put(torch.zeros(3, 8, 8)), "found [3, 8, 8]"),
    "6-D": (put(torch.zeros(1, 1, 2, 3, 8, 8)), "found [1, 1, 2, 3, 8, 8]"),
    "channels last": (put(torch.zeros(2, 4, 8, 8, 3)), "movedim(4, 2)"),
    "C != 3": (put(torch.zeros(2, 4, 1, 8, 8)), "Only RGB"),
    "int64": (put(torch.zeros(2, 4, 3, 8, 8, dtype=torch.int64)), "torch.int64"),
    "NaN": (save_nan, "video 0, frame 1"),
    "T = 0": (put(torch.zeros(2, 0, 3, 8, 8)), "found [2, 0, 3, 8, 8]"),
    "N = 0": (put(torch.zeros(0, 2, 3, 8, 8)), "N = 0"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input(predict: Run, save: Save, root: Path, tmp_path: Path, name: str) -> None:
    """Status 1, one line that names the file, what was expected and found, and no file."""
    write, message = BAD_INPUTS[name]
    save("train/a/x", random_videos(1, 2))
    write(save, root)
    status, line = predict()
    assert status == 1
    assert f"{root / 'train/b/x/processed_data.pt'}: " in line
    assert ": expected " in line or "'videos'" in line
    assert message in line
    assert line.endswith(".")
    assert [*(tmp_path / "out").glob("*.h5")] == []
    assert [*(tmp_path / "out").glob("*.json")] == []


@pytest.mark.filterwarnings(r"ignore:.*train. 1 of 3 categories have no videos. b\\nad")
def test_several_bad_inputs(
    predict: Run, save: Save, small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each, and status 1; left out, status 0."""
    save("train/b\nad/x", 0)
    save("train/hello/c", torch.zeros(1, 2))
    capsys.readouterr()
    options = [f"--data.root={small_root}", "--model.weights=random", "--model.backbone=resnet50"]
    options += ["--trainer.accelerator=cpu", f"--writer.output_dir={tmp_path / 'out'}"]
    assert main(["predict", *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("featx predict: error: ")]
    assert errors == lines[-3:]
    assert "found 2 others" in errors[0]
    assert "b\\nad/x/processed_data.pt: " in errors[1]
    assert predict("--data.on_error=skip", "--data.splits=[train]")[0] == 0
    with h5py.File(tmp_path / "out" / "train_features_multiscale.h5") as file:
        assert len(json.loads(file.attrs["skipped"])) == 2


def test_verified_inputs(predict: Run, save: Save, root: Path, tmp_path: Path) -> None:
    """With every byte read first, a flipped bit is an error in one line."""
    path = save("train/a/x", random_videos(1, 4))
    content = bytearray(path.read_bytes())
    content[content.index(random_videos(1, 4).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    status, line = predict("--data.verify_inputs=true")
    assert status == 1
    assert f"{path}: expected a file written by torch.save, found other bytes" in line
    assert predict()[0] == 0


def test_code_in_an_input_is_not_run(predict: Run, save: Save, root: Path, tmp_path: Path) -> None:
    """A pickle that tries to run code is refused, and its code has not run."""
    evil = Evil(tmp_path / "pwned")
    for content in ({"videos": random_videos(1, 2), "evil": evil}, {"videos": evil}):
        save("train/a/x", content)
        status, line = predict()
        assert status == 1
        assert "posix.mkdir" in line
        assert not (tmp_path / "pwned").exists()


def test_missing_inputs(predict: Run, small_root: Path, tmp_path: Path) -> None:
    """No such root, no such split, no videos: status 1, and what is there instead."""
    status, line = predict(f"--data.root={tmp_path / 'none'}")
    assert status == 1
    assert f"{tmp_path / 'none'}: expected a folder, found nothing" in line
    status, line = predict("--data.splits=[dev]")
    assert status == 1
    assert "'dev', found the folders test, train, val" in line
    (tmp_path / "void/train/a/x").mkdir(parents=True)
    status, line = predict(f"--data.root={tmp_path / 'void'}")
    assert status == 1
    assert "found none. Make them from clips with: featx preprocess" in line
    assert not (tmp_path / "out").exists()


def test_bad_weights(predict: Run, small_root: Path, tmp_path: Path) -> None:
    """Weights that are not there, do not fit, or cannot be downloaded: status 1, one line."""
    status, line = predict(f"--model.weights={tmp_path / 'none.pth'}")
    assert status == 1
    assert "none.pth" in line
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    status, line = predict(f"--model.weights={tmp_path / 'other.pth'}")
    assert status == 1
    assert f"{tmp_path / 'other.pth'}: expected the state dict of this backbone, found conv" in line


def test_weights_that_cannot_be_downloaded(
    predict: Run, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, the address and two ways out are told."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("http_proxy", "http://localhost:9")
    monkeypatch.setenv("https_proxy", "http://localhost:9")
    status, line = predict("--model.weights=DEFAULT")
    assert status == 1
    assert "resnet50" in line
    assert "Download the file elsewhere and put it at" in line


def test_an_output_folder_that_cannot_be_written(
    predict: Run, small_root: Path, tmp_path: Path
) -> None:
    """The folder and the system's reason are told before the first video."""
    (tmp_path / "out").write_text("a file")
    status, line = predict()
    assert status == 1
    assert f"{tmp_path / 'out'}" in line
    assert "expected a writable place, found: " in line


def test_preprocess(run: Run, tmp_path: Path) -> None:
    """Status 0; with a clip that does not decode, status 1 and its name, the others done."""
    for name in ("a", "b"):
        (tmp_path / "raw/train/c").mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / f"raw/train/c/{name}.mp4", grey_levels(5))
    args = ("preprocess", tmp_path / "raw", tmp_path / "out", "--num_frames=2", "--image-size=8")
    assert run(*args)[0] == 0
    bad = tmp_path / "raw/train/c/bad.mp4"
    bad.write_text("broken")
    status, line = run(*args)
    assert status == 1
    assert f"{bad}: expected a clip that decodes" in line
    assert line.startswith("featx preprocess: error: 1 of 1 clips left out: ")
    data = torch.load(tmp_path / "out/train/c/c/processed_data.pt", weights_only=True)
    assert data["clips"] == ["train/c/a.mp4", "train/c/b.mp4"]
    assert data["videos"].shape == (2, 2, 3, 8, 8)


def test_inspect(predict: Run, run: Run, small_root: Path, tmp_path: Path) -> None:
    """Status 0 for a valid file, 1 for one that is not, or none."""
    predict()
    path = tmp_path / "out" / "test_features_multiscale.h5"
    assert run("inspect", path)[0] == 0
    assert run("inspect", path, "--json")[0] == 0
    with h5py.File(path, "r+") as file:
        file["labels"][0] = 9
    assert run("inspect", path)[0] == 1
    status, line = run("inspect", tmp_path / "none.h5")
    assert status == 1
    assert "none.h5: expected a feature file, found no file" in line


@pytest.mark.processes
def test_the_installed_command(tmp_path: Path) -> None:
    """`featx` and `python -m featx` run from elsewhere; an error is a line, not a traceback."""
    script = Path(sys.executable).with_name("featx")
    for command in ([str(script)], [sys.executable, "-m", "featx"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout.split()[0]) == (0, "featx")
    done = subprocess.run(
        [script, "inspect", "none.h5"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "featx inspect: error: none.h5: expected a feature file, found no file. Check the path."
    ]


def test_a_signal_that_a_library_has_made_an_error_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is that of the signal all the same."""

    def scan(args: Sequence[str], summary: str) -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except SystemExit as error:
            raise InputError("expected a file, found SystemExit") from error
        return 0

    monkeypatch.setattr("featx.commands.scan.main", scan)
    with pytest.raises(SystemExit) as ended:
        main(["scan", "x"])
    assert ended.value.code == 128 + signal.SIGINT
