"""Files of format 1, which do not say what each row was made of: what their record proves of it.

It is a digest of all inputs together: it proves nothing once one of them has changed, though some
may have been added.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from featx.errors import OutputError, shorten
from featx.features.feature_file import to_digests
from featx.features.finished import Source
from featx.features.staged import Inputs
from featx.features.staging import Staging


def adopt(staging: Staging, sources: list[Source], overwrite: bool) -> list[Source]:
    """Say what each row of files of format 1 was made of; files of later formats are as they were.

    Args:
        staging: What their rows may be taken for.
        sources: The files.
        overwrite: Leave out, instead of refusing, those whose record proves nothing.

    Raises:
        OutputError: A record proves nothing, and `overwrite` is off.
    """
    names = [*staging.layout.video_ids]
    adopted = []
    for source in sources:
        made = source.provenance
        if not made.is_old:
            adopted.append(source)
        elif _is_proven(staging.inputs, source, names):
            found = staging.inputs.identify(range(len(names)), False)
            made_of = dict(zip(names, to_digests(found), strict=True))
            damage = {**source.damage, **_read_old_damage(source)}
            inputs = to_digests([made_of.get(name, b"") for name in source.names])
            adopted.append(replace(source, inputs=inputs, damage=damage))
        elif not overwrite:
            raise OutputError(
                f"{source.path}: expected the inputs that it was made of, found others"
                f"{_say_what(source.names, names)}. It is of an older format, which does not "
                "tell what each row was made of: set overwrite to true to make all of them again, "
                "or choose another output_dir."
            )
    return adopted


def _is_proven(inputs: Inputs, source: Source, names: Sequence[str]) -> bool:
    """Whether the inputs of a file of format 1 are those that there are now."""
    skipped = {*(source.provenance.skipped or {})} & {*names}
    if {*source.names} - {*names}:
        return False
    # What was left out was found bad by the scan, or later.
    choices = [set[str](), skipped]
    added = set() if len(source.numbers) else {*names} - {*source.names} - skipped
    return any(inputs.digest(each, added) == source.provenance.inputs_sha256 for each in choices)


def _say_what(before: Sequence[str], now: Sequence[str]) -> str:
    """What differs, by the names of the videos, if that can be told."""
    added, gone = [*Counter(now) - Counter(before)], [*Counter(before) - Counter(now)]
    told = (("added", added), ("removed", gone))
    parts = [f"{shorten(names)} {what}" for what, names in told if names]
    return f" ({'; '.join(parts)})" * bool(parts)


def _read_old_damage(source: Source) -> dict[int, str]:
    """What is missing of the videos in a part, as format 1 has noted it beside."""
    paths = {row: source.path.parent / f"damaged-{n}.txt" for row, n in enumerate(source.numbers)}
    return {row: path.read_text("utf-8") for row, path in paths.items() if path.exists()}
