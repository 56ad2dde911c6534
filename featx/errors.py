"""The error tree: what a user did, gave or has that featx cannot work with.

Every message is one line for the person who reads it: *where: expected X, found Y. Way out.*
Each class is also the builtin that plain Python would have raised.
"""

from collections.abc import Sequence


class FeatxError(Exception):
    """The base of every error that featx raises on purpose."""


class UsageError(FeatxError, ValueError):
    """A setting outside of what is accepted."""


class MissingDependencyError(FeatxError, ImportError):
    """An optional package that is not installed."""


class InputError(FeatxError, ValueError):
    """An input whose content featx does not accept."""


class MissingInputError(InputError, FileNotFoundError):
    """An input that does not exist."""


class WeightsError(FeatxError, RuntimeError):
    """Weights that do not exist, cannot be downloaded, or do not fit the backbone."""


class FeatureError(FeatxError, ArithmeticError):
    """Features that are NaN or infinite."""


class OutputError(FeatxError, OSError):
    """An output that cannot be written, or that must not be overwritten."""


class IncompleteError(FeatxError, RuntimeError):
    """A run that ended without every row that was asked for."""


def first_line(error: BaseException) -> str:
    """What an error says, on one line: the system's reason, or the first line of its message."""
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(reason).partition("\n")[0].rstrip(".")


def shorten(items: Sequence[object], limit: int = 5) -> str:
    """The first items of a list, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{', '.join(map(str, items[:limit]))}{more}"
