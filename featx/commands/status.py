"""`featx status`: how far a run is, from another terminal or another machine."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featx.commands.parser import ConciseParser
from featx.durable import expand
from featx.errors import shorten
from featx.extraction.status import STATUS_FOLDER, Heartbeat, Phase, read_heartbeats, sum_up
from featx.features.resume import STAGING_FOLDER
from featx.features.resume.rows import FinishedCounts, count_finished
from featx.progress import format_speed

_ORDER: tuple[Phase, ...] = ("scan", "extraction", "merging", "waiting")


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx status`; returns 1 if something is unfinished and no process works on it."""
    parser = ConciseParser(prog="featx status", description=summary)
    parser.add_argument("output_dir", type=Path, help="the folder that featx predict writes to")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object")
    given = parser.parse_args(args)
    folder, now = expand(given.output_dir), time.time()
    found = count_finished(folder)
    beats = read_heartbeats(folder / STAGING_FOLDER / STATUS_FOLDER)
    run = _describe_run(beats, now)
    if given.as_json:
        processes = [
            asdict(beat) | {"state": beat.judge(now), "seconds_ago": now - beat.time}
            for beat in beats
        ]
        print(json.dumps({"run": run, "processes": processes, **found._asdict()}, indent=2))
    else:
        print("\n".join([f"{folder}:", *_format(found, beats, run, now)]))
    is_done = bool(found.published) and not found.unpublished and not beats
    return 0 if run or is_done else 1


def _describe_run(beats: Sequence[Heartbeat], now: float) -> dict[str, Any] | None:
    """Describe the run that is going on; None if none of its processes is alive."""
    phases = {beat.phase for beat in beats if beat.judge(now) == "alive"}
    if not phases:
        return None
    totals = sum_up(beats, now)
    return {
        "phase": next(phase for phase in _ORDER if phase in phases),
        "videos": totals.videos,
        "total_videos": max(beat.total_videos for beat in beats),
        "found": max(beat.found for beat in beats),
        "frames_per_second": totals.rate,
        "seconds_left": totals.seconds_left,
        "skipped": sum(beat.skipped for beat in beats),
        "reasons": [reason for beat in beats for reason in beat.reasons],
    }


def _format(
    found: FinishedCounts, beats: Sequence[Heartbeat], run: dict[str, Any] | None, now: float
) -> list[str]:
    lines = [_format_run(run)] if run else []
    lines += [_format_process(beat, now) for beat in beats]
    if skipped := sum(beat.skipped for beat in beats):
        reasons = [reason for beat in beats for reason in beat.reasons]
        lines.append(f"  skipped so far: {skipped:,}: {shorten(reasons, 3)}")
    for name, count in found.published.items():
        what = "cannot be read" if count is None else f"{count:,} videos"
        lines.append(f"  published: {name}, {what}")
    for name, count in found.unpublished.items():
        lines.append(f"  not published yet: {name}, {count:,} videos in parts")
    if not run and (found.unpublished or beats or not found.published):
        lines.append("  no process works on it: run the same command again to go on from there")
    return lines


def _format_run(run: dict[str, Any]) -> str:
    line = f"  {run['phase']}"
    if run["total_videos"]:
        line += f": {run['videos']:,} of {run['total_videos']:,} videos"
        line += f", {run['found']:,} found from an earlier run" * (run["found"] > 0)
    if run["phase"] == "extraction":
        speed = format_speed(run["frames_per_second"], run["seconds_left"])
        line += f", left {speed.removeprefix('<')}"
    return line


def _format_process(beat: Heartbeat, now: float) -> str:
    state = beat.judge(now)
    note = "" if state == "alive" else f", {state}"
    device = f", {beat.device}" if beat.device else ""
    return (
        f"  rank {beat.rank}, process {beat.pid} on {beat.host}{device}: {beat.phase}, "
        f"{beat.videos:,} videos, {beat.rate:,.1f} frames/s, {max(now - beat.time, 0):.0f} s "
        f"ago{note}"
    )
