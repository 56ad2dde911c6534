"""The commands and examples of a page of documentation, so that tests run them as printed."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

SMALL = {
    "scan": [],
    "preprocess": ["--num-frames", "6", "--image-size", "32"],
    "predict": [
        "--model.weights=random",
        "--model.frames_per_forward=8",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
    ],
    "inspect": [],
    "probe": [],
    "verify": ["--rows", "1"],
    "merge": [],
    "export": [],
    "status": [],
}
"""Arguments that make each command small."""


class Page(NamedTuple):
    """A page in Markdown.

    Attributes:
        path: The page.
        text: Its content.
        lines: The command lines of its shell blocks, each split into words.
        examples: Its blocks of Python.
    """

    path: Path
    text: str
    lines: list[list[str]]
    examples: list[str]

    @property
    def commands(self) -> list[list[str]]:
        """The commands of featx, without the program's name."""
        return [line[1:] for line in self.lines if line and line[0] == "featx"]

    def find_links(self) -> list[Path]:
        """The files that the page links to."""
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", self.text)
        return [(self.path.parent / target).resolve() for target in targets]


def read_page(path: Path) -> Page:
    """Read a page."""
    text = path.read_text("utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [
        shlex.split(line, comments=True)
        for block in blocks
        for line in block.replace("\\\n", "").splitlines()
    ]
    return Page(path, text, lines, re.findall(r"```python\n(.*?)```", text, re.DOTALL))
