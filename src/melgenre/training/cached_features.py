"""Cached features of a frozen body: computed once per image, reused by every epoch, seed and fold.

They turn the training of a head from minutes into seconds.
"""

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import DataLoaders, Learner, TfmdDL, noop, set_seed
from tqdm.auto import tqdm

from ..errors import MelgenreWarning
from ..files import atomic_write, locked, project_folder, sweep
from ..textures import JoinedBackbones
from .multi_label import genre_targets
from .precision import feature_dtype, one_thread, precision_name

SAVED_TOGETHER = 256
"""Images after whose features the file is written: a killed run loses no more."""


def features_cache() -> Path:
    """The folder of the cache: `data/features` of the project."""
    return project_folder() / "data" / "features"


def extract_features(
    learn: Learner, tracks: pd.DataFrame, *, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Compute the body's features of every track's image, or read them from the cache.

    There is one file per body, device and precision; the bodies of an ensemble have their own.

    Parameters
    ----------
    learn
        Its model is a body and a head, on the device of its DataLoaders. The body is used in
        evaluation mode.
    tracks
        With `image`.
    dtype
        Of the body's arithmetic, by autocast.

    Returns
    -------
    np.ndarray [shape=(n, ...), dtype=float32]
    """
    body, name = learn.model[0], learn.training_run.architecture
    if not isinstance(body, JoinedBackbones):
        return _extract_by(learn, body, name, tracks, dtype)
    members = zip(body, name.split("+"), strict=True)
    parts = [_extract_by(learn, member, name, tracks, dtype) for member, name in members]
    return np.concatenate(parts, axis=1)


def _extract_by(learn, body, name, tracks, dtype):
    """The features of one body, cached under its name."""
    computed_in = f"{learn.dls.device.type}-{precision_name(dtype)}"
    file = features_cache() / f"{name}-{_digest(body)}-{computed_in}.npz"
    with suppress(OSError):  # a read-only folder keeps what it has
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
    keys = [hashlib.md5(Path(image).read_bytes()).hexdigest() for image in tracks["image"]]
    cached = _load(file, _version(file))
    new = tracks.assign(key=keys)[[key not in cached for key in keys]]
    for start in range(0, len(new), SAVED_TOGETHER):
        some = new.iloc[start : start + SAVED_TOGETHER]
        computed = _compute(learn, body, some, dtype)
        cached = _save(file, dict(zip(some["key"], computed, strict=True)))
    # New and cached ones in the same order in memory, so that sums of them have the same bits.
    return np.ascontiguousarray(np.stack([cached[key] for key in keys]))


def _save(file, computed):
    """Add features to a file of the cache; returns all of its features, as `_load`."""
    with locked(file):  # another process may add to it at the same time
        cached = {**_load(file, _version(file)), **computed}
        keys, features = np.array(list(cached)), np.stack(list(cached.values()))
        try:
            with atomic_write(file) as part, part.open("wb") as opened:
                np.savez(opened, images=keys, features=features)
        except OSError as error:
            warnings.warn(
                f"The features cannot be cached ({error.strerror}). Training goes on, and the next "
                "one computes them again.",
                MelgenreWarning,
                stacklevel=4,
            )
    return cached


def _version(file):
    """What changes whenever a file is written."""
    if not file.exists():
        return None
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=1)
def _load(file, _version):
    """The features in a file of the cache, by the md5 of their image; none if it is damaged."""
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as cached:
            return dict(zip(cached["images"].tolist(), cached["features"], strict=True))
    except Exception as error:  # a damaged archive raises errors of any kind
        warnings.warn(
            f"The cached features in {file.name} are damaged ({type(error).__name__}) and are "
            "computed again.",
            MelgenreWarning,
            stacklevel=3,
        )
        return {}


def _compute(learn, body, tracks, dtype):
    """Features of images as the learner's own DataLoaders prepare them."""
    body.eval().to(memory_format=torch.channels_last)
    device = learn.dls.device.type
    # A CPU takes no longer for two at a time, and more would not fit its cache.
    bs = 2 if device == "cpu" else 32
    batches = learn.dls.test_dl(tracks, num_workers=0, bs=bs)

    def compute(batch):
        autocast = torch.autocast(device, dtype) if dtype != torch.float32 else nullcontext()
        with torch.inference_mode(), autocast:
            return body(batch[0]).float().cpu().numpy()

    quiet = learn.logger is noop  # inside `learn.no_logging()`
    bar = partial(tqdm, total=len(batches), desc="features", leave=False, disable=quiet)
    if device != "cpu":
        return np.concatenate(list(bar(map(compute, batches))))
    # One thread per batch: the features do not depend on the number of threads.
    workers = ThreadPoolExecutor(
        torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
    )
    with one_thread(), workers as pool:
        return np.concatenate(list(bar(pool.map(compute, batches))))


def _digest(body):
    """Hash of a body: of its layers and their weights."""
    digest = hashlib.md5(str(body).encode())
    for tensor in body.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def tensor_dataloader(dl: TfmdDL, x: torch.Tensor, y: torch.Tensor, **changes: Any) -> TfmdDL:
    """A DataLoader over in-memory tensors in place of the items of another one.

    Parameters
    ----------
    dl
        Of n items.
    x, y : torch.Tensor [shape=(n, ...), (n,) or (n, n_genres)]
        The inputs and the targets.
    **changes
        As for fastai's `DataLoader.new`.
    """
    return dl.new(
        create_item=noop, after_item=noop, do_batch=lambda rows: (x[rows], y[rows]), **changes
    )


def feature_dataloaders(learn: Learner) -> DataLoaders:
    """DataLoaders of features in place of images, in the learner's own split.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`.
    """
    device = learn.dls.device
    tables = [part.items for part in (learn.dls.train_ds, learn.dls.valid_ds)]
    dtype = feature_dtype(device.type)
    features = [
        torch.tensor(extract_features(learn, one, dtype=dtype), device=device) for one in tables
    ]
    genres = [genre_targets(learn, one).to(device) for one in tables]
    # The same order whether the features were cached or not.
    set_seed(learn.training_run.seed, reproducible=True)
    sizes = learn.dls.bs, len(genres[1])  # validate in one batch: it is quick
    loaders = [
        tensor_dataloader(dl, x, y, after_batch=noop, bs=size)
        for dl, x, y, size in zip(learn.dls.loaders, features, genres, sizes, strict=True)
    ]
    return DataLoaders(*loaders, device=device)


def predict_features(learn: Learner, tracks: pd.DataFrame) -> torch.Tensor:
    """Probabilities [shape=(n, n_genres)] from cached features."""
    features = torch.from_numpy(extract_features(learn, tracks))
    head = learn.model[1].eval()
    with torch.inference_mode():
        logits = head(features.to(next(head.parameters()).device))
    return learn.loss_func.activation(logits.float()).cpu()
