"""The error tree: what a user did, gave or has that featx cannot work with.

Every message is one line for the person who reads it: *where: expected X, found Y. Way out.*
An error with several messages has a line for each. Each class is also the builtin that plain Python
would have raised.
"""

import difflib
import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")

PROGRAM_ERRORS = (TypeError, NameError, AttributeError)
"""Errors that a library raises for wrong arguments, and Python for a wrong name."""


class FeatxError(Exception):
    """The base of every error that featx raises on purpose.

    Attributes:
        told: Another process of the run tells the user of it.
    """

    told = False

    def __str__(self) -> str:
        """The messages, one a line; newlines and the like in names are escaped."""
        return "\n".join(map(_escape, map(str, self.args)))


class UsageError(FeatxError, ValueError):
    """A setting outside of what is accepted."""


class MissingDependencyError(FeatxError, ImportError):
    """An optional package that is not installed."""


class InputError(FeatxError, ValueError):
    """An input whose content featx does not accept."""


class MissingInputError(InputError, FileNotFoundError):
    """An input that does not exist."""


class ChangedInputError(FeatxError, RuntimeError):
    """An input that has changed since the scan, or that can no longer be read."""


class NetworkError(FeatxError, RuntimeError):
    """A server that cannot be reached, or that denies access: no fault of one input.

    It is not an OSError, for those who read a file take that for a fault of the file.
    """


class WeightsError(FeatxError, RuntimeError):
    """Weights that do not exist, cannot be downloaded, or do not fit the backbone."""


class FeatureError(FeatxError, ArithmeticError):
    """Features that are NaN or infinite."""


class OutputError(FeatxError, OSError):
    """An output that cannot be written, or that must not be overwritten."""


class IncompleteError(FeatxError, RuntimeError):
    """A run that ended without every row that was asked for."""


def combine(summary: str, errors: Sequence[InputError], limit: int) -> InputError:
    """One error that has the messages of all, after a summary if they are more than one.

    Of more than a limit, those beyond it are counted.
    """
    if len(errors) == 1:
        return errors[0]
    lines = [line for error in errors[:limit] for line in error.args]
    if len(errors) > limit:
        lines.append(f"... and {len(errors) - limit} more")
    return InputError(summary, *lines)


def check_at_least(minimum: int, **numbers: int | None) -> None:
    """Check settings that are numbers, by name; None is a number that is not given.

    Raises:
        UsageError: One is too small.
    """
    for name, value in numbers.items():
        if value is not None and value < minimum:
            raise UsageError(f"{name}: expected {minimum} or more, found {value}.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Check a setting that is one of several words.

    Raises:
        UsageError: It is another.
    """
    if value not in choices:
        raise UsageError(f"{name}: expected {' or '.join(choices)}, found {value!r}.")


def check_known(name: str, values: Iterable[object], known: Collection[object], what: str) -> None:
    """Check a setting whose values are among those that an input has.

    Args:
        name: Of the setting.
        values: The setting.
        known: What the input has.
        what: That, in words.

    Raises:
        UsageError: A value is another; the error tells those that are alike.
    """
    for value in values:
        if value in known:
            continue
        shown = {str(item): repr(item) for item in known}
        alike = difflib.get_close_matches(str(value), shown, n=3, cutoff=0.5)
        names = " or ".join(shown[text] for text in alike)
        raise UsageError(
            f"{name}: expected {what} ({shorten([*shown.values()], 20) or 'none'}), "
            f"found {value!r}. {f'Did you mean {names}?' if names else 'Choose from these.'}"
        )


def check_collection(name: str, value: object) -> None:
    """Check a setting that has several values: text is a single one.

    Raises:
        UsageError: It has not.
    """
    if isinstance(value, str) or not isinstance(value, Collection):
        raise UsageError(f"{name}: expected a list, found {value!r}. Write [{value!r}].")


@contextmanager
def require(package: str, purpose: str) -> Iterator[None]:
    """Import an optional package inside.

    Args:
        package: Its name, as pip has it, or those of several, with spaces between.
        purpose: What needs it.

    Raises:
        MissingDependencyError: It cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        found = f"no module {error.name}" if missing else f"one that fails: {error}"
        names = package.split()
        raise MissingDependencyError(
            f"{purpose}: expected the package{'s' * (len(names) > 1)} {' and '.join(names)}, "
            f"found {found}. "
            f"Install it: pip install {package}."
        ) from error


def check_installed(module: str, package: str, purpose: str) -> None:
    """Check, before hours of work, that an optional package can be imported; see `require`."""
    with require(package, purpose):
        importlib.import_module(module)


@contextmanager
def parsing(
    refuse: Callable[[Exception], Exception], passes: tuple[type[Exception], ...] = PROGRAM_ERRORS
) -> Iterator[None]:
    """Turn any error of one call that parses the bytes of an input into an error about the input.

    Put that one call inside and nothing else: an error of featx's own code must stay what it is.

    Args:
        refuse: Makes the error about the input; the library's error is its cause.
        passes: Errors that are raised as they are. Empty for a library that raises a TypeError for
            bad bytes, too.
    """
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, (FeatxError, *passes)) else refuse(error)
        if refused is error:
            raise
        raise refused from error


def parse_each(items: Iterable[_Item], refuse: Callable[[Exception], Exception]) -> Iterator[_Item]:
    """Yield the items of a library's iterator; only its `next` is inside of `parsing`."""
    iterator = iter(items)
    while True:
        with parsing(refuse):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def first_line(error: BaseException) -> str:
    """What an error says, on one line: the system's reason, or the first line of its message."""
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(reason).partition("\n")[0].rstrip(".")


def shorten(items: Sequence[object], limit: int = 5) -> str:
    """The first items of a list, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{', '.join(_escape(str(item)) for item in items[:limit])}{more}"


def _escape(text: str) -> str:
    """Text without newlines, control characters or undecodable bytes, which names may have."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
