"""The plain loop that featx replaces, as a yardstick: every scale through the CNN, all in memory.

It is what a script would do: whole files are loaded, each temporal scale of a video goes through
the CNN by itself, features are kept until the end and written as one padded array in one call.
"""

import gc
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from featx.data.media.processed_file import FILE_NAME
from featx.extraction.temporal import scale_indices
from featx.features.feature_file import GZIP_LEVEL

_BATCH_FRAMES = 24
_FILES_PER_CLEANUP = 50


def extract_plainly(
    cnn: nn.Module, folder: Path, target: Path, scales: Sequence[float], device: torch.device
) -> None:
    """Write the features of a split, whose videos are normalized, as one file."""
    features, labels = [], []
    categories = sorted(path for path in folder.iterdir() if path.is_dir())
    with torch.no_grad():
        for label, category in enumerate(categories):
            for number, path in enumerate(sorted(category.glob(f"*/{FILE_NAME}"))):
                data = torch.load(path, map_location="cpu", weights_only=True)
                for video in data["videos"] if isinstance(data, dict) else data:
                    features.append(_extract_video(cnn, video, scales, device).numpy())
                    labels.append(label)
                if number % _FILES_PER_CLEANUP == 0:
                    torch.cuda.empty_cache()
                    gc.collect()
    lengths = [len(rows) for rows in features]
    padded = np.zeros((len(features), max(lengths), features[0].shape[1]), np.float32)
    for row, rows in zip(padded, features, strict=True):
        row[: len(rows)] = rows
    with h5py.File(target, "w") as file:
        file.create_dataset(
            "features", data=padded, compression="gzip", compression_opts=GZIP_LEVEL
        )
        file.create_dataset("labels", data=np.array(labels, np.int64))
        file.create_dataset("num_frames", data=np.array(lengths, np.int32))
        file.attrs["num_videos"], file.attrs["max_frames"], file.attrs["feature_dim"] = padded.shape
        file.attrs["category_mapping"] = json.dumps(
            {category.name: label for label, category in enumerate(categories)}
        )
        file.attrs["multi_scale"] = len(scales) > 1


def _extract_video(
    cnn: nn.Module, video: Tensor, scales: Sequence[float], device: torch.device
) -> Tensor:
    """Features `[num_frames, feature_dim]` of one video `[T, 3, H, W]`."""
    per_scale = []
    for scale in scales:
        scaled = video if scale == 1 else video[scale_indices(len(video), scale)]
        parts = [cnn(part.to(device)).cpu() for part in torch.split(scaled, _BATCH_FRAMES)]
        per_scale.append(torch.cat(parts))
    longest = max(map(len, per_scale))
    padded = [nn.functional.pad(rows, (0, 0, 0, longest - len(rows))) for rows in per_scale]
    return torch.stack(padded).mean(dim=0)
