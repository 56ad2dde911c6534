"""Failures at every single step, by injection and for real: nothing lost, nothing false."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jobs
import pytest
from helpers import Save, extract_eagerly, is_tidy, random_videos

from featx.errors import OutputError

SCRIPT = Path(__file__).with_name("crash_loop.py")


JOBS = ["fresh", "overwrite", "update", "whole", "grown", "shards", "shifted", "cut", "joined"]


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("mode", ["SIGKILL", "EIO", "ENOSPC", "EROFS"])
def test_every_step(
    tmp_path: Path,
    mode: str,
    job: str,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """If any step fails, the published file is old or complete, and a rerun ends as it should."""
    if mode in ("ENOSPC", "EROFS") and not request.config.getoption("all_failures"):
        pytest.skip("only with --all-failures")
    status = jobs.end(jobs.run_script(SCRIPT, tmp_path, mode, job, folder=tmp_path), 400)
    printed = capfd.readouterr()
    assert status == 0, printed.err[-2000:]
    assert int(printed.out.splitlines()[-1]) > 40  # failures, each followed by a rerun


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, where the system lets one be mounted."""
    if sys.platform != "linux":
        pytest.skip("a disk in memory is mounted in this way only on Linux")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True
    )
    if b"permi" in mounted.stderr or b"superuser" in mounted.stderr:
        pytest.skip(f"the system does not let a disk be mounted: {mounted.stderr.decode()}")
    assert mounted.returncode == 0, mounted.stderr
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def extract(root: Path, out: Path) -> bytes:
    """Extract the features; the bytes of the file."""
    return extract_eagerly(root, out)["train"].read_bytes()


@pytest.fixture
def many(tiny: None, root: Path, save: Save) -> Path:
    """Twenty videos, each in a part of its own."""
    save("train/a/x", random_videos(20, 40))
    return root


def test_a_disk_without_a_byte(many: Path, disk: Path) -> None:
    """Not even the lock can be written: an error in one line all the same."""
    with suppress(OSError), (disk / "filling").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OutputError, match="found: No space left on device"):
        extract(many, disk / "out")


def test_a_full_disk(
    many: Path, disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With more room each time: an error in one line, until there is enough; the same bytes."""
    expected = extract(many, tmp_path / "elsewhere")
    found = []
    for size in range(32, 1024, 32):
        subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        try:
            assert extract(many, disk / "out") == expected
            break
        except OutputError as error:
            found.append(str(error))
            parts_are_left = any(disk.rglob("part-*.h5"))
            assert ("Finished videos are safe in" in caplog.text) == parts_are_left
            caplog.clear()
            assert not [*disk.glob("out/*.h5")]
    else:
        raise AssertionError("never enough")
    assert any("No space left on device" in message for message in found)
    assert any("of free disk space for the merge" in message for message in found)
    assert is_tidy(disk / "out")
