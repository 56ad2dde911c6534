"""What a run records of itself: in its feature files, and in the analysis beside them."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from featx.data.manifest import ANALYSIS_FILE, Manifest
from featx.data.scan_cache import ScanCache
from featx.data.storage import resolve
from featx.durable import read_json, replace_file, writing
from featx.extraction.temporal import output_length
from featx.features.feature_file import FileLayout, open_feature_file
from featx.features.provenance import Provenance
from featx.features.resume import STAGING_FOLDER
from featx.features.resume.parts import ContentLookup
from featx.features.shards import describe_structure


def plan_layout(
    manifest: Manifest,
    split: str,
    feature_dim: int,
    run: Mapping[str, Any],
    identifies: bool = True,
) -> FileLayout:
    """Lay out the feature file of a split.

    Args:
        manifest: The videos.
        split: Which split.
        feature_dim: Number of features per frame.
        run: Settings that the features depend on; those of `FeatureExtractor.settings` and more.
        identifies: Whether to say what each row is to be made of, which only who plans has to know.
    """
    positions = manifest.positions[split]
    lengths = manifest.lengths[positions.start : positions.stop]
    distinct, which = np.unique(lengths, return_inverse=True)
    num_frames = [output_length(length, run["scales"]) for length in distinct.tolist()]
    provenance = Provenance(
        categories=manifest.categories,
        multi_scale=run["multi_scale"],
        run={
            "root": resolve(manifest.root),
            "split": split,
            **run,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        skipped={name: str(error) for name, error in manifest.rejected[split].items()},
    )
    return FileLayout.plan(
        manifest.labels(split),
        np.array(num_frames, dtype=np.int32)[which],
        manifest.video_ids(split),
        feature_dim,
        provenance,
        columns=manifest.select_columns(split),
        has_times=manifest.has_times and tuple(run["scales"]) == (1.0,),
        input_sha256=manifest.identities(split)
        if identifies
        else np.broadcast_to(np.array(b"", "S64"), len(positions)),
    )


def look_up_content(manifest: Manifest, split: str, cache: ScanCache) -> ContentLookup:
    """Return the lookup of content hashes of a split's rows, where inputs have to be read.

    Args:
        manifest: The videos.
        split: Which split.
        cache: The scan cache, which also has entries of inputs that are no longer there.
    """

    def identify(rows: Collection[int], same_size: bool) -> NDArray[np.bytes_]:
        sizes = cache.find_sizes() if same_size else None
        manifest.find_digests(split, rows, sizes, progress=True, note=cache.note)
        return manifest.identities(split)

    return ContentLookup(identify, tells_content=manifest.files.tells_content)


def write_analysis(folder: Path, paths: Mapping[str, Path], manifest: Manifest) -> None:
    """Write or update the analysis beside feature files.

    Args:
        folder: The folder of the feature files; its staging folder exists.
        paths: The file of each split; splits of earlier runs keep their entries.
        manifest: The videos.
    """
    path = folder / ANALYSIS_FILE
    splits = read_json(path).get("splits")
    structures = {**splits} if isinstance(splits, dict) else {}
    for split, feature_path in paths.items():
        with open_feature_file(feature_path) as file:
            structures[split] = describe_structure(file)
    analysis = {
        "preprocessing_info": manifest.preprocessing(),
        "splits": structures,
        "scan": manifest.summary and manifest.summary.to_json(),
    }
    content = json.dumps(analysis, indent=2).encode()
    with writing(path):  # what a killed run leaves of the temporary file, the next one replaces
        replace_file(path, content, folder / STAGING_FOLDER / ANALYSIS_FILE)
