"""The device that a benchmark runs on, and how much memory was held there."""

import platform
import resource

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from featx.errors import UsageError


def find_device(accelerator: str, precision: str = "32-true") -> torch.device:
    """The device that a Trainer takes.

    Raises:
        UsageError: It takes none, or not this precision.
    """
    try:
        trainer = Trainer(accelerator=accelerator, devices=1, precision=precision, barebones=True)  # type: ignore[arg-type]  # Lightning checks it
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error
    device = trainer.strategy.root_device
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"accelerator: expected cpu or gpu (CUDA), found {device.type}.")
    return device


def describe_device(device: torch.device) -> str:
    """What a person calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def peak_memory() -> dict[str, int]:
    """Bytes that this process has held at once so far, on the CPU and on its GPU."""
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.max_memory_reserved():
        peak["cuda"] = torch.cuda.max_memory_reserved()
    return peak
