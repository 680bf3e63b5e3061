"""Provenance of a result: the commit and the versions of packages."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from .. import __version__


def git_commit() -> str | None:
    """Short hash of the commit of this package, None outside a checkout."""
    package = str(Path(__file__).parents[1])

    def git(*arguments):
        # Without locks, which a killed process would leave in the repository.
        command = ["git", "--no-optional-locks", "-C", package, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Notebooks change while they run; what counts is whether the package is as committed.
        changed = "-dirty" if git("status", "--porcelain", ".") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    names = ("torch", "fastai", "librosa", "scikit-learn", "numpy")
    ours = {"python": platform.python_version(), "melgenre": __version__}
    return ours | {name: version(name) for name in names}
