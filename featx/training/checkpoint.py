"""Checkpoints of models that are trained on features: which feature_dim a model takes."""

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from featx.durable import load_tensors
from featx.errors import InputError, MissingInputError, first_line

_NAMES = ("feature_dim", "input_dim")
_SETTINGS = ("hyper_parameters", "hparams", "config", "args", "model_config", "model", "data")
_STATE_DICTS = ("state_dict", "model_state_dict", "model")
# A layer's own matrix: of Linear, Conv1d, recurrent layers and attention, as it is or under weight
# or spectral normalization. The first is the direction in which weight normalization keeps it.
_MATRIX = re.compile(
    r"(^|\.)(weight|weight_v|weight_orig|weight_ih_l0|in_proj_weight|q_proj_weight"
    r"|parametrizations\.\w+\.original1?)$"
)
_LOOKUP = re.compile(r"(^|[._])(emb|pos([._]|ition)|token)", re.IGNORECASE)


class InputSize(NamedTuple):
    """The features that a model takes.

    Attributes:
        feature_dim: How many per frame.
        source: What in the checkpoint says so.
    """

    feature_dim: int
    source: str


def read_input_size(path: Path) -> InputSize | None:
    """Which feature_dim the model of a checkpoint takes; None if that cannot be told.

    A stored `feature_dim` or `input_dim` says it, at the top level or among the hyperparameters.
    Otherwise the first weight of a linear, convolutional, recurrent or attention layer does, and
    otherwise the length of the first normalization layer.

    Args:
        path: A state dict, or a dict that has one as `state_dict`, `model_state_dict` or `model`.

    Raises:
        MissingInputError: The file does not exist.
        InputError: torch cannot read it without executing what is in it.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: expected a checkpoint, found no file. Check the path.")
    try:
        content = load_tensors(path)
    except Exception as error:  # one parse: torch raises any error for bytes of another kind
        raise InputError(
            f"{path}: expected a checkpoint of tensors and plain values, found "
            f"{_describe(error)}. Save its state dict alone, torch.save(model.state_dict(), path), "
            "or give the feature_dim that the model takes as expect_dim."
        ) from error
    if not isinstance(content, Mapping):
        return None
    return _find_stored(content) or _find_layer(_find_state_dict(content))


def _describe(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


def _find_stored(content: Mapping[object, object]) -> InputSize | None:
    """The size under its name, as near to the top level as it is."""
    level: list[tuple[str, Mapping[object, object]]] = [("", content)]
    while level:
        for prefix, mapping in level:
            for name in _NAMES:
                if (size := _to_size(mapping.get(name))) is not None:
                    return InputSize(size, f"the stored {prefix}{name}")
        level = [
            (f"{prefix}{name}.", inner)
            for prefix, mapping in level
            for name in _SETTINGS
            if isinstance(inner := mapping.get(name), Mapping)
        ]
    return None


def _to_size(value: object) -> int | None:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point():
        value = value.item()
    return value if type(value) is int and value > 0 else None


def _find_state_dict(content: Mapping[object, object]) -> Mapping[object, object]:
    for name in _STATE_DICTS:
        if isinstance(state := content.get(name), Mapping):
            return state
    return content


def _find_layer(state: Mapping[object, object]) -> InputSize | None:
    """The size that the first layer takes."""
    norm = None
    for name, weight in _weights(state):
        shape = [*weight.shape]
        if len(shape) == 1 and norm is None:
            norm = InputSize(shape[0], f"the length of {name}")
        elif len(shape) in (2, 3) and not _is_lookup(name, shape, state):
            depthwise = len(shape) == 3 and shape[1] == 1
            return InputSize(shape[0 if depthwise else 1], f"the shape {shape} of {name}")
    return norm


def _weights(state: Mapping[object, object]) -> Iterator[tuple[str, Tensor]]:
    """The weights of layers in their order, but neither biases nor bare parameters.

    Bare parameters, such as a class token or a table of positions, are not named weight.
    """
    for name, value in state.items():
        if (
            isinstance(name, str)
            and isinstance(value, Tensor)
            and value.is_floating_point()
            and value.numel() > 1
            and _MATRIX.search(name)
        ):
            yield name, value


def _is_lookup(name: str, shape: list[int], state: Mapping[object, object]) -> bool:
    """Whether a weight is a table of embeddings: a linear layer of such a name has a bias."""
    bias = state.get(f"{name.removesuffix('weight')}bias")
    has_bias = isinstance(bias, Tensor) and [*bias.shape] == shape[:1]
    if len(shape) == 3 and shape[0] == 1:  # positions [1, T, D]
        return True
    return bool(_LOOKUP.search(name)) and not has_bias
