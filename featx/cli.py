"""The command line: `featx predict` and its sister commands, and their exit status."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from featx.commands.parser import ConciseParser
from featx.errors import FeatxError, UsageError
from featx.version import __version__

_WHAT = "featx turns preprocessed videos into frozen-CNN feature files, once."


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
    commands = "".join(f"\n  {name:<12}{run.__doc__}" for name, run in COMMANDS.items())
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
            status = COMMANDS[parsed.command](parsed.options)
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
    """Let SIGINT and SIGTERM end a command with a status of their own, and without a traceback."""

    def end(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(signum, end) for signum in signals]
    try:
        yield
    finally:
        for signum, handler in zip(signals, before, strict=True):
            signal.signal(signum, handler)


def _predict(args: Sequence[str]) -> int:
    """Extract the features of a data set, one feature file per split."""
    from featx.commands.predict import predict

    predict(args)
    return 0


def _preprocess(args: Sequence[str]) -> int:
    """Turn clips into the processed_data.pt files that predict reads."""
    from featx.commands.preprocess import preprocess

    parser = ConciseParser(prog="featx preprocess", description=_preprocess.__doc__)
    parser.add_function_arguments(preprocess, as_positional=True)
    failures = preprocess(**vars(parser.parse_args(args)))
    for number, failure in enumerate(failures, start=1):
        count = f"{number} of {len(failures)} clips left out"
        print(f"featx preprocess: error: {count}: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _inspect(args: Sequence[str]) -> int:
    """Show what a feature file holds, and whether it is valid."""
    from featx.commands.inspect.command import inspect

    parser = ConciseParser(prog="featx inspect", description=_inspect.__doc__)
    parser.add_function_arguments(inspect, as_positional=True, skip={"as_json"})
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    return 0 if inspect(**vars(parser.parse_args(args))) else 1


def _verify(args: Sequence[str]) -> int:
    """Recompute rows of a feature file, and say how far they are off."""
    from featx.commands.verify.command import verify

    parser = ConciseParser(prog="featx verify", description=_verify.__doc__)
    parser.add_function_arguments(verify, as_positional=True, skip={"all", "root"})
    parser.add_argument("--root", required=True, help="the data set that the file was made from")
    parser.add_argument("--all", action="store_true", help="recompute every row")
    return 0 if verify(**vars(parser.parse_args(args))) else 1


def _demo(args: Sequence[str]) -> int:
    """Run the whole job in a minute, on clips that it makes itself."""
    from featx.commands.demo import demo

    parser = ConciseParser(prog="featx demo", description=_demo.__doc__)
    parser.add_function_arguments(demo)
    demo(**vars(parser.parse_args(args)))
    return 0


def _bench(args: Sequence[str]) -> int:
    """Measure this machine: the plain loop, featx, and the hardware's ceiling."""
    from featx.commands.bench.command import bench

    parser = ConciseParser(prog="featx bench", description=_bench.__doc__)
    parser.add_function_arguments(bench)
    bench(**vars(parser.parse_args(args)))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "predict": _predict,
    "preprocess": _preprocess,
    "inspect": _inspect,
    "verify": _verify,
    "bench": _bench,
    "demo": _demo,
}
