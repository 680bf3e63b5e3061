"""Heavy packages are imported only when they are used."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from melgenre.errors import OPTIONAL

HEAVY = {"onnxruntime", *OPTIONAL}


def loaded(program):
    """The heavy packages that a process has loaded after a program."""
    program += f"\nimport sys\nprint(*{HEAVY!r}.intersection(sys.modules))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_the_package_loads_nothing_heavy_until_a_name_is_used():
    assert loaded("import melgenre as mg; dir(mg); mg.MelSettings; mg.project_folder()") == set()


@pytest.mark.slow
def test_every_public_name_can_be_imported():
    loaded("import melgenre as mg; [getattr(mg, name) for name in mg.__all__]")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["data", "features", "evaluation"])
def test_importing_a_subpackage_does_not_load_torch(part):
    program = f"""
import importlib, pkgutil, melgenre.{part}
for module in pkgutil.walk_packages(melgenre.{part}.__path__, "melgenre.{part}."):
    importlib.import_module(module.name)
"""
    assert not loaded(program) & {"torch", "fastai"}


@pytest.mark.slow
def test_a_prediction_by_onnx_runtime_loads_no_other_heavy_package(exported):
    program = f"""
import numpy as np
from melgenre import GenreClassifier
sound = np.ones(22050 * 3, np.float32), 22050
print(GenreClassifier.load({str(exported)!r}, backend="onnx").predict(sound))
"""
    assert loaded(program) == {"onnxruntime"}


@pytest.mark.slow
def test_the_shell_predicts_a_folder_without_any_package_of_the_extras(exported, music, tmp_path):
    songs = [str(song) for song in sorted(music.rglob("*.wav"))[:2]]
    arguments = ["predict", *songs, "--model", str(exported), "--csv", str(tmp_path / "g.csv")]
    program = f"""
from melgenre.cli import app
app({arguments!r}, standalone_mode=False)
"""
    assert loaded(program) == {"onnxruntime"}
    assert (tmp_path / "g.csv").read_text().count("\n") == 3


@pytest.mark.slow
def test_importing_inference_and_the_shell_loads_no_package_of_the_extras():
    program = """
import importlib, pkgutil, melgenre.cli, melgenre.inference
for module in pkgutil.walk_packages(melgenre.inference.__path__, "melgenre.inference."):
    if module.name.rpartition(".")[2] not in ("timeline", "music_map"):  # which plot
        importlib.import_module(module.name)
"""
    assert loaded(program) == set()


def test_each_imported_package_is_a_dependency_or_known_as_optional():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.match(r"\w+", one)[0] for one in project["dependencies"]}
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    elsewhere = {"av", "google"}  # PyAV is tried, and google.colab is Colab's
    assert imported - set(sys.stdlib_module_names) - elsewhere == required | OPTIONAL
