"""How float32 is multiplied, for as long as featx computes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from torch import backends


@contextmanager
def float32_precision(allow_tf32: bool) -> Iterator[None]:
    """Let float32 convolutions and matrix products round to TF32, or not; and undo it afterwards.

    The settings are the process's, and a notebook goes on with its own. torch has two names for
    each, which it keeps apart: the compiler reads the old ones, and the kernels the new ones. On a
    CPU, nothing is rounded either, unless it is allowed and the process has asked for it.
    """
    # torch declares no type for them.
    operations: tuple[Any, ...] = (
        cast(Any, backends.cudnn).conv,
        cast(Any, backends.cudnn).rnn,
        backends.cuda.matmul,
        cast(Any, backends.mkldnn).conv,
        cast(Any, backends.mkldnn).matmul,
    )
    before = [operation.fp32_precision for operation in operations]
    convolution = product = None
    with suppress(RuntimeError):  # where only the new names are in use, the old ones have no value
        convolution = backends.cudnn.allow_tf32
    with suppress(RuntimeError):
        product = torch.get_float32_matmul_precision()
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = allow_tf32
    for operation in operations:
        if not allow_tf32 and operation.fp32_precision not in ("ieee", "none"):
            operation.fp32_precision = "ieee"
        elif allow_tf32 and operation in operations[:3] and operation.fp32_precision != "tf32":
            operation.fp32_precision = "tf32"
    try:
        yield
    finally:
        if convolution is not None:
            backends.cudnn.allow_tf32 = convolution
        if product is not None:
            torch.set_float32_matmul_precision(product)
        for operation, value in zip(operations, before, strict=True):
            operation.fp32_precision = value
