"""The notebooks run, and the committed ones are executed and small."""

import json
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
from conftest import ROOT

from melgenre.data.gtzan import gtzan_metadata
from melgenre.data.synthetic.collection import GENRES, make_synthetic_collection

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {
    "WHOLE": "smoke-test",
    "TUNED": "smoke-test",
    "ARCHITECTURE": "mobilenet_v3_small",
    "MODEL": "mobilenet_v3_small",
    "SMALLER": "efficientnet_lite0",
    "LARGER": "efficientnet_lite0",
}


def with_small_settings(file):
    """A notebook with the values of `SMALL` in its settings."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in SMALL.items():
                cell.source = re.sub(rf'^{name} = "\w.*?"', f'{name} = "{value}"', cell.source,
                                     flags=re.M)  # fmt: skip
    return notebook


@pytest.fixture(scope="module")
def project(tmp_path_factory, music):
    """A copy of the files that the notebooks use, and of the notebooks with small settings."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "src").mkdir()
    (folder / "src" / "melgenre").symlink_to(ROOT / "src" / "melgenre")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / "results").mkdir()
    shutil.copy(ROOT / "results" / "published.csv", folder / "results")
    (folder / "notebooks").mkdir()
    for file in NOTEBOOKS:
        nbformat.write(with_small_settings(file), folder / "notebooks" / file.name)
    return folder


@pytest.fixture(scope="module")
def ten_per_genre(tmp_path_factory):
    """Synthetic clips with the names of gtzan-mini: ten per genre, in four genres by one artist."""
    folder = tmp_path_factory.mktemp("ten") / "gtzan-mini"
    make_synthetic_collection(folder, clips_per_genre=10, duration=8, progress=False)
    (folder / "SYNTHETIC.md").unlink()
    gtzan = sorted(gtzan_metadata()["genre"].unique())
    for synthetic, genre in zip(GENRES, gtzan, strict=True):
        for number in range(10):
            clip = folder / "genres" / synthetic / f"{synthetic}.{number:05d}.wav"
            target = folder / "gtzan" / genre / f"{genre}.{number:05d}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            clip.rename(target)
    shutil.rmtree(folder / "genres")
    return folder


def run_notebooks(project, *names):
    command = [sys.executable, "scripts/run_notebooks.py", *names]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


@pytest.mark.slow
def test_all_notebooks_run_top_to_bottom_on_a_folder_of_music(project, music, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(music))
    run = run_notebooks(project)
    assert run.returncode == 0, run.stdout + run.stderr
    for number, file in enumerate(NOTEBOOKS, start=1):
        assert f"[{number}/{len(NOTEBOOKS)}] {file.stem} ... done in" in run.stdout
        executed = nbformat.read(project / "runs" / file.name, as_version=4)
        assert all(c.execution_count for c in executed.cells if c.cell_type == "code" and c.source)
    assert "Accuracy of mobilenet_v3_small, smoke-test:" in run.stdout
    assert "Accuracy of efficientnet_lite0+efficientnet_lite0, discriminant:" in run.stdout
    assert {f.name for f in (project / "models" / "mobilenet_v3_small").iterdir()} == {
        "learner.pkl", "model.safetensors", "model.onnx", "config.json", "split.csv", "README.md",
    }  # fmt: skip


@pytest.mark.slow
def test_all_notebooks_run_on_ten_clips_per_genre(project, ten_per_genre, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(ten_per_genre))
    run = run_notebooks(project)
    assert run.returncode == 0, run.stdout + run.stderr
    # The strictest split separates artists, and its accuracy is marked as a rough estimate.
    accuracies = re.findall(r"^Accuracy of .*?, .*?: (.*)$", run.stdout, re.M)
    assert any("(random)" in accuracy for accuracy in accuracies)
    strict = [accuracy for accuracy in accuracies if "(artist-split)" in accuracy]
    assert strict
    for accuracy in strict:
        assert "not tested: blues, classical, reggae, rock; few tracks, so only" in accuracy

    def printed(name):
        cells = nbformat.read(project / "runs" / f"{name}.ipynb", as_version=4).cells
        return "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))

    assert "These tracks have no artist-filtered split" in printed("03_before_deep_learning")
    assert "Strictest split: " in printed("04_finetune_resnet34")
    assert "Too few tracks to compare initialisations" in printed("08_teach_it_your_genres")


@pytest.mark.slow
def test_a_failing_notebook_stops_the_run_with_its_cell(project, music, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(music))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, project / "failing.ipynb")
    run = run_notebooks(project, "../failing.ipynb")
    assert run.returncode == 1
    assert "failed in cell 1: ZeroDivisionError: division by zero" in run.stderr


@pytest.mark.slow
def test_only_notebooks_run_in_place_write_to_the_committed_results(project, music, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(music))
    code = "from melgenre.evaluation.results import results_folder; print(results_folder())"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    for option, folder in ([], "../runs/results"), (["--in-place"], "../results"):
        nbformat.write(notebook, project / "writing.ipynb")
        assert run_notebooks(project, *option, "../writing.ipynb").returncode == 0
        written = project if option else project / "runs"
        (cell,) = nbformat.read(written / "writing.ipynb", as_version=4).cells
        printed = [output.text for output in cell.outputs if output.name == "stdout"]
        assert printed == [f"{folder}\n"]


@pytest.mark.slow
def test_notebooks_run_in_place_keep_no_progress_bar_and_no_sliders(project, music, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(music))
    sources = [
        "from tqdm.auto import tqdm\nfor i in tqdm(range(2)):\n    print(i)",
        "import ipywidgets\nipywidgets.VBox([ipywidgets.IntSlider()])",
        "import pandas as pd\npd.Series([1, 2])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in sources])
    nbformat.write(notebook, project / "bars.ipynb")
    assert run_notebooks(project, "--in-place", "../bars.ipynb").returncode == 0
    bar, sliders, table = nbformat.read(project / "bars.ipynb", as_version=4).cells
    assert [output.text for output in bar.outputs] == ["0\n1\n"]
    assert sliders.outputs == []
    assert "text/plain" in table.outputs[0].data


@pytest.mark.slow
def test_a_folder_without_music_gives_an_error_message(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(tmp_path))
    run = run_notebooks(project)
    assert run.returncode == 1
    assert "No music in" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.fixture
def copy(tmp_path):
    """A copy of all that `make address` changes, and a function that runs it there."""
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")

    def write(address):
        command = [sys.executable, tmp_path / "scripts" / "set_address.py", address]
        return subprocess.run(command, capture_output=True, text=True)

    return tmp_path, write


def contents(folder):
    files = [folder / name for name in ("pyproject.toml", "README.md", "CITATION.cff")]
    return {file.name: file.read_text("utf-8") for file in [*files, *folder.glob("notebooks/*")]}


def test_make_address_writes_the_address_everywhere(copy):
    folder, write = copy
    assert write("somebody/of-music").returncode == 0
    for name, text in contents(folder).items():
        assert "github.com/somebody/of-music" in text or "github/somebody/of-music" in text, name
    urls = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["urls"]
    assert urls == {"Repository": "https://github.com/somebody/of-music"}
    readme = (folder / "README.md").read_text()
    for file in NOTEBOOKS:
        colab = (
            f"colab.research.google.com/github/somebody/of-music/blob/main/notebooks/{file.name}"
        )
        first, setup = json.loads((folder / "notebooks" / file.name).read_text())["cells"][:2]
        assert colab in "".join(first["source"])
        assert colab in readme
        setup = "".join(setup["source"])
        assert 'txt "melgenre[train] @ git+https://github.com/somebody/of-music"\n' in setup
        assert len([line for line in setup.splitlines() if line]) == 5
    assert "pip install git+https://github.com/somebody/of-music" in readme
    assert not re.search(r'pip install "?\.', readme)


def test_another_address_replaces_the_first_one(copy):
    folder, write = copy
    write("other.people/sounds")
    expected = contents(folder)
    write("somebody/of-music")
    assert contents(folder) != expected
    write("other.people/sounds")
    assert contents(folder) == expected
    assert write("no address").returncode == 1
    assert contents(folder) == expected


def test_without_an_address_nothing_links_to_it():
    """Whoever forks the project gets no badge that leads nowhere."""
    if "urls" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]:
        pytest.skip("this repository has its address")
    for name, text in contents(ROOT).items():
        assert "colab.research.google.com" not in text, name
        assert "OWNER" not in text, name


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
class TestCommitted:
    def test_it_is_executed_in_order_without_errors(self, file):
        cells = [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]
        assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
        assert not [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]

    def test_it_is_small_and_contains_no_path_of_a_machine(self, file):
        text = file.read_text()
        assert len(text) < 2_000_000
        assert not re.search(r"/(home|root|tmp|work|Users)/", text)

    def test_it_begins_with_what_it_takes_and_ends_with_what_comes_next(self, file):
        cells = json.loads(file.read_text())["cells"]
        first, last = ("".join(cells[at]["source"]) for at in (0, -1))
        assert "**It takes** " in first
        assert "**What you have now:** " in last
        for link in re.findall(r"\]\(([^)]*)\)", last.partition("**Next:** ")[2]):
            assert (file.parent / link).exists(), link

    def test_its_cells_are_short(self, file):
        for cell in json.loads(file.read_text())["cells"]:
            lines = [line for line in cell["source"] if line.strip()]
            assert cell["cell_type"] != "code" or len(lines) <= 15, "".join(lines)

    def test_its_set_up_is_short_and_it_imports_the_package_once(self, file):
        cells = [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]
        setup = [line for line in cells[0]["source"] if line.strip() and not line.startswith("#")]
        assert len(setup) <= 5
        text = "\n".join("".join(cell["source"]) for cell in cells)
        assert re.findall(r"^.*import.*melgenre.*$|^from melgenre.*$", text, re.M) == [
            "import melgenre as mg"
        ]

    def test_its_settings_are_tagged(self, file):
        tagged = [c for c in json.loads(file.read_text())["cells"]
                  if "parameters" in c["metadata"].get("tags", [])]  # fmt: skip
        assert len(tagged) == 1
