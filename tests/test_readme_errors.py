"""The messages that the README explains are those of the package."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEADING = "## Errors and their way out"
MIN_LENGTH = 8  # of a message's longest fragment: a shorter one occurs anywhere


def read_rows() -> list[list[str]]:
    """The cells of each row of the section's tables, without their headers."""
    section = (ROOT / "README.md").read_text("utf-8").partition(f"\n{HEADING}\n")[2]
    section = section.partition("\n## ")[0]
    lines = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [line.split(" | ") for line in lines if not line.startswith("what it says")]


def read_messages() -> list[str]:
    """What the rows quote."""
    return [quote for row in read_rows() for quote in re.findall(r"`([^`]+)`", row[0])]


def read_texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module but its docstrings, with `...` in the place of values."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.JoinedStr):
            parts = (
                part.value if isinstance(part, ast.Constant) else "..." for part in node.values
            )
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        else:
            yield from read_texts(node)


def split_message(message: str) -> list[str]:
    """The fragments of a message between its values."""
    return [fragment.strip() for fragment in message.split("...") if fragment.strip()]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The texts of all modules."""
    modules = sorted((ROOT / "featx").rglob("*.py"))
    return [text for path in modules for text in read_texts(ast.parse(path.read_text("utf-8")))]


def test_every_row_is_complete() -> None:
    """Each row has a message in its first cell, and tells why and the way out."""
    rows = read_rows()
    assert rows
    assert [row for row in rows if len(row) != 3 or not all(row) or "`" not in row[0]] == []


def test_no_message_stands_twice() -> None:
    """A search for a message finds one row."""
    messages = read_messages()
    assert sorted(set(messages)) == sorted(messages)


@pytest.mark.parametrize("message", read_messages())
def test_message_is_one_of_the_package(message: str, texts: list[str]) -> None:
    """All fragments of a quoted message stand in one text of the package, in this order."""
    fragments = split_message(message)
    assert max(map(len, fragments)) >= MIN_LENGTH
    pattern = re.compile(".*?".join(map(re.escape, fragments)), re.DOTALL)
    assert any(pattern.search(text) for text in texts)
