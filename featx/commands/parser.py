"""A parser that answers a mistake with one line: what is wrong, and what is accepted."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

# What jsonargparse says of unknown options; if it says something else, the hint is left out.
_UNKNOWN = re.compile(
    r"unrecognized arguments: (?P<argument>\S+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<option>[\w.]+)'"
    r"|Option '(?P<key>[\w.]+)' is not accepted"
)
_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
_LITERAL = re.compile(r"typing\.Literal\[(.*?)\]")


class ConciseParser(ArgumentParser):
    """Reports a mistake in one line on standard error, with exit status 2.

    Options cannot be abbreviated, so that a misspelled one is not taken for another. They are
    accepted with dashes as well as with underscores.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  # those of jsonargparse
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(self, args: Sequence[str], **settings: Any) -> Namespace:  # type: ignore[override]  # noqa: ANN401
        """Parse arguments; dashes in the names of options become underscores."""
        return super().parse_args([_underscored(arg) for arg in args], **settings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report a mistake in one line, with what is accepted instead."""
        line = _LITERAL.sub(r"one of \1", _CLASS.sub(r"\1", " ".join(message.split())))
        line = line.replace("Expected a ", "Expected ").rstrip(".")
        found = _UNKNOWN.search(line)
        hint = self._suggest(found) if found else ""
        self.exit(2, f"{self.prog}: error: {line}. {hint}See {self.prog} --help.\n")

    def _suggest(self, found: re.Match[str]) -> str:
        """The options that are accepted in place of an unknown one."""
        argument = found["argument"]
        wrong = argument or found["key"] or f"{found['group']}.{found['option']}"
        name = wrong.lstrip("-").partition("=")[0]
        options = [
            option.removeprefix("--")
            for action in self._actions
            for option in action.option_strings
            if option.startswith("--")
            and not option.startswith("--print_")
            and not option.endswith((".help", "+"))
        ]
        close = difflib.get_close_matches(name, options, n=1)
        group = f"{name.partition('.')[0]}."
        accepted = [option for option in options if option.startswith(group)] or list(
            dict.fromkeys(re.sub(r"\..*", ".*", option) for option in options)
        )
        meant = f"Did you mean --{close[0]}? " if close else ""
        return f"{meant}Accepted: --{', --'.join(accepted)}. "


def _underscored(argument: str) -> str:
    """An option with its dashes as underscores; anything else as it is."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
