"""What `featx inspect` has found in a file, as a table that a person can read."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from featx.errors import shorten

_MAX_LISTED = 20  # categories that have a line each
_NOT_RECORDED = "not recorded"  # in files of other writers
_PROVENANCE = (
    "backbone",
    "weights",
    "weights_sha256",
    "multi_scale",
    "scales",
    "featx_version",
    "format_version",
)

_OF_RUN = ("scale_average", "scale_align")  # settings without an attribute of their own


def format_summary(summary: Mapping[str, Any]) -> str:
    """The object that `featx inspect --json` prints of a file, as a table with a verdict."""
    if "file" not in summary:  # it could not be opened
        return "\n".join([*summary["problems"], "not valid"])
    sections: dict[str, Mapping[str, object]] = {
        "structure": _describe_structure(summary),
        "provenance": _describe_provenance(summary["attributes"])
        | _describe_runs(summary["attributes"].get("runs"), summary["videos_per_run"]),
        "categories": _describe_categories(summary["videos_per_category"], summary["unlabelled"]),
        "fit": _describe_fit(summary),
    }
    rows: list[Any] = []
    for section, entries in sections.items():
        if not entries:
            continue
        if rows:
            rows.append(SEPARATING_LINE)
        rows += [
            ("" if number else section, shorten([name]), shorten([value]))
            for number, (name, value) in enumerate(entries.items())
        ]
    lines = [shorten([summary["file"]]), tabulate(rows, tablefmt="simple", disable_numparse=True)]
    lines += [f"invalid: {problem}" for problem in summary["problems"]]
    lines += [f"unfit: {misfit}" for misfit in summary["misfits"]]
    return "\n".join([*lines, _conclude(summary)])


def _describe_structure(summary: Mapping[str, Any]) -> dict[str, str]:
    statistics = ", ".join(f"{name} {value:g}" for name, value in summary["num_frames"].items())
    shape = summary["features_shape"]
    axes = ["videos", "frames", *["vectors"] * (len(shape) == 4), "features"]
    rows = {
        "features": f"{shape} {summary['dtype']} ({', '.join(axes)})",
        "num_frames": statistics or "no videos",
        "compression": f"{summary['compression']} level {summary['compression_level']}",
        "size": f"{summary['bytes'] / 2**20:.2f} MB",
    }
    if sampling := summary["sampling"]:
        rows["sampling"] = ", ".join(f"{name} {value:g}" for name, value in sampling.items())
        rows["sampling"] += ", the middle of each frame" * (summary["resize"] == "crop")
    if (times := summary["times"]) is not None:
        rows["times"] = f"{times['min']:g} to {times['max']:g} s" if times else "not known"
    for name, column in summary["columns"].items():
        more = ", ..." * (column["values"] > len(column["examples"]))
        rows[f"columns/{name}"] = f"{column['values']}: {', '.join(column['examples'])}{more}"
    if plot := summary["plot"]:
        rows["plot"] = plot["path"] if plot["drawn"] else "not drawn: nothing sound to show"
    return rows


def _describe_provenance(attributes: Mapping[str, Any]) -> dict[str, object]:
    rows = {name: attributes.get(name, _NOT_RECORDED) for name in _PROVENANCE}
    if isinstance(run := attributes.get("config"), dict):
        rows |= {name: run[name] for name in _OF_RUN if name in run}
    if skipped := attributes.get("skipped"):
        rows["left out"] = f"{len(skipped)} inputs: {shorten([*skipped])}"
    if damaged := attributes.get("damaged_videos"):
        rows["damaged"] = f"{len(damaged)} videos: {shorten([*damaged])}"
    return rows


def _describe_runs(runs: object, counts: Sequence[int]) -> dict[str, object]:
    """Which runs rows are of, if they are of several: in what these differ."""
    if not isinstance(runs, list) or len(runs) < 2 or len(runs) != len(counts):
        return {}
    names = [name for name in runs[0] if len({str(run.get(name)) for run in runs}) > 1]
    rows: dict[str, object] = {"runs": f"{len(runs)}, which differ in last bits"}
    for number, (run, count) in enumerate(zip(runs, counts, strict=True)):
        settings = ", ".join(f"{name} {run.get(name)}" for name in names)
        rows[f"  run {number}"] = f"{_count(count)}: {settings}"
    return rows


def _describe_categories(counts: Mapping[str, int], unlabelled: int) -> dict[str, str]:
    """How many videos each category has; of many categories, only the extremes."""
    if unlabelled:
        return {"number": f"{len(counts)}, and {_count(unlabelled)} without one"} | (
            {f"  {name}": _count(count) for name, count in counts.items()}
            if len(counts) <= _MAX_LISTED
            else {}
        )
    if not counts:
        return {"number": "none"}
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    fewest, most = min(counts.values()), max(counts.values())
    rows = {"number": f"{len(counts)}, with {fewest} to {most} videos each"}
    if len(counts) <= _MAX_LISTED:
        return rows | {f"  {name}": _count(count) for name, count in counts.items()}
    filled = [(name, count) for name, count in ranked if count]
    empty = [name for name, count in counts.items() if not count]
    rows["largest"] = shorten([f"{name} {count}" for name, count in filled[:5]])
    rows["smallest"] = shorten([f"{name} {count}" for name, count in filled[:-6:-1]])
    rows["empty"] = f"{len(empty)}: {shorten(empty)}" if empty else "none"
    return rows


def _count(count: int) -> str:
    return f"{count} video{'' if count == 1 else 's'}" if count else "none"


def _describe_fit(summary: Mapping[str, Any]) -> dict[str, str]:
    rows = {}
    if summary["expect_dim"] is not None:
        rows["expected"] = f"feature_dim {summary['expect_dim']}"
    if checkpoint := summary["checkpoint"]:
        rows["checkpoint"] = checkpoint["path"]
        rows["it takes"] = (
            f"feature_dim {checkpoint['feature_dim']}, by {checkpoint['source']}"
            if checkpoint["source"]
            else "unknown"
        )
    if rows:
        rows["found"] = f"feature_dim {summary['feature_dim']}"
    return rows


def _conclude(summary: Mapping[str, Any]) -> str:
    """The last line: one word, or two, for each question that was asked."""
    verdict = "valid" if summary["valid"] else "not valid"
    if summary["expect_dim"] is None and not summary["checkpoint"]:
        return verdict
    return f"{verdict}, {'unfit' if summary['misfits'] else 'fit'}"
