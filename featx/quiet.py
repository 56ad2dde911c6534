"""Leave out what Lightning says about itself; what it says about the run stays."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = "lightning.pytorch.utilities.rank_zero"
_LINES = ("💡 Tip:", "TPU available:")
_WARNINGS = (
    ".*does not have many workers",  # as many as were measured to be best
    ".*LeafSpec",
)


@contextmanager
def without_chatter() -> Iterator[None]:
    """Run Lightning without advertisements, and without warnings that are none of the user's."""
    logger = logging.getLogger(_LOGGER)
    logger.addFilter(_is_of_the_run)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.removeFilter(_is_of_the_run)


def _is_of_the_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)
