"""An environment with the package's own dependencies alone predicts, and names the extras."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from melgenre.inference.classifier import GenreClassifier

pytestmark = pytest.mark.slow
LARGEST_MB = 250


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The folder of programs of an environment into which pip has installed melgenre."""
    source = tmp_path_factory.mktemp("source")
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    folder = tmp_path_factory.mktemp("small") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", source]
    ran = subprocess.run([*pip, "-c", ROOT / "constraints.txt"], capture_output=True, text=True)
    if "Connection" in ran.stderr or "No matching distribution" in ran.stderr:
        pytest.skip("pip cannot download the dependencies")
    assert ran.returncode == 0, ran.stderr
    return folder / "bin"


@pytest.fixture(scope="session")
def songs(tmp_path_factory, music):
    """Songs of four formats, and a file that is none."""
    import soundfile

    folder = tmp_path_factory.mktemp("songs")
    clips = sorted(music.rglob("*.wav"))[::10]
    for clip, suffix in zip(clips, ("wav", "flac", "ogg", "mp3"), strict=True):
        soundfile.write(folder / f"song.{suffix}", *soundfile.read(clip))
    (folder / "broken.mp3").write_text("no song" * 99)
    return folder


@pytest.fixture
def melgenre(small, tmp_path):
    """A function that runs the command `melgenre` of the environment in an empty folder."""

    def melgenre(*arguments):
        return run(small / "melgenre", *arguments, cwd=tmp_path)

    return melgenre


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=cwd, env=environment
    )


def test_it_takes_no_more_than_its_limit(small):
    own = ("pip", "setuptools", "pkg_resources", "_distutils_hack")  # of the environment
    (packages,) = small.parent.glob("lib/python*/site-packages")
    size = sum(
        file.stat().st_size
        for file in packages.rglob("*")
        if file.is_file() and not file.relative_to(packages).parts[0].startswith(own)
    )
    assert size < LARGEST_MB * 1e6
    assert not {"torch", "pandas", "scipy", "PIL"} & {path.name for path in packages.iterdir()}


def test_the_shell_predicts_songs_of_each_format(melgenre, songs, exported):
    for suffix in ("wav", "flac", "ogg", "mp3"):
        ran = melgenre("predict", songs / f"song.{suffix}", "--model", exported)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.endswith(f"song.{suffix}\n")


def test_the_shell_predicts_a_folder_into_a_csv_and_resumes(melgenre, songs, exported, tmp_path):
    command = ("predict", songs, "--model", exported, "--csv", "genres.csv", "--json")
    first = melgenre(*command)
    assert first.returncode == 3  # one of the songs is none
    assert "broken.mp3: not readable" in first.stderr
    file = tmp_path / "genres.csv"
    rows = list(csv.DictReader(file.open(newline="")))
    assert len(rows) == 5
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    expected = GenreClassifier.load(exported, backend="onnx").predict(songs / "song.flac")
    (flac,) = [line for line in lines if line["song"].endswith("flac")]
    assert flac["genre"] == expected.genre
    assert flac["probabilities"] == pytest.approx(dict(expected), abs=1e-3)
    # A killed run leaves a partial line; the others are kept, also if they were edited since.
    text = file.read_text().replace(f",{rows[-1]['genre']},", ",mine,")
    file.write_text(text + "song.wav,ro")
    again = melgenre(*command)
    assert "mine" in again.stdout
    assert file.read_text() == text


def test_python_predicts(small, songs, exported, tmp_path):
    program = (
        "import sys, melgenre as mg; classifier = mg.GenreClassifier.load(sys.argv[1]); "
        "analysis = classifier.analyze(sys.argv[2]); "
        "print(analysis.prediction.genre, analysis.probabilities.shape)"
    )
    ran = run(small / "python", "-c", program, exported, songs / "song.mp3", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    expected = GenreClassifier.load(exported, backend="onnx").predict(songs / "song.mp3")
    assert ran.stdout.split()[0] == expected.genre


def test_commands_name_the_extra_that_they_need(melgenre, songs, exported):
    for arguments, subject, extra in [
        (("train", songs), "Training", "train"),
        (("extract", songs, "images"), "Making images", "train"),
        (("app", "--model", exported), "The page", "app"),
        (("predict", songs, "--model", "hf:owner/name"), "The Hugging Face hub", "hub"),
    ]:
        ran = melgenre(*arguments)
        assert ran.returncode == 1
        assert ran.stdout == ""
        assert ran.stderr.startswith(f"{subject} needs more packages (")
        assert ran.stderr.endswith(f' is not installed): pip install "melgenre[{extra}]"\n')


def test_a_model_without_onnx_names_the_extra_that_it_needs(melgenre, songs, exported, tmp_path):
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    (model / "model.onnx").unlink()
    ran = melgenre("predict", songs / "song.wav", "--model", model)
    assert ran.returncode == 1
    assert ran.stderr.startswith("model by torch needs more packages (")
    assert ran.stderr.endswith(' is not installed): pip install "melgenre[train]"\n')


@pytest.mark.parametrize(
    "use, subject",
    [
        ("mg.fit", "melgenre.fit"),
        ("mg.find_tracks", "melgenre.find_tracks"),
        ("mg.classify_folder(mg.GenreClassifier.load(sys.argv[1]), '.')", "A table of songs"),
        ("mg.GenreClassifier.load(sys.argv[1]).timeline(sys.argv[2])", "A timeline"),
        ("mg.GenreClassifier.load(sys.argv[1]).plot_timeline(sys.argv[2])", "A plot"),
    ],
)
def test_python_names_the_extra_that_a_name_needs(small, songs, exported, tmp_path, use, subject):
    program = f"import sys, melgenre as mg; {use}"
    ran = run(small / "python", "-c", program, exported, songs / "song.wav", cwd=tmp_path)
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"melgenre.errors.MissingPackageError: {subject} needs more packages (")
    assert last.endswith(' is not installed): pip install "melgenre[train]"')


def test_help_needs_no_extra(melgenre):
    for command in ("predict", "extract", "train", "app"):
        assert melgenre(command, "--help").returncode == 0
