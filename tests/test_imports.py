"""Every module can be imported, and a command imports only the libraries that it needs."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers import write_feature_file

from featx.errors import MissingDependencyError

PACKAGE = Path(__file__).parent.parent / "featx"

PROGRAM = """
import json, sys
from featx.cli import main

heavy = {"torch", "lightning", "featx.backbones.build"}
loaded = {}
for command in json.loads(sys.argv[1]):
    status = main(command)
    loaded[command[0]] = [status, *(heavy & {*sys.modules})]
print(json.dumps(loaded))
"""


def test_every_module_can_be_imported() -> None:
    """A module whose library is not installed names the library."""
    for path in PACKAGE.rglob("*.py"):
        if path.stem == "__main__":  # runs the command line
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        try:
            import_module(name.removesuffix(".__init__"))
        except MissingDependencyError as error:
            assert "expected" in str(error), name  # noqa: PT017  # it is one of few that may pass


@pytest.mark.processes
def test_commands_import_only_what_they_need(tmp_path: Path) -> None:
    """A look at files takes less than a second without torch; a scan has no Trainer or backbone."""
    path = write_feature_file(tmp_path / "train_features.h5", [3, 5])
    commands = [["inspect", path], ["status", tmp_path], ["scan", tmp_path / "nowhere"]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands, default=str)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"inspect": [0], "status": [0], "scan": [1, "torch"]}
