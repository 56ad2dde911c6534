"""The LightningModule: each frame passes the frozen backbone once, and scales gather from that."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from multiprocessing import current_process
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING, Any, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from featx.backbones.build import build_backbone, wrap_module
from featx.backbones.runtime import (
    compile_frozen,
    float32_precision,
    frozen,
    imitates_bfloat16,
    keep_freed_memory,
    num_threads,
)
from featx.backbones.transforms import IMAGENET_MEAN, IMAGENET_STD
from featx.backbones.weights import state_dict_sha256
from featx.data.batches import VideoBatch
from featx.errors import UsageError, check_at_least, check_choice
from featx.extraction.temporal import DEFAULT_SCALES, ScaleAlign, ScaleAverage, average_scales

_MAX_SCALE = 100
_CHANGED = ", changed since"  # appended to the name of weights that were replaced later
_HALF = {"bf16-true": torch.bfloat16, "16-true": torch.float16}

if TYPE_CHECKING:
    BackboneChoice = str | nn.Module
else:
    BackboneChoice = str  # because the command line would offer every module class there is


class FeatureExtractor(LightningModule):
    """A frozen CNN that turns videos into per-frame features, averaged over temporal scales.

    Args:
        backbone: resnet50, resnet101, efficientnet_v2_s, efficientnet_v2_m, efficientnet_lite0, any
            other of torchvision's classification models, timm:<name>, or a module of your own.
        weights: A torchvision weights name (DEFAULT, IMAGENET1K_V1, ...), the path of a local
            state dict (with or without the head) or of a checkpoint that has one, or random
            (seeded; for tests and demos).
        multi_scale: Average over `scales`; otherwise, use only the video's own length (scale 1).
        scales: Temporal scales, relative to a video's own length.
        frames_per_forward: Frames per forward pass. All passes have this shape; the last one is
            padded. A smaller number takes less memory.
        compile: Compile the backbone with torch.compile. It takes half a minute once, and needs a
            C++ compiler, and Triton on CUDA.
        allow_tf32: On CUDA, let float32 convolutions and matrix products round their operands to
            the 10 bits of TF32: faster, with a relative error of about 1e-3.
        input_size: Height and width to which frames are resized. By default, the five backbones
            above and modules of your own take frames as they are, and others the size that their
            weights were made for.
        feature_dim: Number of features per frame, for a module of your own.
        scale_average: Divisor of a row. zeros: the number of all scales, so that the last rows,
            which shorter scales do not reach, have a smaller norm. present: the number of scales
            that reach the row.
        scale_align: Which frames of the scales make a row. index: frames of the same index, though
            they show different moments. time: frames of the same moment, so that every scale
            reaches every row. The number of rows and of passes is the same.

    Raises:
        UsageError: A setting is out of its range.
        WeightsError: The weights do not exist, cannot be downloaded, or do not fit.
        MissingDependencyError: The package that the backbone comes from is not installed.
    """

    def __init__(
        self,
        backbone: BackboneChoice = "efficientnet_v2_m",
        weights: str = "DEFAULT",
        multi_scale: bool = True,
        scales: Sequence[float] = DEFAULT_SCALES,
        frames_per_forward: int = 32,
        compile: bool = False,
        allow_tf32: bool = False,
        input_size: int | None = None,
        feature_dim: int | None = None,
        scale_average: ScaleAverage = "zeros",
        scale_align: ScaleAlign = "index",
    ) -> None:
        super().__init__()
        if not scales or not all(0 < scale <= _MAX_SCALE for scale in scales):
            raise UsageError(
                f"scales: expected one or more, above 0 and up to {_MAX_SCALE}, found {[*scales]}."
            )
        check_at_least(1, frames_per_forward=frames_per_forward)
        check_at_least(1, input_size=input_size, feature_dim=feature_dim)
        check_choice("scale_average", scale_average, get_args(ScaleAverage))
        check_choice("scale_align", scale_align, get_args(ScaleAlign))
        if weights == "random":
            rank_zero_warn("weights: random. The features mean nothing; use them only for tests.")
        if isinstance(backbone, str):
            built = build_backbone(backbone, weights, input_size)
        else:
            built = wrap_module(backbone, feature_dim, weights, input_size)
        if built.note:
            rank_zero_info(built.note)
        if (built.transform.mean, built.transform.std) != (IMAGENET_MEAN, IMAGENET_STD):
            rank_zero_warn(
                f"{built.name}: frames are normalized with mean {built.transform.mean} and std "
                f"{built.transform.std}, as its weights take them, instead of ImageNet's."
            )
        self.backbone_name = built.name
        self.transform = built.transform
        self.weights = built.weights
        self.weights_sha256 = built.weights_sha256
        self.feature_dim = built.feature_dim
        self.multi_scale = multi_scale
        self.scales = tuple(map(float, scales)) if multi_scale else (1.0,)
        self.scale_average = scale_average
        self.scale_align = scale_align
        self.frames_per_forward = frames_per_forward
        self.compiled = compile
        self.allow_tf32 = allow_tf32
        self.backbone = built.module
        self._dtype_built = _find_dtype(built.module)
        # Maps the digest of the module's tensors to the name and digest of the loaded weights.
        self._known = {self._module_sha256(): (built.weights, built.weights_sha256)}
        self._frozen_sha256: str | None = None  # digest of the weights that were compiled
        self._num_threads = torch.get_num_threads()
        self._in_run: int | None = None  # threads of a forward pass on a CPU, during a run
        if compile:
            compile_frozen(self.backbone)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in eval mode for any `mode`, because the backbone is frozen."""
        return super().train(False)

    def cpu(self) -> "FeatureExtractor":
        """Do nothing after compilation for a GPU, because CUDA graphs hold addresses of weights.

        At the end of a run, Lightning would move the weights to the CPU and free their memory. The
        CUDA graphs of a second run would then read freed memory.
        """
        return self if self.compiled and self.device.type == "cuda" else super().cpu()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:  # noqa: ANN401  # torch's own, without a name
        """Load other weights, and record their digest."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._identify()
        return result

    def _identify(self) -> None:
        """Set `weights` and `weights_sha256` to the weights that are loaded now.

        Raises:
            UsageError: Other weights were compiled into the backbone.
        """
        digest = state_dict_sha256(self.backbone.state_dict())
        self.weights, self.weights_sha256 = self._known.setdefault(
            digest, (f"{self.weights.removesuffix(_CHANGED)}{_CHANGED}", digest)
        )
        if self._frozen_sha256 not in (None, self.weights_sha256):
            raise UsageError(
                "compile: expected the weights that were compiled, found others. Make a new "
                "FeatureExtractor for them."
            )

    def _module_sha256(self) -> str:
        return state_dict_sha256(self.backbone.state_dict())

    def setup(self, stage: str) -> None:
        """Identify the weights, and prepare the process for its device.

        On Linux, a process that computes on its CPU keeps the memory of freed tensors from now on:
        see `keep_freed_memory`. That cannot be undone. All other settings are restored after the
        run, unless the process was created for the run and ends with it.

        Raises:
            UsageError: An earlier run in half precision has rounded the weights.
        """
        dtype, precision = _find_dtype(self.backbone), str(self.trainer.precision)
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if on_cpu and precision.startswith("bf16") and imitates_bfloat16():
            rank_zero_warn(
                f"precision: {precision} is slow on this CPU, which has no instructions for it: "
                "several times slower than 32-true. Set precision to 32-true."
            )
        if dtype != self._dtype_built and _HALF.get(precision) != dtype:
            raise UsageError(
                f"precision: expected weights in {self._dtype_built} for {precision}, found "
                f"{dtype}, as a run in half precision leaves them. Make a new FeatureExtractor."
            )
        self._identify()
        self._in_run = None  # because an earlier run may have failed
        if isinstance(current_process(), ForkProcess):
            # Otherwise torch waits forever for the threads of the notebook it was forked from.
            torch.set_num_threads(1)
        elif on_cpu:
            # As many threads as a single process has: the sums of CPU kernels depend on the number
            # of threads, but Lightning divides the cores among its processes.
            self._in_run = self._num_threads
            keep_freed_memory()

    def teardown(self, stage: str) -> None:
        """Restore the number of threads."""
        self._in_run = None
        if _find_dtype(self.backbone) != self._dtype_built:  # the same weights, but rounded
            self._known[self._module_sha256()] = (self.weights, self.weights_sha256)

    def predict_step(self, batch: VideoBatch, batch_idx: int = 0) -> list[Tensor]:
        """Extract the features of every video of a batch.

        Args:
            batch: The videos; uint8 frames are raw RGB, floating point ones as `white` says.
            batch_idx: Not used; the batch itself records which videos it holds.

        Returns:
            One float32 tensor `[num_frames, feature_dim]` per video.

        Raises:
            UsageError: The batch is not a VideoBatch.
            FeatxError: A video could not be read, and the batch does not allow to skip it.
        """
        if not isinstance(batch, VideoBatch):
            raise UsageError(
                f"predict_step: expected a VideoBatch, found {type(batch).__name__}. Pass a "
                "VideoDataModule to the Trainer; for frames of your own, call extractor(frames)."
            )
        if batch.errors and not batch.skips:
            raise next(iter(batch.errors.values()))
        per_frame: list[Tensor] = []
        for _, group in groupby(batch.videos, key=lambda v: (v.frames.shape[1:], v.frames.dtype)):
            videos = [*group]
            frames = torch.cat([v.frames for v in videos]) if len(videos) > 1 else videos[0].frames
            lengths = [len(video.frames) for video in videos]
            per_frame += self(frames, videos[0].white).split_with_sizes(lengths)
        indices = (video.frame_index for video in batch.videos)
        scaling = self.scales, self.scale_average, self.scale_align
        return [
            average_scales(features if index is None else features[index], *scaling)
            for features, index in zip(per_frame, indices, strict=True)
        ]

    def forward(self, frames: Tensor, white: float | None = None) -> Tensor:
        """Extract features of frames of one size: `[B, 3, H, W]` to float32 `[B, feature_dim]`.

        For the values of frames and `white`, see `InputTransform`.
        """
        if self.compiled and self._frozen_sha256 is None:
            self._frozen_sha256 = self.weights_sha256
        shape = (len(frames), self.feature_dim)
        features = torch.empty(shape, dtype=torch.float32, device=frames.device)
        compiled = frozen() if self.compiled else nullcontext()
        threads = num_threads(self._in_run) if self._in_run else nullcontext()
        with float32_precision(self.allow_tf32), threads, compiled:
            for start in range(0, len(frames), self.frames_per_forward):
                part = frames[start : start + self.frames_per_forward]
                # Copied at once, because the next pass of a CUDA graph overwrites this result.
                features[start : start + len(part)] = self._forward_pass(part, white)[: len(part)]
        return features

    def _forward_pass(self, frames: Tensor, white: float | None) -> Tensor:
        """Run one pass of the fixed shape; the last frame is repeated as padding."""
        padding = self.frames_per_forward - len(frames)
        if padding:
            frames = torch.cat([frames, frames[-1:].expand(padding, -1, -1, -1)])
        size = self.transform.size
        if size and frames.shape[-2:] != (size, size):
            rank_zero_warn(
                f"{self.backbone_name}: frames of {frames.shape[-2]} x {frames.shape[-1]} are "
                f"resized to {size} x {size}. Set input_size for another size."
            )
        frames = self.transform(frames, white)
        dtype = next(self.backbone.parameters(), frames).dtype
        frames = frames.to(dtype).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(frames)
        expected = (self.frames_per_forward, self.feature_dim)
        if features.shape != expected:  # only with a user's own module
            raise UsageError(
                f"{self.backbone_name}: expected features {[*expected]} of "
                f"{self.frames_per_forward} frames, found {[*features.shape]}. "
                "Pool and flatten the module's output, or set feature_dim."
            )
        return features

    def settings(self) -> dict[str, Any]:
        """The settings that the features depend on, for their record.

        A single scale is neither averaged nor aligned: the defaults are recorded then.
        """
        return {
            "backbone": self.backbone_name,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "input": self.transform._asdict(),
            "multi_scale": self.multi_scale,
            "scales": [*self.scales],
            "scale_average": self.scale_average if self.multi_scale else "zeros",
            "scale_align": self.scale_align if self.multi_scale else "index",
            "frames_per_forward": self.frames_per_forward,
            "compile": self.compiled,
            "allow_tf32": self.allow_tf32,
        }


def _find_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a module's weights."""
    return next(module.parameters(), torch.empty(0, dtype=torch.float32)).dtype
