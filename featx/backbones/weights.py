"""Weights: download or read a state dict, check it, load it, identify it; or make random ones."""

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard, cast

import torch
from torch import Tensor, nn

from featx.backbones.runtime import num_threads
from featx.durable import load_tensors
from featx.errors import PROGRAM_ERRORS, WeightsError, first_line, shorten

_STEP_COUNTER = "num_batches_tracked"  # of a batch norm; it plays no part in the features
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which checkpoints have weights
# What training puts around a backbone.
_KNOWN_PREFIX = re.compile(r"((module|_orig_mod|backbone|encoder|model)\.)*")


class LoadedWeights(NamedTuple):
    """Weights that were loaded.

    Attributes:
        name: Their name, or that of their file.
        note: What was taken off them, and what was left over, in one line; empty if nothing was.
    """

    name: str
    note: str = ""


class Pretrained(NamedTuple):
    """Weights that have a name: those that can be downloaded, or that a package has.

    Attributes:
        name: Their name.
        url: Where they are.
        fetch: Returns their state dict, from the cache or from the network.
        cached: The file that a person can put there by hand, if the cache is as plain as that.
    """

    name: str
    url: str
    fetch: Callable[[], object]
    cached: Callable[[], Path] | None = None


def load_weights(
    module: nn.Module, weights: str, pretrained: Mapping[str, Pretrained], heads: Sequence[str]
) -> LoadedWeights:
    """Load weights into a module whose head has been removed.

    Args:
        module: The module.
        weights: A name in `pretrained`; or the path of a state dict, with or without the head, or
            of a checkpoint that has one as `state_dict`, `model_state_dict` or `model`. Its names
            may have prefixes: module, _orig_mod, backbone, encoder, model.
        pretrained: Those that have a name, by name.
        heads: Names of the layers that were removed.

    Raises:
        WeightsError: The weights do not exist, cannot be downloaded, or do not fit.
    """
    if weights in pretrained:
        entry = pretrained[weights]
        name, source, content = entry.name, entry.url, _download(entry)
    else:
        path = Path(weights).expanduser()
        name, source, content = path.name, str(path), _read_file(path, pretrained)
    state, note = _unwrap(content, module, heads, source)
    _load(module, _check_state_dict(state, module, source), heads, source)
    return LoadedWeights(name, f"{source}: {note}" if note else "")


def state_dict_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a state dict, sorted by name.

    It identifies the values that were loaded, whatever file they came from. Counters of training
    steps are left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.endswith(_STEP_COUNTER):
            digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _download(entry: Pretrained) -> object:
    try:
        return entry.fetch()
    except PROGRAM_ERRORS:  # of the call
        raise
    except Exception as error:  # of the network, the disk, or a corrupt file in the cache
        way_out = "Download the file elsewhere and "
        if entry.cached:
            way_out += f"put it at {entry.cached()} (if there is one already, it is damaged), or "
        raise WeightsError(
            f"{entry.url}: expected to load the weights {entry.name}, found: "
            f"{_describe(error)}. {way_out}give its path as weights."
        ) from error


def _read_file(path: Path, names: Collection[str]) -> object:
    if not path.is_file():
        known = f"one of {', '.join(names)}, random, or " if names else ""
        raise WeightsError(
            f"weights: expected {known}the path of a state dict, found no file at {path}. "
            "Check the name or the path."
        )
    try:
        return load_tensors(path)
    except Exception as error:  # one parse: torch raises any error for bytes of another kind
        raise WeightsError(
            f"{path}: expected a state dict written by torch.save, found: {_describe(error)}. "
            "Save it as torch.save(model.state_dict(), path)."
        ) from error


def _describe(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


def _unwrap(
    content: object, module: nn.Module, heads: Sequence[str], source: str
) -> tuple[object, str]:
    """The state dict in a checkpoint, named as the module names it; and what that took."""
    taken, left = [], []
    while _is_named(content) and (
        wrappers := [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    ):
        left += [str(name) for name in content if name != wrappers[0]]
        taken.append(f"the wrapper {wrappers[0]}")
        content = content[wrappers[0]]
    named: Mapping[str, object] = content if _is_named(content) else {}
    names = [name for name in named if isinstance(name, str)]
    prefixes = _find_prefixes(names, module)
    known = [prefix for prefix in prefixes if _KNOWN_PREFIX.fullmatch(prefix)]
    if prefixes and "" not in known and len(known) != 1:
        raise WeightsError(
            f"{source}: expected the names of this backbone, found them under the prefix "
            f"{' and under '.join(map(repr, prefixes))}. Take it off the names of those that you "
            "want, and save them: torch.save(state, path)."
        )
    if prefixes:
        prefix = "" if "" in known else known[0]
        taken += [f"the prefix {prefix}"] * bool(prefix)
        # A part that the backbone has not is another's. Inside of its own parts, what it has not
        # would make it another backbone.
        parts = {name.partition(".")[0] for name in (*module.state_dict(), *heads)}
        own = [
            name
            for name in names
            if name.startswith(prefix) and name.removeprefix(prefix).partition(".")[0] in parts
        ]
        left += sorted({*names} - {*own})
        versions = getattr(content, "_metadata", {})  # of the modules, some of which want theirs
        content = OrderedDict((name.removeprefix(prefix), named[name]) for name in own)
        content._metadata = {  # type: ignore[attr-defined]
            f"{name}.".removeprefix(prefix).removesuffix("."): version
            for name, version in versions.items()
        }
    notes = [f"took off {' and '.join(taken)}"] * bool(taken)
    notes += [f"left over: {shorten(left)}"] * bool(left)
    return content, "; ".join(notes)


def _is_named(content: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(content, Mapping)


def _find_prefixes(names: Sequence[str], module: nn.Module) -> list[str]:
    """What stands before all names of a module; the empty text, if nothing does."""
    own = [name for name in module.state_dict() if not name.endswith(_STEP_COUNTER)]
    if not own:
        return []
    known = {*names}
    found = {name.removesuffix(own[0]) for name in names if name.endswith(own[0])}
    return sorted(
        prefix
        for prefix in found
        if prefix in ("", f"{prefix[:-1]}.") and {prefix + name for name in own} <= known
    )


def _check_state_dict(state: object, module: nn.Module, source: str) -> Mapping[str, Tensor]:
    integers = {
        name for name, value in module.state_dict().items() if not value.is_floating_point()
    }
    plain = isinstance(state, Mapping) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and (value.is_floating_point() or name in integers or name.endswith(_STEP_COUNTER))
        for name, value in state.items()
    )
    if not plain:
        raise WeightsError(
            f"{source}: expected a state dict of floating-point tensors, found "
            f"{type(state).__name__} of something else. "
            "Save it as torch.save(model.state_dict(), path)."
        )
    return cast(Mapping[str, Tensor], state)


def _load(
    module: nn.Module, state: Mapping[str, Tensor], heads: Sequence[str], source: str
) -> None:
    """Load a state dict into a module without a head, or say in one line why it does not fit."""
    removed = tuple(f"{head}." for head in heads)
    kept = OrderedDict((n, value) for n, value in state.items() if not n.startswith(removed))
    kept._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    differences = [
        f"{name} as {[*value.shape]} instead of {[*shapes[name]]}"
        for name, value in kept.items()
        if name in shapes and value.shape != shapes[name]
    ]
    if not differences:
        try:
            result = module.load_state_dict(kept, strict=False)
        except (RuntimeError, ValueError) as error:  # of a module that wants more of them
            raise WeightsError(
                f"{source}: expected the state dict of this backbone, found: {first_line(error)}. "
                "Save it as torch.save(model.state_dict(), path)."
            ) from error
        if result.unexpected_keys:
            differences.append(f"an unknown {shorten(result.unexpected_keys, 2)}")
        if result.missing_keys:
            differences.append(f"no {shorten(result.missing_keys, 2)}")
    if differences:
        raise WeightsError(
            f"{source}: expected the state dict of this backbone, found "
            f"{shorten(differences, 3)}. Give the weights of this backbone."
        )


def build_random(build: Callable[..., nn.Module], size: int | None = None) -> nn.Module:
    """Build a CNN with seeded, calibrated random weights.

    At torchvision's plain initialization, an EfficientNet's features hardly depend on the frame.
    Batch-norm statistics calibrated on random images, as training would have done, correct that.
    The positive biases keep most activations in their linear part: around zero, rounding errors
    grow from layer to layer until they drown the features.

    Args:
        build: torchvision's builder.
        size: Height and width of the images; by default small ones, where the CNN takes any.
    """
    # On one thread, so that sums, and weights, do not depend on the number of threads.
    with num_threads(1), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = build(weights=None)
        batch_norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for layer in batch_norms:
            layer.weight.uniform_(0.6, 1.1)
            layer.bias.normal_(0.5, 0.1)
            layer.momentum = None  # the plain mean over all passes
        for name, parameter in module.named_parameters():
            if name.endswith(("layer_scale", ".gamma")):  # a ConvNeXt's blocks begin as nothing
                parameter.fill_(1)
        module.train()
        for _ in range(2 if batch_norms else 0):
            module(_random_images(16, size or 64))
    return module


def _random_images(count: int, size: int) -> Tensor:
    """Images `[count, 3, size, size]` with detail of random strength at every scale.

    Calibrated on less variety, a network overflows on frames that differ from what it has seen.
    """
    images = torch.zeros(count, 3, size, size)
    for exponent in range(size.bit_length()):
        detail = torch.randn(count, 3, 2**exponent, 2**exponent) * torch.rand(count, 1, 1, 1)
        images += nn.functional.interpolate(detail, size=size)
    return images
