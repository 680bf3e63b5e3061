"""Make `space/`, a folder that can be pushed as a Hugging Face Space: the page, the built-in model.

    python scripts/make_space.py
    hf upload owner/name space --repo-type space

A Space installs its requirements.txt before it has the other files of the folder. So the package
itself is a folder there, and requirements.txt has only what it needs.
"""

import re
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "space"
# Hugging Face accepts binary files by Git LFS alone.
LFS = "filter=lfs diff=lfs merge=lfs -text"


def requirements(project: dict, extra: str) -> list[str]:
    """The packages that the package and one of its extras need, with the tested versions."""
    names = {_canonical(name) for name in project["dependencies"] + _packages(project, extra)}
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in tested if _canonical(line) in names]


def _packages(project, extra):
    """The packages of an extra and of the extras that it names."""
    packages = []
    for line in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"melgenre\[(.+)\]", line)
        further = own[1].split(",") if own else []
        packages += [one for name in further for one in _packages(project, name)]
        packages += [] if own else [line]
    return packages


def _canonical(requirement):
    """The name of a required package, as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def make_space(folder: Path = SPACE) -> None:
    """Write the folder, and delete what else it holds, except for its git repository."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir() and old.name != ".git":
            shutil.rmtree(old)
        elif not old.is_dir():
            old.unlink()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # gradio is installed in the version that the header of README.md names.
    needed = [line for line in requirements(project, "app") if _canonical(line) != "gradio"]
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in needed))
    for name in ("spaces/README.md", "spaces/app.py", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src" / "melgenre", folder / "melgenre", ignore=ignored)
    binary = {file.suffix for file in (folder / "melgenre").rglob("*") if _is_binary(file)}
    (folder / ".gitattributes").write_text("".join(f"*{one} {LFS}\n" for one in sorted(binary)))


def _is_binary(file):
    return file.is_file() and b"\0" in file.read_bytes()


def main():
    make_space()
    print("The Space is in space/. To publish it (hf comes with huggingface_hub):")
    print("  hf auth login")
    print("  hf upload NAME/melgenre space --repo-type space   # NAME: yours on Hugging Face")


if __name__ == "__main__":
    main()
