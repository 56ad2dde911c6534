"""Which `frames_per_forward` is right: frames a second of a video of 64 frames, uint8 to features.

    python tests/benchmarks/passes.py [--backbones resnet50 ...] [--sizes 128 ...] [--isa avx2]

The sizes of a pass take turns, and medians count. `--isa avx2` leaves the wider instructions of a
CPU unused, as older ones and laptops lack them.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from typing import Literal, cast

NUM_FRAMES = 64
ISA = {"avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}

Precision = Literal["32-true", "bf16-true"]


def measure(
    backbone: str, size: int, passes: Sequence[int], rounds: int, precision: Precision
) -> dict[int, float]:
    """Median frames a second, by `frames_per_forward`."""
    import torch

    from featx import FeatureExtractor
    from featx.backbones.runtime import keep_freed_memory

    keep_freed_memory()
    extractor = FeatureExtractor(backbone, "random")
    if precision == "bf16-true":
        extractor.to(torch.bfloat16)
    extractor.to(memory_format=torch.channels_last)
    frames = torch.randint(0, 256, (NUM_FRAMES, 3, size, size), dtype=torch.uint8)
    rates: dict[int, list[float]] = {number: [] for number in passes}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for number in passes:
                extractor.frames_per_forward = number
                begin = time.perf_counter()
                extractor(frames)
                if turn:  # the first one warms up
                    rates[number].append(NUM_FRAMES / (time.perf_counter() - begin))
    return {number: statistics.median(found) for number, found in rates.items()}


def main() -> None:
    """Print a table: a row for each backbone and size of frame."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "efficientnet_v2_s"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192, 256, 320])
    parser.add_argument("--passes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-true"])
    parser.add_argument("--isa", choices=[*ISA])
    args = parser.parse_args()
    os.environ |= ISA.get(args.isa, {})
    for backbone in args.backbones:
        for size in args.sizes:
            precision = cast(Precision, args.precision)
            found = measure(backbone, size, args.passes, args.rounds, precision)
            best = max(found.values())
            texts = [f"{n}: {rate:.1f} ({rate / best:.0%})" for n, rate in found.items()]
            print(
                f"{backbone} {size} {args.isa or ''} {args.precision}: {'  '.join(texts)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
