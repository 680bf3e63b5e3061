"""The targets of the Makefile, with fakes of the programs that it installs."""

import os
import re
import shutil
import subprocess

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path):
    """A clone with an environment of fake programs, which only record their arguments."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", "README.md", "pyproject.toml", "requirements.txt", "constraints.txt",
                 ".gitignore"):  # fmt: skip
        shutil.copy(ROOT / name, folder)
    for name in ("notebooks", "scripts", "src"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("pip", "jupyter", "melgenre"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> .venv/calls\n')
        (programs / name).chmod(0o755)
    (folder / ".venv" / ".run").touch()
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "all")
    return folder


def git(folder, *arguments):
    ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def make(folder, *arguments, **environment):
    """Run make; returns its process, and the calls of the fake programs."""
    (folder / ".venv" / "calls").unlink(missing_ok=True)
    ran = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True,
                         env={**os.environ, **environment})  # fmt: skip
    file = folder / ".venv" / "calls"
    return ran, file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("target, model", [("app", "models/mine"), ("bench", "models/resnet34")])
def test_a_missing_model_is_reported_before_anything_is_installed(clone, target, model):
    (clone / ".venv" / ".run").unlink()
    ran, calls = make(clone, target, *(["MODEL=models/mine"] if target == "app" else []))
    assert ran.returncode != 0
    assert f"No model in {model} yet: `make run` trains and exports one." in ran.stdout
    assert calls == []
    assert not (clone / ".venv" / ".run").exists()


def test_make_app_serves_the_given_model(clone):
    (clone / "models" / "mine").mkdir(parents=True)
    (clone / "models" / "mine" / "config.json").touch()
    for model in ("models/mine", "hf:owner/name"):
        ran, calls = make(clone, "app", f"MODEL={model}")
        assert ran.returncode == 0, ran.stderr
        assert calls[-1] == f"melgenre app --model {model}"


def test_make_app_serves_the_built_in_model_by_default(clone):
    ran, calls = make(clone, "app")
    assert ran.returncode == 0, ran.stderr
    assert calls[-1] == "melgenre app"


@pytest.mark.parametrize("uid, option", [(0, "--allow-root "), (1000, "")])
def test_make_lab_allows_root_only_to_root(clone, tmp_path, uid, option):
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (tmp_path / "id").chmod(0o755)
    _, calls = make(clone, "lab", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert calls == [f"jupyter lab {option}lab"]


@pytest.mark.slow
def test_a_notebook_in_lab_changes_no_tracked_file(clone, music, monkeypatch):
    monkeypatch.setenv("MELGENRE_DATA", str(music))
    monkeypatch.delenv("MELGENRE_RESULTS", raising=False)
    make(clone, "lab")
    file = clone / "lab" / "03_before_deep_learning.ipynb"
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    recording = "from melgenre.evaluation.results import results_folder; print(results_folder())"
    notebook.cells = [*code[:3], nbformat.v4.new_code_cell(recording)]
    NotebookClient(notebook, resources={"metadata": {"path": str(clone / "lab")}}).execute()
    nbformat.write(notebook, file)
    printed = [output.text for output in notebook.cells[-1].outputs if output.name == "stdout"]
    assert printed == ["../runs/results\n"]
    assert git(clone, "status", "--porcelain") == ""
    # A second call keeps the changes of the user.
    written = file.read_bytes()
    make(clone, "lab")
    assert file.read_bytes() == written
    assert (clone / "lab" / "04_finetune_resnet34.ipynb").exists()


def test_the_lock_has_the_tested_versions_with_their_hashes():
    pinned = re.compile(r"^([\w.-]+)==([\w.]+)", re.M)

    def versions(name):
        found = pinned.findall((ROOT / name).read_text())
        return {(package.lower().replace("_", "-"), version) for package, version in found}

    locked = versions("requirements.lock")
    constrained = versions("constraints.txt")
    names = {name for name, _ in constrained}
    # The lock also has packages that only other systems need.
    assert {one for one in locked if one[0] in names} == constrained
    assert ("pillow", "13.0.0") in locked
    text = (ROOT / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") > len(locked) > 150
    assert "://" not in text
