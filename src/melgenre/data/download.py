"""Download a file of a collection, by huggingface_hub or pooch."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import MelgenreError
from ..files import atomic_write, locked, sweep, temporary_folder

HUB_FILE = re.compile(r"https://huggingface\.co/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
"""Address of a file of a dataset on the Hugging Face hub: repository, revision, path in it."""

CHUNK = 2**20


class DownloadError(MelgenreError, OSError):
    """A download or archive that failed; the message says what to do by hand."""


def download(url: str, target: str | Path, *, progress: bool = True) -> Path:
    """Download a file; nothing happens if it exists.

    A file of a dataset on the Hugging Face hub comes by `huggingface_hub`, which continues after
    an interrupted connection and checks the size. Any other file comes by `pooch`. `target` is
    either complete or missing, and no second copy stays on the disk.

    Parameters
    ----------
    url
        Such as `https://huggingface.co/datasets/<owner>/<name>/resolve/main/<path>`.
    target
        Name of the file when it is complete; its folder is made if it is missing.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        If the server cannot be reached, does not have the file, or stops sending it.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):  # another process may be downloading it
            if not target.exists():
                sweep(target.parent)
                from_hub = HUB_FILE.fullmatch(url)
                if from_hub:
                    _download_from_hub(*from_hub.groups(), target, progress)
                else:
                    _download_from_web(url, target, progress)
    except Exception as error:  # huggingface_hub and pooch pass on those of their HTTP libraries
        raise DownloadError(
            f"Could not download {url} ({_reason(error)}): try again, or download it with a "
            f"browser and save it as {target.as_posix()}."
        ) from error
    return target


def _reason(error: Exception) -> str:
    for one in (error, error.__cause__):  # huggingface_hub wraps some errors of the server
        response = getattr(one, "response", None)
        if response is not None:
            return f"the server answers {response.status_code}"
    if isinstance(error, OSError) and error.errno:
        return error.strerror  # of the disk, such as one that is full
    return "the server cannot be reached, or the connection broke"


def _download_from_hub(
    repository: str, revision: str, path: str, target: Path, progress: bool
) -> None:
    from huggingface_hub import hf_hub_download  # imported here: it takes a second

    # A folder of its own, since the hub's files and notes for later downloads are not needed here.
    with temporary_folder(target.parent) as folder:
        file = hf_hub_download(
            repository,
            path,
            repo_type="dataset",
            revision=revision,
            local_dir=folder,
            tqdm_class=partial(tqdm, disable=not progress),
        )
        os.replace(file, target)


def _download_from_web(url: str, target: Path, progress: bool) -> None:
    from pooch import HTTPDownloader

    # pooch's `retrieve` adds only a comparison with a hash, and the archive of a branch has none.
    with atomic_write(target) as part:
        HTTPDownloader(progressbar=progress, chunk_size=CHUNK)(url, str(part), None)
