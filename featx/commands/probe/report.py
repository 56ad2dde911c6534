"""What probes have made of features, as an object for programs and as text for people."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from featx.analysis.probing import Probed, compare, find_weaknesses
from featx.analysis.scores import Interval, Scores
from featx.errors import shorten
from featx.features.provenance import Provenance

LINEAR = "linear"
"""The probe by which the best features are chosen, and mistakes are told."""

_MAX_LISTED = 5
_MAX_WIDTH = 24  # of a category's name


@dataclass(frozen=True, slots=True)
class Entry:
    """The features of one folder or file, and what was made of them.

    Attributes:
        path: Where they are.
        made: How they were made.
        feature_dim: Number of features per frame.
        probed: What probes made of them.
    """

    path: Path
    made: Provenance
    feature_dim: int
    probed: Probed


def find_best(entries: Sequence[Entry]) -> Entry:
    """The entry whose linear probe is right most often; the first of equally good ones."""
    return _rank(entries)[0]


def _rank(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: -entry.probed.scores[LINEAR].accuracy.value)


def describe(entries: Sequence[Entry], pool: str, seed: int) -> dict[str, Any]:
    """The object that `featx probe --json` prints."""
    report: dict[str, Any] = {
        "pool": pool,
        "seed": seed,
        "features": [
            {"name": name, **_describe_entry(entry)}
            for name, entry in zip(_name(entries), entries, strict=True)
        ],
        "comparison": None,
    }
    if len(entries) > 1:
        names = dict(zip(map(id, entries), _name(entries), strict=True))
        best, following = _rank(entries)[:2]
        difference = compare(best.probed, following.probed, LINEAR, seed)
        if difference and difference.points.value < 0:  # on the videos that both were tested on
            best, following = following, best
            difference = compare(best.probed, following.probed, LINEAR, seed)
        report["comparison"] = {
            "best": names[id(best)],
            "next": names[id(following)],
            "probe": LINEAR,
            "videos": difference.videos if difference else 0,
            "difference": difference and difference.points._asdict(),
            "more_than_chance": difference and difference.is_more_than_chance,
        }
    return report


def _describe_entry(entry: Entry) -> dict[str, Any]:
    probed = entry.probed
    weaknesses, confusions = find_weaknesses(probed, LINEAR)
    return {
        "path": str(entry.path),
        "backbone": entry.made.backbone,
        "weights": entry.made.weights,
        "weights_sha256": entry.made.weights_sha256,
        "multi_scale": entry.made.multi_scale,
        "scales": entry.made.scales,
        "feature_dim": entry.feature_dim,
        "protocol": probed.protocol.summary,
        "labelled": probed.labelled,
        "used": probed.used,
        "unlabelled": probed.unlabelled,
        "copies_in_train": probed.copies,
        "copies_left_out": probed.left_out,
        "tested": len(probed.truth),
        "categories": len(probed.categories),
        "categories_without_training": probed.unseen,
        "categories_not_sampled": probed.lost,
        "splits_not_used": probed.ignored,
        "chance": probed.chance,
        "majority": probed.majority,
        "probes": {
            name: {**_describe_scores(scores), "settings": [*map(dict, probed.settings[name])]}
            for name, scores in probed.scores.items()
        },
        "worst": [weakness._asdict() for weakness in weaknesses[:_MAX_LISTED]],
        "confusions": [confusion._asdict() for confusion in confusions[:_MAX_LISTED]],
    }


def _describe_scores(scores: Scores) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy._asdict(),
        "top_5": scores.top_5 and scores.top_5._asdict(),
        "balanced_accuracy": scores.balanced._asdict(),
    }


def _name(entries: Sequence[Entry]) -> list[str]:
    """What tells the entries apart: the ends of their paths, as short as they may be."""
    paths = [entry.path.absolute() for entry in entries]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = [os.path.join(*path.parts[-length:]) for path in paths]
        if len({*names}) == len({*paths}):
            return names
    return [*map(str, paths)]


def format_report(report: Mapping[str, Any]) -> str:
    """The report as text."""
    first, *others = report["features"]
    alike = all(other["protocol"] == first["protocol"] for other in others)
    lines = []
    for entry in [first] if alike else report["features"]:
        lines += _introduce(entry, named=not alike)
    lines += ["", _format_table(report["features"])]
    lines += [
        f"in %, with 95 % intervals of the bootstrap; pool {report['pool']}, seed {report['seed']}"
    ]
    best = first
    if comparison := report["comparison"]:
        lines += ["", _format_comparison(comparison)]
        best = next(e for e in report["features"] if e["name"] == comparison["best"])
    return "\n".join([*lines, *_format_mistakes(best, named=bool(others))])


def _introduce(entry: Mapping[str, Any], named: bool) -> list[str]:
    lines = [f"{shorten([entry['name']])}: " * named + entry["protocol"]]
    lines.append(
        f"{entry['categories']} categories; chance {_percent(entry['chance'])} %, always the "
        f"largest {_percent(entry['majority'])} %"
    )
    if entry["used"] < entry["labelled"]:
        lost = entry["categories_not_sampled"]
        without = f", without {lost:,} small categories" if lost else ""
        lines.append(
            f"an even sample: {entry['used']:,} of {entry['labelled']:,} videos{without} "
            "(--max-videos)"
        )
    if entry["splits_not_used"]:
        lines.append(f"not used: the splits {shorten(entry['splits_not_used'])}")
    if entry["unlabelled"]:
        lines.append(f"left out: {entry['unlabelled']:,} videos without a label")
    if entry["copies_left_out"]:
        lines.append(
            f"left out: {entry['copies_left_out']:,} videos that are there twice, or under two "
            "labels"
        )
    if entry["copies_in_train"]:
        lines.append(
            f"leak: {entry['copies_in_train']:,} of the {entry['tested']:,} tested videos are also "
            "learned from, which makes all figures too good (featx inspect FOLDER --duplicates)"
        )
    if unseen := entry["categories_without_training"]:
        lines.append(f"never learned, and so always wrong: {shorten(unseen)}")
    return lines


def _format_table(features: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for entry in features:
        for number, (name, scores) in enumerate(entry["probes"].items()):
            about = (
                shorten([entry["name"]]),
                f"{_show(entry['backbone'])}, {entry['feature_dim']:,}",
            )
            rows.append(
                [
                    *(about if not number else ("", "")),
                    name,
                    *(
                        _show_interval(scores[key])
                        for key in ("accuracy", "balanced_accuracy", "top_5")
                        if scores[key]
                    ),
                ]
            )
    headers = ("features", "backbone", "probe", "accuracy", "balanced", "top-5")
    width = max(map(len, rows))
    return tabulate(rows, headers[:width], disable_numparse=True)


def _format_comparison(comparison: Mapping[str, Any]) -> str:
    best, following = (shorten([comparison[name]]) for name in ("best", "next"))
    if comparison["difference"] is None:
        return (
            f"{best} and {following} cannot be compared: the videos that they were tested on have "
            "other names, other categories, or no names of their own"
        )
    points = comparison["difference"]
    if not any(points.values()):
        return f"{best} and {following} are right on the same videos ({comparison['probe']})"
    verdict = "more than chance" if comparison["more_than_chance"] else "which chance may explain"
    return (
        f"{best} is better than {following} by {_show_interval(points)} points on the same "
        f"{comparison['videos']:,} videos ({comparison['probe']}): {verdict}"
    )


def _format_mistakes(entry: Mapping[str, Any], named: bool) -> list[str]:
    """The worst categories, and what is taken for what."""
    worst = [weakness for weakness in entry["worst"] if weakness["taken_for"] is not None]
    if not worst:
        return ["", "no mistakes"]
    of = f" of {shorten([entry['name']])}" if named else ""
    rows = [
        (
            cut(weakness["category"]),
            f"{_percent(weakness['recall'])} % of {weakness['videos']}",
            cut(weakness["taken_for"]),
        )
        for weakness in worst
    ]
    confusions = [
        (cut(confusion["category"]), cut(confusion["taken_for"]), confusion["videos"])
        for confusion in entry["confusions"]
    ]
    return [
        "",
        tabulate(
            rows,
            (f"worst categories{of} ({LINEAR})", "right", "mostly taken for"),
            disable_numparse=True,
        ),
        "",
        tabulate(
            confusions, ("most frequent confusions", "taken for", "videos"), disable_numparse=True
        ),
    ]


def _show(recorded: str | None) -> str:
    """A setting, which older files do not record."""
    return "not recorded" if recorded is None else shorten([recorded])


def cut(name: str) -> str:
    """A name of a category that fits into a table."""
    name = shorten([name])
    return name if len(name) <= _MAX_WIDTH else f"{name[: _MAX_WIDTH - 1]}…"


def _show_interval(interval: Mapping[str, float]) -> str:
    value, low, high = (_percent(interval[name]) for name in Interval._fields)
    return f"{value} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
