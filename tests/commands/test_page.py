"""The page of `featx inspect --html`, in a browser and as text."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis import known
from browser import CHROMIUM, DRIVER, MISSING, open_browser, open_page, wait
from helpers import Save, grey_levels, random_videos
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from featx.analysis.overview import look_over
from featx.cli import main
from featx.commands.inspect.command import inspect
from featx.commands.inspect.page import choose_detailed, fill_template, write_page
from featx.data.manifest import ScanSettings
from featx.data.media.clip import write_clip
from featx.data.sources.processed import scan_processed
from featx.errors import OutputError, UsageError, shorten
from featx.features.folder import open_feature_files

pytestmark = pytest.mark.usefixtures("one_thread")

EVIL = "<img src=x onerror=document.title='hacked'>"
NAMES = [EVIL, "</script><script>document.title='hacked'</script>", "a&lt;b&amp; \u2028'\"`${1}"]
PLOTLY = get_plotlyjs()
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)


def make(folder: Path, root: Path, save: Save) -> Path:
    """Features of 64 videos, of which 60 are found in a root; with a leak and a wrong label."""
    rng = np.random.default_rng(0)
    names = {"train": 40, "test": 24}
    categories = {"a": 0, EVIL: 1, "c": 2}
    videos = {
        split: known.separable(rng, [i % 3 for i in range(count)], 9)
        for split, count in names.items()
    }
    videos["test"][5] = videos["train"][8]
    for split, count in names.items():
        labels = [i % 3 for i in range(count)]
        if split == "train":
            labels[4] = 2
        ids = [f"{split}/hello/a/{i}" for i in range(count)]
        if split == "test":
            ids[:3] = NAMES
        save(f"{split}/hello/a", random_videos(count, 9, seed=count))
        known.write(folder, split, videos[split], labels, ids, (), categories)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with frames, of names that would run if they could."""
    import torch

    folder = tmp_path_factory.mktemp("page")

    def save(place: str, data: object) -> Path:
        path = folder / "root" / place / "processed_data.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(data, path)
        return path

    make(folder / EVIL.replace("/", "_"), folder / "root", save)
    path = folder / "page.html"
    assert inspect(folder / EVIL.replace("/", "_"), html=path, root=folder / "root")
    return path


@pytest.fixture(scope="module")
def driver(page: Path) -> Iterator[WebDriver]:
    """A browser that shows it."""
    with open_browser() as browser:
        open_page(browser, page)
        yield browser


def run(driver: WebDriver, script: str, *arguments: object) -> Any:  # noqa: ANN401
    """What a script returns."""
    return driver.execute_script(script, *arguments)


@needs_browser
def test_it_loads_without_an_error_and_without_a_request(driver: WebDriver, page: Path) -> None:
    """Nothing is logged, only the file itself is asked for, and no name has run."""
    asked = [
        message["params"]["request"]["url"]
        for entry in driver.get_log("performance")  # type: ignore[no-untyped-call]
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    outside = {url for url in asked if not url.startswith(("data:", "blob:"))}
    assert outside == {page.as_uri()}
    assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]
    assert driver.title == EVIL.replace("/", "_")
    assert run(driver, "return document.images.length") == 0
    assert "64 of 64 videos are shown" in run(driver, "return byId('shown').textContent")


@needs_browser
def test_a_click_on_a_point(driver: WebDriver) -> None:
    """It shows the video's strip, its neighbours and the similarity of its frames."""
    place = 7
    spot = run(
        driver,
        """const [trace, point] = traces.map((t, i) => [i, t.indexOf(arguments[0])])
             .find(([, p]) => p >= 0);
           const axes = plot._fullLayout, data = plot._fullData[trace];
           return [axes.xaxis._offset + axes.xaxis.d2p(data.x[point]) - plot.clientWidth / 2,
                   axes.yaxis._offset + axes.yaxis.d2p(data.y[point]) - plot.clientHeight / 2];""",
        place,
    )
    plot = driver.find_element(By.ID, "map")
    ActionChains(driver).move_to_element_with_offset(plot, *map(round, spot)).click().perform()
    wait(driver, "return state.selected !== null")
    chosen = run(driver, "return state.selected")
    # Another point may lie on top of it.
    x, y = (
        run(driver, f"return [{place}, {chosen}].map((i) => maps[0].{axis}[i])") for axis in "xy"
    )
    assert abs(x[0] - x[1]) + abs(y[0] - y[1]) < 0.5
    facts = run(driver, "return byId('panel').textContent")
    assert run(driver, "return data.names[arguments[0]]", chosen) in facts
    assert (
        wait(driver, "const i = document.querySelector('.strip'); return i && i.naturalWidth")
        == 512
    )
    assert len(driver.find_elements(By.CSS_SELECTOR, "#panel ul.videos button")) >= 8
    assert wait(driver, "return document.querySelectorAll('#similarity .main-svg').length")
    # A neighbour is a click away, and the keyboard goes on from there.
    driver.find_element(By.CSS_SELECTOR, "#panel ul.videos button").send_keys(Keys.ENTER)
    assert run(driver, "return state.selected") == run(driver, f"return nearest({chosen})[0][0]")
    assert run(driver, "return document.activeElement.id") == "panel"
    assert run(driver, "return data.names[state.selected]") in run(
        driver, "return byId('live').textContent"
    )


@needs_browser
def test_search_filters_and_colours(driver: WebDriver) -> None:
    """A name is found as it is written, filters take videos off the map, colours follow."""
    search = driver.find_element(By.ID, "search")
    search.send_keys("ONERROR")
    hits = driver.find_elements(By.CSS_SELECTOR, "#hits button")
    assert [EVIL in hit.text for hit in hits] == [True]
    hits[0].send_keys(Keys.ENTER)
    assert EVIL in driver.find_element(By.ID, "panel").text
    search.clear()
    search.send_keys(Keys.SPACE, Keys.BACKSPACE)
    run(driver, "document.querySelectorAll('#splits input')[1].click()")
    assert "40 of 64" in driver.find_element(By.ID, "shown").text
    driver.find_element(By.ID, "none").click()
    assert driver.find_element(By.ID, "shown").text.startswith("0 of 64")
    run(driver, "document.querySelectorAll('#category-list input')[1].click()")
    assert "12 of 64" in driver.find_element(By.ID, "shown").text
    driver.find_element(By.ID, "all").click()
    run(driver, "document.querySelectorAll('#splits input')[1].click()")
    find = driver.find_element(By.ID, "find-category")
    find.send_keys("img")
    assert len(driver.find_elements(By.CSS_SELECTOR, "#category-list input")) == 1
    find.clear()
    find.send_keys(Keys.SPACE, Keys.BACKSPACE)
    for colour in range(3):
        run(driver, "document.querySelectorAll('#colours input')[arguments[0]].click()", colour)
        assert "64 of 64" in driver.find_element(By.ID, "shown").text
    legend = driver.find_element(By.ID, "trouble").text.split("\n")
    assert legend == ["nothing found", "61", "doubtful label", "1", "leak", "2"]
    run(driver, "document.querySelectorAll('#colours input')[0].click()")
    assert driver.find_element(By.ID, "trouble").text == ""
    assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]


@needs_browser
def test_what_filters_leave_as_it_is(driver: WebDriver) -> None:
    """The part of the map that is seen, and the marks; a video that they hide has no ring."""
    run(driver, "select(0); Plotly.relayout(plot, {'xaxis.range': [-1, 1]})")
    marks = run(driver, "return marks")
    run(driver, "document.querySelectorAll('#category-list input')[0].click()")
    assert run(driver, "return plot._fullLayout.xaxis.range") == [-1, 1]
    assert run(driver, "return marks") == marks
    assert run(driver, "return plot._fullData.at(-1).x.length") == 0
    run(driver, "showTab('video')")
    assert "The filters hide it" in driver.find_element(By.ID, "panel").text
    run(driver, "document.querySelectorAll('#category-list input')[0].click()")
    assert run(driver, "return plot._fullData.at(-1).x.length") == 1


@needs_browser
def test_a_long_search(driver: WebDriver) -> None:
    """Only the first hits are listed, and it is said how many there are; Enter takes the first."""
    search = driver.find_element(By.ID, "search")
    search.clear()
    search.send_keys("/")
    hits = driver.find_elements(By.CSS_SELECTOR, "#hits li")
    assert hits[0].text == "The first 50 of 62 videos."
    assert len(hits) == 51
    search.send_keys(Keys.ENTER)
    assert run(driver, "return state.selected") == 0
    search.clear()
    search.send_keys(Keys.SPACE, Keys.BACKSPACE)


@needs_browser
def test_lists_and_keys(driver: WebDriver) -> None:
    """The leak and the wrong label are listed; tabs and the map are used by keyboard."""
    driver.find_element(By.ID, "tab-leaks").click()
    panel = driver.find_element(By.ID, "panel")
    assert "train/hello/a/8" in panel.text
    assert "test/hello/a/5" in panel.text
    driver.find_element(By.ID, "tab-leaks").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "train/hello/a/4" in panel.text
    assert run(driver, "return document.activeElement.id") == "tab-doubts"
    run(driver, "select(0)")
    plot = driver.find_element(By.ID, "map")
    run(driver, "arguments[0].focus()", plot)
    plot.send_keys(Keys.ARROW_RIGHT)
    assert run(driver, "return state.selected") == 1
    plot.send_keys(Keys.ENTER)
    assert run(driver, "return state.selected") == run(driver, "return nearest(1)[0][0]")
    assert driver.title == EVIL.replace("/", "_")
    assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=20))
def test_nothing_gets_out_of_the_data(names: list[str], title: str) -> None:
    """Names come back as they were, and no text of theirs is part of the page's own markup."""
    text = fill_template(title, {"names": [*names, *NAMES]})
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    assert json.loads(found[1])["names"] == [*names, *NAMES]
    assert not set("<>&") & set(found[1])
    rest = text.replace(found[0], "")
    assert EVIL not in rest.replace("EVIL", "")
    assert len(re.findall(r"<script[ >]", rest)) == 2 + len(re.findall(r"<script[ >]", PLOTLY))
    assert html.escape(shorten([title])) in rest


def test_the_policy(page: Path) -> None:
    """The browser is told to run the page's own two scripts alone, and to fetch nothing."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.read_text("utf-8"))
    assert policy
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert policy[1].count("sha256-") == 2
    assert "unsafe-inline" not in policy[1].split(";")[1]
    assert "connect-src" not in policy[1]


def test_without_a_root(tmp_path: Path, root: Path, save: Save, capsys: Any) -> None:  # noqa: ANN401
    """There are no frames, and the same page otherwise."""
    folder = make(tmp_path / "features", root, save)
    assert inspect(folder, html=tmp_path / "page.html", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["html"].pop("path") == str(tmp_path / "page.html")
    nothing = {"with_frames": 0, "not_found": 0, "not_the_same": 0}
    assert found["html"] == {"detailed": 64, **nothing}
    assert '"strips":{}' in (tmp_path / "page.html").read_text("utf-8")


def test_where_a_page_cannot_be_written(tmp_path: Path) -> None:
    """It is said before anything is read."""
    with pytest.raises(UsageError, match=r"html: expected a name that ends in .html, found a.png"):
        inspect(tmp_path, html=tmp_path / "a.png")
    with pytest.raises(OutputError, match="expected its folder to exist"):
        inspect(tmp_path, html=tmp_path / "none/a.html")


def test_who_is_shown_in_detail(tmp_path: Path, root: Path, save: Save) -> None:
    """Those that are listed, and others evenly spaced, up to a limit."""
    overview = look_over(open_feature_files(make(tmp_path / "features", root, save)))
    chosen = choose_detailed(overview, 10)
    assert len(chosen) == 10
    assert {8, 45, 4} <= {*chosen}
    assert choose_detailed(overview) == [*range(64)]


def test_videos_that_have_changed(
    tmp_path: Path, root: Path, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of others by the same name are not shown; of how many there are none is said."""
    rng = np.random.default_rng(0)
    save("train/hello/a", random_videos(4, 9))
    [file] = scan_processed(ScanSettings(root)).files
    contents = [file.find_digest().identities[i] for i in range(4)]
    contents[1] = "0" * 64
    names = [*file.find_digest().names[:3], "train/hello/a/gone"]
    videos = known.noise(rng, [0] * 4)
    known.write(tmp_path / "features", "train", videos, [0] * 4, names, contents)
    folder, page = str(tmp_path / "features"), str(tmp_path / "page.html")
    assert main(["inspect", folder, "--html", page, "--root", str(root)]) == 0
    told = "frames of 2, 1 not found among the inputs by their names, 1 that cannot be read, or are"
    assert told in capsys.readouterr().out
    assert main(["inspect", folder, "--html", page, "--root", str(tmp_path / "nowhere")]) == 1
    assert main(["inspect", folder, "--root", str(root)]) == 2
    assert "root: expected it with html" in capsys.readouterr().err


def test_names_in_a_file_of_several_splits(
    tmp_path: Path, root: Path, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are found in any split of the inputs, if they are in one alone."""
    for split in ("train", "test"):
        save(f"{split}/hello/a", random_videos(3, 9, seed=len(split)))
    manifest = scan_processed(ScanSettings(root))
    names = [*manifest.video_ids("train"), *manifest.video_ids("test")]
    rng = np.random.default_rng(0)
    known.write(tmp_path / "a", "both", known.noise(rng, [0] * 6), [0] * 6, names)
    page = str(tmp_path / "page.html")
    assert main(["inspect", str(tmp_path / "a"), "--html", page, "--root", str(root)]) == 0
    assert "details of 6 of 6 videos, frames of 6)" in capsys.readouterr().out
    write_clip(tmp_path / "clip.mp4", grey_levels(9))
    rows = "train,clip.mp4,x\ntest,clip.mp4,x\ntrain,clip.mp4,y\n"
    (tmp_path / "clips.csv").write_text(f"split,path,id\n{rows}")
    known.write(tmp_path / "b", "both", known.noise(rng, [0] * 2), [0] * 2, ["x", "y"])
    known.write(tmp_path / "c", "test", known.noise(rng, [0]), [0], ["x"])
    for folder, told in {"b": "frames of 1, 1 not found among", "c": "frames of 1)"}.items():
        table = ["--table", str(tmp_path / "clips.csv")]
        assert main(["inspect", str(tmp_path / folder), "--html", page, *table]) == 0
        assert told in capsys.readouterr().out


def test_another_map(tmp_path: Path, root: Path, save: Save) -> None:
    """A second one is the first to be shown, where a package makes it."""
    overview = look_over(open_feature_files(make(tmp_path / "features", root, save)))
    path = tmp_path / "page.html"
    write_page(path, "a", overview, {}, {}, lambda points: points[:, 1:3])
    text = path.read_text("utf-8")
    assert re.findall(r'"name":"(\w+)","axes"', text) == ["UMAP", "PCA"]
