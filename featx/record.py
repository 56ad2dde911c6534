"""What a feature file records of the run that made it, and the layout that follows from it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchvision

import featx
from featx.feature_file import FORMAT_VERSION, Layout
from featx.manifest import Manifest
from featx.temporal import output_length


def plan_layout(manifest: Manifest, split: str, feature_dim: int, run: Mapping[str, Any]) -> Layout:
    """Lay out the feature file of a split.

    Settings that leave no trace in the features (batch_size, num_workers, devices) are not
    recorded, so that the bytes of the file do not depend on them either.

    Args:
        manifest: The videos.
        split: Which split.
        feature_dim: Number of features per frame.
        run: Settings that the features depend on; those of `FeatureExtractor.settings` and more.
    """
    positions = manifest.positions[split]
    lengths = manifest.lengths[positions.start : positions.stop].tolist()
    config = {
        "root": str(manifest.root.resolve()),
        "split": split,
        **run,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    attributes = {
        "category_mapping": json.dumps(manifest.categories),
        "multi_scale": run["multi_scale"],
        "backbone": run["backbone"],
        "weights": run["weights"],
        "weights_sha256": run["weights_sha256"],
        "scales": np.array(run["scales"]),
        "featx_version": featx.__version__,
        "format_version": FORMAT_VERSION,
        "inputs_sha256": manifest.digest(split),
        "skipped": json.dumps(
            {name: str(error) for name, error in manifest.rejected[split].items()}, sort_keys=True
        ),
        "config": json.dumps(config),
    }
    return Layout.plan(
        manifest.labels(split),
        np.array([output_length(length, run["scales"]) for length in lengths], dtype=np.int32),
        manifest.video_ids(split),
        feature_dim,
        attributes,
    )
