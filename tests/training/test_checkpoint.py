"""Which feature_dim a model takes, by its checkpoint."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from featx.training.checkpoint import read_input_size


def save(path: Path, content: object) -> Path:
    """A file of torch.save."""
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("content", "dim", "source"),
    [
        ({"feature_dim": 7, "input_dim": 8}, 7, "feature_dim"),
        ({"input_dim": torch.tensor(8)}, 8, "input_dim"),
        ({"feature_dim": 0, "config": {"feature_dim": 9}}, 9, "config.feature_dim"),
        ({"hyper_parameters": {"feature_dim": 9}, "state_dict": {}}, 9, "hyper_parameters."),
        ({"args": {"input_dim": 9}, "model": {"fc.weight": torch.ones(2, 3)}}, 9, "args.input_dim"),
        ({"config": {"model": {"input_dim": 9}}}, 9, "config.model.input_dim"),
    ],
)
def test_a_stored_dim(tmp_path: Path, content: object, dim: int, source: str) -> None:
    """It comes before any weight, and feature_dim before input_dim."""
    size = read_input_size(save(tmp_path / "a.pt", content))
    assert size is not None
    assert size.feature_dim == dim
    assert size.source.startswith(f"the stored {source}")


class Tokens(nn.Module):
    """A model with a class token and positions before its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.ones(1, 9, 6))
        self.position = nn.Embedding(9, 6)
        self.embed = nn.Linear(5, 6)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)), "0.weight"),
        (nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)), "1.weight"),
        (nn.Sequential(nn.Conv1d(5, 3, 3)), "0.weight"),
        (nn.Sequential(nn.Conv1d(5, 5, 3, groups=5)), "0.weight"),
        (nn.GRU(5, 3, bidirectional=True), "weight_ih_l0"),
        (nn.MultiheadAttention(5, 1), "in_proj_weight"),
        (weight_norm(nn.Linear(5, 3)), "parametrizations.weight.original1"),
        (Tokens(), "embed.weight"),
        (nn.Sequential(OrderedDict(input_norm=nn.LayerNorm(5))), "input_norm.weight"),
    ],
)
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_the_first_layer(tmp_path: Path, model: nn.Module, name: str, key: str | None) -> None:
    """Of whatever kind, its weight tells the size of the features, and is named."""
    state: dict[str, Any] = model.state_dict()
    path = save(tmp_path / "a.pt", {"epoch": 3, key: state} if key else state)
    size = read_input_size(path)
    assert size is not None
    assert size.feature_dim == 5
    assert size.source.endswith(f" of {name}")
