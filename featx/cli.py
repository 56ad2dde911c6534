"""The command line: `featx predict` and its sister commands, and their exit status."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from featx.errors import FeatxError, UsageError
from featx.version import __version__

_WHAT = "featx turns preprocessed videos into frozen-CNN feature files, once."

COMMANDS = {
    "predict": ("predict", "Extract the features of a data set, one feature file per split."),
    "preprocess": (
        "preprocess",
        "Turn clips into the processed_data.pt files that predict reads.",
    ),
    "scan": ("scan", "Show what a data set's folder holds, and what predict would leave out."),
    "status": ("status", "Show how far a run is, from another terminal or another machine."),
    "inspect": ("inspect.command", "Show what a feature file holds, and whether it is valid."),
    "verify": (
        "verify.command",
        "Recompute rows of a feature file, and say how far they are off.",
    ),
    "probe": ("probe.command", "Tell how good features are, side by side."),
    "merge": ("merge", "Make one file of several feature files of the same settings."),
    "export": ("export", "Write the features of each video into a file of its own."),
    "bench": (
        "bench.command",
        "Measure this machine: the plain loop, featx, and the hardware's ceiling.",
    ),
    "demo": ("demo", "Run the whole job in a minute, on clips that it makes itself."),
}
"""The module of each command in `featx.commands`, which is imported late, and what it does.

A module has `main(args, summary)`, which returns the exit status.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 if everything asked for is done, 2 for wrong usage, 1 otherwise.
    """
    parser = argparse.ArgumentParser(
        prog="featx",
        usage="featx COMMAND [options]",
        epilog="featx COMMAND --help lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"featx {__version__}")
    commands = "".join(f"\n  {name:<12}{what}" for name, (_, what) in COMMANDS.items())
    parser.description = f"{_WHAT}\n\ncommands:{commands}"
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = sys.argv[1:] if args is None else args
    if not args:
        parser.print_help(sys.stderr)
        return 2
    parsed = parser.parse_args(args)
    try:
        with _ending_at_signals():
            module, summary = COMMANDS[parsed.command]
            command = import_module(f"featx.commands.{module}")
            status: int = command.main(parsed.options, summary)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of a pipe has left; the interpreter must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FeatxError as error:
        for line in str(error).splitlines() * (not error.told):
            print(f"featx {parsed.command}: error: {line}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end a command with a status of their own, and without a traceback.

    What a library makes of that, where it was called back, is none of the command's errors.
    """
    received: list[int] = []

    def end(signum: int, frame: object) -> None:
        received.append(signum)
        raise SystemExit(128 + signum)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(signum, end) for signum in signals]
    try:
        yield
    except Exception as error:
        if received:
            raise SystemExit(128 + received[0]) from error
        raise
    finally:
        for signum, handler in zip(signals, before, strict=True):
            signal.signal(signum, handler)
