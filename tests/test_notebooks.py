"""Notebooks run, and are committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import featx

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook."""
    notebook: nbformat.NotebookNode = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


@pytest.mark.processes
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    """Every cell runs, in order, in an empty folder."""
    notebook = read(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    assert [*tmp_path.rglob("*_features_multiscale.h5")]
    if path.stem == "tables":
        check_tables(tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped(path: Path) -> None:
    """No output, and no count of executions, is committed."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


# Of each format: names and labels of the rows of each split, and what else is known of the first.
TABLES: dict[str, tuple[dict[str, dict[str, str | int]], dict[str, object]]] = {
    "kinetics": (
        {
            "validate": {"---QUuC4vJs": "testifying"},
            "train": {
                "--3ouPhoy2A": "eating spaghetti",
                "--4-0ihtnBU": "dribbling basketball",
            },
        },
        {"youtube_id": "---QUuC4vJs", "time_start": 84, "time_end": 94},
    ),
    "ucf101": (
        {
            "train": {
                "v_ApplyEyeMakeup_g08_c01": "ApplyEyeMakeup",
                "v_ApplyLipstick_g09_c02": "ApplyLipstick",
            },
            "test": {"v_ApplyLipstick_g01_c01": "ApplyLipstick"},
        },
        {},
    ),
    "hmdb51": (
        {
            "train": {
                "April_09_brush_hair_u_nm_np1_ba_goo_0.avi": "brush_hair",
                "50_FIRST_DATES_wave_u_cm_np1_fr_goo_30.avi": "wave",
            },
            "test": {
                "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_le_goo_0.avi": (
                    "brush_hair"
                )
            },
        },
        {},
    ),
    "something": (
        {"train": {"78687": 3, "42326": 1}},
        {"caption": "holding potato next to vicks vaporub bottle"},
    ),
    "wlasl": (
        {"train": {"69241": "book", "17710": "drink"}, "val": {"65225": "book"}},
        {"signer": 118},
    ),
    "phoenix": (
        {
            "train": {
                "11August_2010_Wednesday_tagesschau-1": -1,
                "25October_2010_Monday_tagesschau-17": -1,
            }
        },
        {
            "speaker": "Signer08",
            "orth": "JETZT WETTER MORGEN DONNERSTAG",
            "translation": "und nun die wettervorhersage für morgen donnerstag",
        },
    ),
    "how2sign": (
        {"val": {"-d5dN54tH2E_0-1-rgb_front": -1, "-d5dN54tH2E_1-1-rgb_front": -1}},
        {"sentence": "We're going to work on a arm drill."},
    ),
    "activitynet": (
        {
            "training": {
                "v_sJFgo9H6zNo.mp4#t=0.01,0.8": "Fun sliding down",
                "v_sJFgo9H6zNo.mp4#t=0.7,1.55": "Walking the dog",
            },
            "validation": {"v_V1zhqaGFY2A.mp4#t=0.2,1.4": "Walking the dog"},
        },
        {},
    ),
}


def check_tables(folder: Path) -> None:
    """The files have the rows, labels, names and order of the annotations."""
    for name, (splits, about_first) in TABLES.items():
        files = [*(folder / "features" / name).glob("*.h5")]
        assert len(files) == len(splits), name
        for number, (split, rows) in enumerate(splits.items()):
            dataset = featx.FeatureDataset(
                folder / "features" / name / f"{split}_features_multiscale.h5"
            )
            labels = [
                label if isinstance(label, int) else dataset.categories[label]
                for label in rows.values()
            ]
            assert dataset.video_ids == [*rows], name
            assert dataset.labels.tolist() == labels, name
            if number == 0:
                assert dataset[0].columns == about_first, name
