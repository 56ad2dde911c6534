"""A browser without a screen, where one is installed."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.webdriver import WebDriver

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
MISSING = "there is no chromium or no chromedriver, which Debian's packages of these names have"

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
)


@contextmanager
def open_browser(width: int = 1500, height: int = 900) -> Iterator[WebDriver]:
    """A browser whose console and whose network are logged."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for option in (*_OPTIONS, f"--window-size={width},{height}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: WebDriver, path: Path, limit: float = 120) -> float:
    """Open a page of `featx inspect --html`; the seconds until it is drawn."""
    start = time.monotonic()
    driver.get(path.resolve().as_uri())
    wait(driver, "return document.body.dataset.ready === 'true'", limit)
    return time.monotonic() - start


def wait(driver: WebDriver, script: str, limit: float = 20) -> Any:  # noqa: ANN401
    """Wait until a script returns something true, and give that."""
    end = time.monotonic() + limit
    while not (found := driver.execute_script(script)):
        if time.monotonic() > end:
            raise TimeoutError(script)
        time.sleep(0.05)
    return found
