"""torch.compile for a frozen CNN: the settings that measured best, and what it lacks in a line."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from featx.errors import MissingDependencyError, first_line

_OPTIONS: dict[str, str | int | bool] = {
    "freezing": True,  # weights are constants: they are laid out for the kernels once
    "triton.cudagraphs": True,  # a forward pass is one launch; without effect on a CPU
}


def compile_frozen(module: nn.Module) -> None:
    """Let a module be compiled at its first call, for input of one shape, without gradients."""
    module.compile(dynamic=False, options=_OPTIONS)


@contextmanager
def compiler_needed() -> Iterator[None]:
    """Say in one line what compiling lacks.

    Raises:
        MissingDependencyError: There is no C++ compiler, or no Triton, or it does not work.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    try:
        yield
    except TorchDynamoException as error:
        raise MissingDependencyError(
            "compile: expected a C++ compiler (on CUDA also Triton) that works, found: "
            f"{first_line(error)}. Install it, or set compile to false."
        ) from error
