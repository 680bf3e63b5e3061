"""The notebooks on Colab: with a fake google.colab, each alone in an empty folder.

`make test-colab` runs all of these tests in an environment with Colab's versions. `make test` runs
only the first cell, with a fake pip.
"""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook
from test_notebooks import NOTEBOOKS, with_small_settings

sys.path.append(str(ROOT / "scripts"))
from set_address import add_commands  # noqa: E402

from melgenre.data.collection import DOWNLOADS
from melgenre.notebook import DRIVE_PROMPT, NO_DRIVE

FAKES = ROOT / "tests" / "colab"
ENVIRONMENT = os.environ.get("COLAB_ENVIRONMENT")  # with Colab's versions
PYTHON = Path(ENVIRONMENT, "bin", "python").absolute() if ENVIRONMENT else sys.executable
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    NotebookClient(notebook, timeout=None).execute()
finally:
    nbformat.write(notebook, sys.argv[1])
"""


def run_all(notebook, folder, source, python, **environment):
    """Run a notebook alone in a new folder, and return it with its outputs.

    As with "Run all", no cell runs after one that fails. The first cell installs from `source`, a
    URL for git, as if it were the address of the repository.
    """
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None  # remove the committed ones
    add_commands(notebook, source)
    folder.mkdir()
    file = folder / "notebook.ipynb"
    nbformat.write(notebook, file)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MELGENRE_")}
    subprocess.run(
        [python, "-c", EXECUTE, file.name], cwd=folder, env=inherited | environment,
        capture_output=True,
    )  # fmt: skip
    return nbformat.read(file, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def error(cell):
    """The text of a cell's error, or None."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    return "\n".join(errors[0].traceback) if errors else None


@pytest.fixture(scope="module")
def first_cell():
    """The cell that installs melgenre and sets up the notebook."""
    return code_cells(nbformat.read(NOTEBOOKS[0], as_version=4))[0]


class TestFirstCell:
    """The package is on the path, and a fake pip records its arguments."""

    @pytest.fixture
    def run(self, first_cell, tmp_path):
        pip = tmp_path / "bin" / "pip"
        pip.parent.mkdir()
        pip.write_text(f'#!/bin/sh\necho "$@" | tee -a {tmp_path}/pip.log\n')
        pip.chmod(0o755)

        def run(*sources, address="https://github.com/somebody/music", **environment):
            notebook = new_notebook(cells=[first_cell, *map(new_code_cell, sources)])
            return run_all(
                notebook, tmp_path / "content", address, PYTHON,
                PATH=f"{pip.parent}:{os.environ['PATH']}", PYTHONPATH=f"{FAKES}:{ROOT / 'src'}",
                **environment,
            ).cells  # fmt: skip

        return run

    @pytest.mark.slow
    def test_pip_is_constrained_to_the_installed_versions(self, run, tmp_path):
        run()
        assert (tmp_path / "content" / "installed.txt").read_text() == "list --format=freeze\n"
        assert (tmp_path / "pip.log").read_text().splitlines()[1:] == [
            "install -q -c installed.txt melgenre[train] @ git+https://github.com/somebody/music"
        ]

    @pytest.mark.slow
    def test_files_are_kept_on_google_drive_after_an_explanation(self, run, tmp_path):
        (tmp_path / "drive").mkdir()
        first, folder, download = run(
            "from melgenre.data.collection import DOWNLOADS, load_collection, project_folder\n"
            "print(project_folder())",
            'DOWNLOADS["gtzan-mini"] = "http://127.0.0.1:9/main.zip"\n'
            'load_collection("gtzan-mini")',
            COLAB_DRIVE=str(tmp_path / "drive"),
        )
        assert re.search(rf"{re.escape(DRIVE_PROMPT)}\nMounted", printed(first))
        assert printed(folder) == "drive/MyDrive/melgenre\n"
        assert error(download) == (
            "Could not download http://127.0.0.1:9/main.zip (the server cannot be reached, or the "
            "connection broke): try again, or download it with a browser and "
            "save it as drive/MyDrive/melgenre/data/gtzan-mini/main.zip."
        )

    @pytest.mark.slow
    def test_it_works_without_google_drive(self, run):
        first, folder = run(
            "from melgenre.data.collection import project_folder\nprint(project_folder())"
        )
        assert printed(first).endswith(NO_DRIVE.format("mount failed") + "\n")
        assert printed(folder) == ".\n"


@pytest.mark.slow
def test_only_errors_of_the_package_are_shown_as_sentences(tmp_path):
    cells = [
        "from melgenre.notebook import set_up\nset_up()",
        'from melgenre.data.collection import find_tracks\nfind_tracks("nowhere")',
        "%tb",
        "def divide():\n    return 1 / 0\ndivide()",
        "1",
    ]
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    for cell in notebook.cells[1:3]:
        cell.metadata["tags"] = ["raises-exception"]  # nbclient continues after these
    _, sentence, traceback, other, after = run_all(
        notebook, tmp_path / "content", "", PYTHON, PYTHONPATH=str(ROOT / "src")
    ).cells
    assert error(sentence).startswith("No folder 'nowhere'.")
    assert "find_tracks" in error(traceback)
    assert "in divide()" in re.sub(r"\x1b\[[\d;]*m", "", error(other))
    assert after.execution_count is None


@pytest.mark.slow
def test_a_cell_shows_each_warning_of_the_package_once(tmp_path):
    warn = "for _ in range(3):\n    warnings.warn(mg.MelgenreWarning('a sentence'))"
    cells = ["import warnings\nimport melgenre as mg\nmg.set_up()", warn, warn]
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    _, *warned = run_all(
        notebook, tmp_path / "content", "", PYTHON, PYTHONPATH=str(ROOT / "src")
    ).cells
    assert [printed(cell) for cell in warned] == ["a sentence\n", "a sentence\n"]


@pytest.fixture(scope="module")
def versions():
    """The site-packages of an environment with Colab's versions."""
    if not ENVIRONMENT:
        pytest.skip("needs Colab's versions: make test-colab")
    return next(Path(ENVIRONMENT).resolve().glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def new_runtime(versions):
    """A function that makes a new runtime, without the packages that others have installed."""

    def new_runtime(folder):
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder], check=True)
        own = folder / versions.relative_to(Path(ENVIRONMENT).resolve())
        (own / "colab.pth").write_text(f"import site; site.addsitedir({str(versions)!r})\n")
        pip = folder / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec {folder}/bin/python -m pip "$@"\n')
        pip.chmod(0o755)
        return folder / "bin"

    return new_runtime


@pytest.fixture(scope="module")
def clips(request):
    """Real clips of GTZAN if available, else synthetic ones: `<genre>/<clip>.wav` at any depth."""
    try:
        return request.getfixturevalue("gtzan")
    except pytest.skip.Exception:
        return request.getfixturevalue("music")


@pytest.fixture(scope="module")
def server(clips, tmp_path_factory):
    """A server on localhost with an archive of the clips, in the layout of gtzan-mini."""
    served = tmp_path_factory.mktemp("served")
    with zipfile.ZipFile(served / "main.zip", "w") as archive:
        for file in sorted(clips.rglob("*.wav")):
            archive.write(file, f"gtzan_mini-main/genres/{file.parent.name}/{file.name}")

    class Handler(http.server.SimpleHTTPRequestHandler):
        requests = []

        def log_request(self, *_):
            self.requests.append(self.path)

        def __init__(self, *arguments):
            super().__init__(*arguments, directory=served)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.requests = Handler.requests
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def source(server, tmp_path_factory):
    """A URL of this checkout, changed to download gtzan-mini from the server on localhost."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "results"):
        shutil.copytree(ROOT / name, folder / name)
    address = f"http://127.0.0.1:{server.server_port}/main.zip"
    for file in folder.rglob("*.py"):
        file.write_text(file.read_text().replace(DOWNLOADS["gtzan-mini"], address))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    return folder.as_uri()


@pytest.fixture(scope="module")
def run_notebook(new_runtime, source, tmp_path_factory):
    """A function that runs a notebook with small settings in a new runtime."""

    content = tmp_path_factory.mktemp("machine") / "content"  # the same in all runtimes of Colab

    def run_notebook(file, **environment):
        bin = new_runtime(tmp_path_factory.mktemp(file.stem) / "runtime")
        shutil.rmtree(content, ignore_errors=True)
        return run_all(
            with_small_settings(file), content, source, bin / "python",
            PYTHONPATH=str(FAKES), PATH=f"{bin}:{os.environ['PATH']}", **environment,
        )  # fmt: skip

    return run_notebook


@pytest.fixture(scope="module")
def runs(run_notebook, tmp_path_factory):
    """All notebooks in order, each in a new runtime with the same Drive.

    Returns a dict: name -> the executed notebook, and the times of the Drive's images after it.
    """
    drive, runs = tmp_path_factory.mktemp("drive"), {}
    for file in NOTEBOOKS:
        executed = run_notebook(file, COLAB_DRIVE=str(drive))
        images = {file: file.stat().st_mtime_ns for file in drive.rglob("images/*/*/*.png")}
        runs[file.stem] = executed, images
    return runs


def assert_ran(notebook):
    for cell in code_cells(notebook):
        assert error(cell) is None, f"{cell.source}\n\n{error(cell)}"
        assert cell.execution_count, f"not executed:\n{cell.source}"


def test_the_first_cell_replaces_no_package(new_runtime, source, first_cell, tmp_path):
    bin = new_runtime(tmp_path / "runtime")

    def pip(*arguments):
        return subprocess.run([bin / "pip", *arguments], capture_output=True, text=True).stdout

    before = set(pip("freeze").splitlines())
    notebook = new_notebook(cells=[first_cell])
    (cell,) = run_all(
        notebook, tmp_path / "content", source, bin / "python", PYTHONPATH=str(FAKES),
        PATH=f"{bin}:{os.environ['PATH']}",
    ).cells  # fmt: skip
    assert error(cell) is None
    after = set(pip("freeze").splitlines())
    assert not before - after
    assert {"melgenre", "onnx", "onnxscript", "onnxruntime"} <= {
        re.split("==| @ ", line)[0] for line in after - before
    }
    assert pip("check") == "No broken requirements found.\n"


@pytest.mark.parametrize("name", [file.stem for file in NOTEBOOKS])
def test_each_notebook_runs_alone(runs, name):
    assert_ran(runs[name][0])


def test_the_confusion_browser_is_displayed(runs):
    notebook, _ = runs["06_hear_the_confusions"]
    assert any("Widgets of other packages are enabled." in printed(c) for c in code_cells(notebook))


def test_music_is_downloaded_once_and_each_image_is_made_once(runs, server):
    assert server.requests == ["/main.zip"]
    made = [images for _, images in list(runs.values())[1:]]
    assert made[0]
    assert all(made[0].items() <= later.items() for later in made)


def test_a_notebook_runs_without_google_drive(run_notebook):
    notebook = run_notebook(NOTEBOOKS[1])
    assert_ran(notebook)
    assert NO_DRIVE.format("mount failed") in printed(code_cells(notebook)[0])
