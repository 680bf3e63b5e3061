"""What make does before and beside its installation, with stand-ins for what it installs."""

import os
import re
import shutil
import subprocess

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")


@pytest.fixture
def clone(tmp_path):
    """A clone whose environment is there already, of programs that only note their arguments."""
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
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> .venv/called\n')
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
    """The process of a make, and what programs it has called."""
    (folder / ".venv" / "called").unlink(missing_ok=True)
    ran = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True,
                         env={**os.environ, **environment})  # fmt: skip
    called = folder / ".venv" / "called"
    return ran, called.read_text().splitlines() if called.exists() else []


@pytest.mark.parametrize("target", ["app", "bench"])
def test_a_model_that_is_missing_is_named_before_anything_is_installed(clone, target):
    (clone / ".venv" / ".run").unlink()
    ran, called = make(clone, target)
    assert ran.returncode != 0
    assert "No model in models/resnet34 yet: `make run` trains and exports one." in ran.stdout
    assert called == []
    assert not (clone / ".venv" / ".run").exists()


def test_the_page_is_shown_of_the_model_that_is_named(clone):
    (clone / "models" / "mine").mkdir(parents=True)
    (clone / "models" / "mine" / "config.json").touch()
    for model in ("models/mine", "hf:owner/name"):
        ran, called = make(clone, "app", f"MODEL={model}")
        assert ran.returncode == 0, ran.stderr
        assert called[-1] == f"melgenre app --model {model}"


@pytest.mark.parametrize("uid, option", [(0, "--allow-root "), (1000, "")])
def test_jupyterlab_starts_as_root_too(clone, tmp_path, uid, option):
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (tmp_path / "id").chmod(0o755)
    _, called = make(clone, "lab", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert called == [f"jupyter lab {option}lab"]


def test_a_notebook_that_a_reader_runs_changes_no_tracked_file(clone, music, monkeypatch):
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
    # A second call keeps what the reader has made.
    written = file.read_bytes()
    make(clone, "lab")
    assert file.read_bytes() == written
    assert (clone / "lab" / "04_finetune_resnet34.ipynb").exists()


def test_the_lock_holds_the_versions_that_are_tested_with_their_hashes():
    pinned = re.compile(r"^([\w.-]+)==([\w.]+)", re.M)

    def versions(name):
        found = pinned.findall((ROOT / name).read_text())
        return {(package.lower().replace("_", "-"), version) for package, version in found}

    locked = versions("requirements.lock")
    constrained = versions("constraints.txt")
    names = {name for name, _ in constrained}
    # Other systems need other packages besides.
    assert {one for one in locked if one[0] in names} == constrained
    assert ("pillow", "13.0.0") in locked
    text = (ROOT / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") > len(locked) > 150
    assert "://" not in text
