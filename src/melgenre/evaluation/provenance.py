"""What a result was made with: the commit and the versions of packages."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from .. import __version__


def git_commit():
    """Short name of the commit whose package made a figure, None outside a checkout."""
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


def package_versions():
    """What a figure was made with: a dict of package and version."""
    names = ("torch", "fastai", "librosa", "scikit-learn", "numpy")
    ours = {"python": platform.python_version(), "melgenre": __version__}
    return ours | {name: version(name) for name in names}
