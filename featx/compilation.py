"""torch.compile for a frozen CNN: the settings that measured best, and what it lacks in a line."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from featx.errors import MissingDependencyError, first_line

_OPTIONS: dict[str, str | int | bool] = {
    "triton.cudagraphs": True,  # a forward pass is one launch; without effect on a CPU
    "deterministic": True,  # no kernel is chosen by its time, for the choice changes the last bits
}
_MAX_SIZES = 64


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
        MissingDependencyError: It cannot be compiled: there is no C++ compiler, or no Triton.
    """
    from torch._dynamo import config as front_end  # these take a second to import
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor import config as back_end

    # At the limit, torch would go on uncompiled, and the last bits depend on the order of videos.
    limits = {"recompile_limit": _MAX_SIZES, "fail_on_recompile_limit_hit": True}
    try:
        with front_end.patch(limits), back_end.patch(freezing=True):
            yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        raise MissingDependencyError(
            "compile: expected torch.compile to work (it needs a C++ compiler, and Triton on CUDA; "
            f"and at most {_MAX_SIZES} sizes of frames), found: {first_line(error)}. "
            "Mend that, or set compile to false."
        ) from error
