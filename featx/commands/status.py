"""`featx status`: how far a run is, from another terminal or another machine."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featx.commands.parser import ConciseParser
from featx.console import format_speed
from featx.errors import shorten
from featx.extraction.status import STATUS_FOLDER, Phase, Sign, read_signs, sum_up
from featx.features.progress import Found, find_finished
from featx.features.staged import STAGING_FOLDER
from featx.files import expand

_ORDER: tuple[Phase, ...] = ("scan", "extraction", "merging", "waiting")


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx status`; its exit status is 1 if something is unfinished, and nobody at work."""
    parser = ConciseParser(prog="featx status", description=summary)
    parser.add_argument("output_dir", type=Path, help="the folder that featx predict writes to")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object")
    given = parser.parse_args(args)
    folder = expand(given.output_dir)
    found = find_finished(folder)
    signs = read_signs(folder / STAGING_FOLDER / STATUS_FOLDER)
    now = time.time()
    is_live = any(sign.is_alive(now) for sign in signs)
    if given.as_json:
        print(json.dumps(_describe(found, signs, is_live, now), indent=2))
    else:
        print("\n".join([f"{folder}:", *_format(found, signs, is_live, now)]))
    is_done = bool(found.published) and not found.unpublished and not signs
    return 0 if is_live or is_done else 1


def _describe(found: Found, signs: Sequence[Sign], is_live: bool, now: float) -> dict[str, Any]:
    """All of it, for a program."""
    run: dict[str, Any] | None = None
    if is_live:
        overall = sum_up(signs, now)
        run = {
            "phase": _find_phase(signs, now),
            "videos": overall.videos,
            "total_videos": max(sign.total_videos for sign in signs),
            "found": max(sign.found for sign in signs),
            "frames_per_second": overall.rate,
            "seconds_left": overall.seconds_left,
            "skipped": sum(sign.skipped for sign in signs),
            "reasons": [reason for sign in signs for reason in sign.reasons],
        }
    processes = [
        asdict(sign) | {"state": _judge(sign, now), "seconds_ago": now - sign.time}
        for sign in signs
    ]
    return {"run": run, "processes": processes, **found._asdict()}


def _format(found: Found, signs: Sequence[Sign], is_live: bool, now: float) -> list[str]:
    lines = []
    if is_live:
        lines += _format_run(signs, now)
    lines += [_format_process(sign, now) for sign in signs]
    if skipped := sum(sign.skipped for sign in signs):
        reasons = [reason for sign in signs for reason in sign.reasons]
        lines.append(f"  left out so far: {skipped:,}: {shorten(reasons, 3)}")
    for name, count in found.published.items():
        what = "which cannot be read" if count is None else f"{count:,} videos"
        lines.append(f"  published: {name}, {what}")
    for name, count in found.unpublished.items():
        lines.append(f"  not published yet: {name}, {count:,} videos in parts")
    if not is_live and (found.unpublished or signs or not found.published):
        lines.append("  nobody works on it: run the same command again to go on from there")
    return lines


def _format_run(signs: Sequence[Sign], now: float) -> list[str]:
    phase = _find_phase(signs, now)
    line = f"  {phase}"
    steps = [sign.step for sign in signs if sign.step and sign.phase == phase]
    if steps:
        name, seen, total = steps[0]
        line += f", {name}: {seen:,} of {total:,}"
    if total_videos := max(sign.total_videos for sign in signs):
        overall = sum_up(signs, now)
        found = max(sign.found for sign in signs)
        line += f": {overall.videos:,} of {total_videos:,} videos"
        line += f", {found:,} found from an earlier run" * (found > 0)
        speed = format_speed(overall.rate, overall.seconds_left).removeprefix("<")
        line += f", left {speed} over the last ten minutes" * (phase == "extraction")
    return [line]


def _format_process(sign: Sign, now: float) -> str:
    state = _judge(sign, now)
    note = "" if state == "alive" else f", {state}"
    device = f", {sign.device}" if sign.device else ""
    return (
        f"  rank {sign.rank}, process {sign.pid} on {sign.host}{device}: {sign.phase}, "
        f"{sign.videos:,} videos, {sign.rate:,.1f} frames/s, {max(now - sign.time, 0):.0f} s "
        f"ago{note}"
    )


def _judge(sign: Sign, now: float) -> str:
    """What is to be thought of a process."""
    if not sign.is_alive(now) and not sign.is_elsewhere:
        return "it has ended"
    return "doubtful, for it is silent" if sign.is_silent(now) else "alive"


def _find_phase(signs: Sequence[Sign], now: float) -> Phase:
    """Where a run is: at what one of its processes does, and not at what others wait for."""
    phases = {sign.phase for sign in signs if sign.is_alive(now)}
    return next(phase for phase in _ORDER if phase in phases)
