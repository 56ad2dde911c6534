"""The words that settings are, apart: what only asks for them need not import torch."""

from typing import Literal

SourceName = Literal["processed", "clips", "frames"]
"""What is in a data set's folder."""

LayoutName = Literal["tree", "flat"]
"""How clips lie in it."""

ScanName = Literal["full", "lazy"]
"""When inputs are opened first: before the first video, or each when its turn comes."""

OnError = Literal["stop", "skip"]
"""What becomes of a bad input."""
