"""The pages in docs/: their commands and examples run as printed; their links lead somewhere."""

from pathlib import Path

import pytest
from pages import ROOT, SMALL, Page, read_page

from featx.cli import main

PAGES = [read_page(path) for path in sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.stem)
@pytest.mark.usefixtures("tiny")
def test_page_runs(
    page: Page, small_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command ends with status 0 and every example runs, on a small data set."""
    monkeypatch.chdir(tmp_path)
    small = [*SMALL["predict"], "--data.root", str(small_root), "--model.backbone", "resnet50"]
    assert main(["predict", *small, "--writer.output_dir", "features"]) == 0
    names: dict[str, object] = {}
    for example in page.examples:
        exec(compile(example, str(page.path), "exec"), names)
    for command, *args in page.commands:
        for name, folder in {"PROCESSED_DIR": str(small_root), "FEATURES_DIR": "features"}.items():
            args = [arg.replace(name, folder) for arg in args]
        assert main([command, *args, *SMALL[command]]) == 0, (command, args)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.stem)
def test_links_lead_somewhere(page: Page) -> None:
    """Every file that a page links to is there."""
    assert [path for path in page.find_links() if not path.exists()] == []


def test_every_page_is_on_the_first_one() -> None:
    """A reader of the first page finds every other one."""
    first = next(page for page in PAGES if page.path.name == "index.md")
    others = {page.path for page in PAGES} - {first.path}
    assert others <= {*first.find_links()}
