"""The page of `featx inspect --html`: its bytes, seconds to the first picture, panning.

python tests/benchmarks/page.py FOLDER [--videos 60 2000 50000] [--categories 3 300 300]

Features are made up: categories are clouds. It also saves a picture of each page.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis import known
from browser import open_browser, open_page

from featx.commands.inspect.command import inspect

DIM = 64
_PAN = """
const done = arguments[arguments.length - 1], pad = plot.querySelector(".nsewdrag");
const box = pad.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
const send = (target, kind, at) => target.dispatchEvent(
  new MouseEvent(kind, {bubbles: true, clientX: at, clientY: y, button: 0, buttons: 1}));
const ends = performance.now() + 4000;
let frames = 0;
send(pad, "mousedown", x);
function move() {
  if (performance.now() > ends) {
    send(document, "mouseup", x);
    done(frames / 4);
    return;
  }
  frames += 1;
  send(document, "mousemove", x + 150 * Math.sin(frames / 20));
  requestAnimationFrame(move);
}
requestAnimationFrame(move);
"""
"""A person who drags the map: frames a second."""


def draw(rng: np.random.Generator, labels: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Videos of six frames."""
    centres = np.random.default_rng(0).standard_normal((int(labels.max()) + 1, DIM))
    way = np.linspace(-0.5, 0.5, 6)[:, None]
    return [
        (centres[label] + way * rng.standard_normal(DIM) + rng.standard_normal(DIM)).astype("f4")
        for label in labels
    ]


def main() -> None:
    """Make the pages, and measure them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, nargs="+", default=[60, 2000, 50_000])
    parser.add_argument("--categories", type=int, nargs="+", default=[3, 300, 300])
    settings = parser.parse_args()
    for videos, categories in zip(settings.videos, settings.categories, strict=True):
        folder = settings.folder / f"{videos}"
        rng = np.random.default_rng(videos)
        names = {f"category {i:03}": i for i in range(categories)}
        for split, share in {"train": 0.8, "test": 0.2}.items():
            labels = np.arange(round(share * videos)) % categories
            ids = [f"{split}/{label:03}/{i:06}.mp4" for i, label in enumerate(labels)]
            known.write(folder, split, draw(rng, labels), labels.tolist(), ids, categories=names)
        page = folder / "page.html"
        start = time.perf_counter()
        inspect(folder, as_json=True, html=page)
        made = time.perf_counter() - start
        with open_browser() as driver:
            first = open_page(driver, page)
            kind = driver.execute_script("return traceType")
            driver.save_screenshot(str(folder / "page.png"))
            driver.set_script_timeout(60)
            rate = driver.execute_async_script(_PAN)
        print(
            f"{videos:,} videos, {categories} categories: made in {made:.1f} s, "
            f"{page.stat().st_size / 1e6:.1f} MB, first picture after {first:.1f} s, "
            f"panning {rate:.0f} frames/s ({kind})",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
