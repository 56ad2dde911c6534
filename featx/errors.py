"""The error tree: what a person did, gave or has that featx cannot work with.

Every message is one line for the person who reads it: *where: expected X, found Y. Way out.*
Each class is also the builtin that plain Python would have raised.
"""


class FeatxError(Exception):
    """The base of every error that featx raises on purpose."""


class UsageError(FeatxError, ValueError):
    """A setting outside of what is accepted."""


class InputError(FeatxError, ValueError):
    """An input whose content featx does not accept."""


class MissingInputError(InputError, FileNotFoundError):
    """An input that is not there."""


class WeightsError(FeatxError, RuntimeError):
    """Weights that are missing, cannot be downloaded, or do not fit the backbone."""


class OutputError(FeatxError, OSError):
    """An output that cannot be written, or that must not be overwritten."""


class IncompleteError(FeatxError, RuntimeError):
    """A run that ended without every row that was asked for."""
