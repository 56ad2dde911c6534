"""What featx uses of torch and Lightning that they do not promise: a new release tells at once."""

import ast
import signal
from importlib import import_module
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch._subclasses.fake_tensor import FakeTensorMode

PACKAGE = Path(__file__).parent.parent / "featx"
IMPORTED = {
    "torch._dynamo.config",
    "torch._dynamo.exc.FailOnRecompileLimitHit",
    "torch._dynamo.exc.TorchDynamoException",
    "torch._inductor.config",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    "torch.distributed.distributed_c10d._get_default_store",
    "torch.fx.experimental.optimization.fuse",
    "lightning.pytorch.strategies.launchers.subprocess_script._SubprocessScriptLauncher",
}
"""All of it that is imported, and what is said to be experimental."""


def is_private(name: str) -> bool:
    """Whether a name of torch or Lightning is not for the public."""
    library, *parts = name.split(".")
    inner = any(part == "experimental" or part.startswith("_") for part in parts)
    return library in ("torch", "lightning") and inner


def test_the_list_is_complete() -> None:
    """Nothing private is imported beside it."""
    found = {
        f"{node.module}.{alias.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name in found if is_private(name)} == IMPORTED


@pytest.mark.parametrize("name", sorted(IMPORTED))
def test_it_is_there(name: str) -> None:
    """Under the name that featx knows."""
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute)


def test_settings_of_the_compiler() -> None:
    """Those that featx sets while it compiles."""
    from torch._dynamo import config as front_end
    from torch._inductor import config as back_end

    with front_end.patch({"recompile_limit": 2, "fail_on_recompile_limit_hit": True}):
        assert (front_end.recompile_limit, front_end.fail_on_recompile_limit_hit) == (2, True)
    with back_end.patch(freezing=True):
        assert back_end.freezing


def test_the_offset_of_a_storage(tmp_path: Path) -> None:
    """A tensor without data tells where in the file its bytes are."""
    path = tmp_path / "a.pt"
    torch.save(torch.arange(5, dtype=torch.uint8), path)
    with FakeTensorMode():
        tensor = torch.load(path, weights_only=True)
    start = tensor.untyped_storage()._checkpoint_offset
    assert path.read_bytes()[start : start + 5] == bytes(range(5))


def test_the_children_of_a_run() -> None:
    """The launcher knows them and can signal them; its observer has a signal to end with."""
    assert callable(_SubprocessScriptLauncher.kill)
    environment = LightningEnvironment()
    assert _SubprocessScriptLauncher(environment, num_processes=1, num_nodes=1).procs == []
    observer = _ChildProcessObserver(main_pid=0, child_processes=[])
    assert observer._termination_signal == signal.SIGKILL
