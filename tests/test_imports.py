"""Heavy packages are imported only when they are used."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "fastai", "pandas", "PIL", "librosa", "onnxruntime", "matplotlib", "sklearn"}


def loaded(program):
    """The heavy packages that a process has loaded after a program."""
    program += f"\nimport sys\nprint(*{HEAVY!r}.intersection(sys.modules))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_the_package_loads_nothing_heavy_until_a_name_is_used():
    assert loaded("import melgenre as mg; dir(mg); mg.MelSettings; mg.project_folder()") == set()


def test_every_public_name_can_be_imported():
    loaded("import melgenre as mg; [getattr(mg, name) for name in mg.__all__]")


@pytest.mark.parametrize("part", ["data", "features", "evaluation"])
def test_importing_a_subpackage_does_not_load_torch(part):
    program = f"""
import importlib, pkgutil, melgenre.{part}
for module in pkgutil.walk_packages(melgenre.{part}.__path__, "melgenre.{part}."):
    importlib.import_module(module.name)
"""
    assert not loaded(program) & {"torch", "fastai"}


def test_a_prediction_by_onnx_runtime_loads_no_other_heavy_package(exported):
    program = f"""
import numpy as np
from melgenre import GenreClassifier
sound = np.ones(22050 * 3, np.float32), 22050
print(GenreClassifier.load({str(exported)!r}, backend="onnx").predict(sound))
"""
    assert loaded(program) == {"onnxruntime"}
