"""torch.compile for a frozen CNN: the settings that measured best, and what it lacks in a line."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from featx.errors import MissingDependencyError, first_line

_OPTIONS: dict[str, str | int | bool] = {
    "triton.cudagraphs": True,  # a forward pass is one launch; without effect on a CPU
}


def compile_frozen(module: nn.Module) -> None:
    """Let a module be compiled at its first call in `frozen`, for input of one shape."""
    module.compile(dynamic=False, options=_OPTIONS)


@contextmanager
def frozen() -> Iterator[None]:
    """Call a module of `compile_frozen`, without gradients, and say in one line what that lacks.

    Its weights become constants: they are laid out for the kernels once, and activations become
    part of the convolutions before them. Not one of the options above, for these reach the
    compiler's back end alone, when its front end has already made the weights inputs; and not set
    for good, for weights that still change must not be frozen.

    Raises:
        MissingDependencyError: There is no C++ compiler, or no Triton, or it does not work.
    """
    from torch._dynamo.exc import TorchDynamoException  # these take a second to import
    from torch._inductor import config

    try:
        with config.patch(freezing=True):
            yield
    except TorchDynamoException as error:
        raise MissingDependencyError(
            "compile: expected a C++ compiler (on CUDA also Triton) that works, found: "
            f"{first_line(error)}. Install it, or set compile to false."
        ) from error
