"""What `featx bench` has measured, as a table, a plot, and recommendations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

from featx.commands.bench.measurements import Settings
from featx.commands.plotting import save_png

_NEARLY = 0.97  # of the best rate: what takes less memory is then recommended
_HEADERS = ("", "frames/s", "videos/s", "x plain loop", "of (c)", "of (d)", "peak memory", "error")


@dataclass(slots=True)
class Measurement:
    """What was measured of one backbone at one precision: rates of each round, in frames/s."""

    settings: Settings
    flop_per_frame: int = 0
    plain: list[float] = field(default_factory=list)
    featx: list[float] = field(default_factory=list)
    backbone: list[float] = field(default_factory=list)
    ceiling: list[float] = field(default_factory=list)  # in FLOP/s
    plain_memory: Mapping[str, int] = field(default_factory=dict)  # bytes, by kind of device
    featx_memory: Mapping[str, int] = field(default_factory=dict)  # without processes that read
    first_seconds: float = 0.0  # of one video, compilation included
    relative_error: float = 0.0
    passes: Mapping[int, float] = field(default_factory=dict)  # by frames_per_forward, uncompiled
    bytes_per_frame: float = 0.0  # of the published file

    @property
    def name(self) -> str:
        """The backbone and the precision."""
        return f"{self.settings.backbone}, {self.settings.precision}"

    @property
    def rates(self) -> tuple[float, float, float, float]:
        """Frames per second, medians: the plain loop, featx, the bare backbone, the ceiling."""
        return (
            median(self.plain),
            median(self.featx),
            median(self.backbone),
            median(self.ceiling) / self.flop_per_frame,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, and the ratios that the table shows."""
        plain, end_to_end, bare, ceiling = self.rates
        values = asdict(self)
        del values["settings"]["workload"]  # it is the benchmark's own
        return {
            **values,
            "featx_to_plain": end_to_end / plain,
            "featx_to_backbone": end_to_end / bare,
            "featx_to_ceiling": end_to_end / ceiling,
            "backbone_to_ceiling": bare / ceiling,
        }


def format_table(measurements: Sequence[Measurement]) -> str:
    """The contenders of each measurement, a row each."""
    rows: list[Sequence[str]] = []
    for m in measurements:
        plain, end_to_end, bare, ceiling = m.rates
        gflops = f"{median(m.ceiling) / 1e9:,.0f} GFLOP/s"
        contenders = (
            ("(a) plain loop, 32-true", plain, _megabytes(m.plain_memory), ""),
            (
                "(b) featx predict",
                end_to_end,
                _megabytes(m.featx_memory),
                f"{m.relative_error:.1e}",
            ),
            ("(c) bare backbone", bare, "", ""),
            (f"(d) matrix product, {gflops}", ceiling, "", ""),
        )
        rows.append([m.name])
        rows += [
            (
                label,
                f"{rate:,.1f}",
                f"{rate / m.settings.workload.num_frames:,.2f}",
                f"{rate / plain:.2f}",
                f"{rate / bare:.1%}",
                f"{rate / ceiling:.1%}",
                *notes,
            )
            for label, rate, *notes in contenders
        ]
    return tabulate(rows, _HEADERS, tablefmt="github", disable_numparse=True)


def recommend(
    measurements: Sequence[Measurement], reading: Mapping[int, float], num_cores: int
) -> list[str]:
    """Settings that suit the machine, a line each; `reading` is videos/s by `num_workers`."""
    lines = []
    for m in measurements:
        bare = m.rates[2]
        best = max(m.passes.values())
        size = min(n for n, rate in m.passes.items() if rate >= _NEARLY * best)
        text = f"{m.name}: model.frames_per_forward {size} ({_list(m.passes)} frames/s uncompiled)"
        eager = m.passes.get(m.settings.frames_per_forward)
        if m.settings.compile and eager:
            text += (
                f"; model.compile {str(bare * _NEARLY > eager).lower()} ({bare / eager - 1:+.0%}, "
                f"but the first run took {m.first_seconds:.0f} s)"
            )
        lines.append(text)
    for backbone in dict.fromkeys(m.settings.backbone for m in measurements):
        group = [m for m in measurements if m.settings.backbone == backbone]
        exact = min(group, key=lambda m: m.relative_error)
        fast = max(group, key=lambda m: m.rates[1])
        text = f"{backbone}: trainer.precision {exact.settings.precision}"
        if fast is not exact:
            text += (
                f"; or {fast.settings.precision}, {fast.rates[1] / exact.rates[1]:.1f} times as "
                f"fast, if a relative error of {fast.relative_error:.0e} is no matter"
            )
        lines.append(text)
    needed = max(m.rates[2] / m.settings.workload.num_frames for m in measurements)
    enough = [number for number, rate in reading.items() if rate >= 2 * needed]
    workers = min(enough, default=max(2, num_cores // 2))
    lines.append(
        f"data.num_workers {workers} ({_list(reading)} videos/s read; the fastest backbone takes "
        f"{needed:.1f})"
    )
    return lines


def estimate(
    measurements: Sequence[Measurement], num_frames: int, num_rows: int
) -> list[dict[str, Any]]:
    """How long a data set takes, and how much disk; also on the way, with the parts still there.

    `num_rows` are frames of features, that is after the temporal scales.
    """
    return [
        {
            "name": m.name,
            "seconds": num_frames / m.rates[1],
            "bytes": num_rows * m.bytes_per_frame,
            "bytes_on_the_way": 2 * num_rows * m.bytes_per_frame,
        }
        for m in measurements
    ]


def format_estimate(estimates: Sequence[Mapping[str, Any]], root: str) -> str:
    """The estimate in words, a line each."""
    return "\n".join(
        f"{root}, {row['name']}: {row['seconds'] / 3600:.2f} h on one device, feature files of "
        f"{row['bytes'] / 2**30:.2f} GB, {row['bytes_on_the_way'] / 2**30:.2f} GB on the way"
        for row in estimates
    )


def plot(measurements: Sequence[Measurement], path: Path) -> None:
    """Draw the frames per second of the contenders, side by side, as a PNG."""
    from matplotlib.figure import Figure

    labels = ("plain loop", "featx predict", "bare backbone", "matrix product")
    figure = Figure(figsize=(2 + 2 * len(measurements), 4.8), layout="constrained")
    axes = figure.subplots()
    width = 1 / (len(labels) + 1)
    for number, label in enumerate(labels):
        places = [group + number * width for group in range(len(measurements))]
        bars = axes.bar(places, [m.rates[number] for m in measurements], width, label=label)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    middle = (len(labels) - 1) / 2 * width
    axes.set_xticks(
        [group + middle for group in range(len(measurements))],
        [m.name.replace(", ", "\n") for m in measurements],
    )
    axes.set_ylabel("frames/s")
    axes.legend()
    save_png(figure, path)


def _megabytes(memory: Mapping[str, int]) -> str:
    return ", ".join(f"{size / 2**20:,.0f} MB {kind}" for kind, size in memory.items())


def _list(rates: Mapping[int, float]) -> str:
    return ", ".join(f"{number}: {rate:,.1f}" for number, rate in rates.items())
