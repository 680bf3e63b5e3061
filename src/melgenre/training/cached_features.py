"""Cached features of a frozen body: computed once per image, reused by every epoch, seed and fold.

They turn the training of a head from minutes into seconds.
"""

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import DataLoaders, Learner, TfmdDL, noop, set_seed
from tqdm.auto import tqdm

from ..data.image_files import image_key, shard_row
from ..data.mel_settings import MelSettings, settings_suffix
from ..errors import MelgenreWarning
from ..files import project_folder
from ..textures import JoinedBackbones
from .feature_store import MOST_IN_MEMORY, FeatureStore, StoredFeatures, feature_blocks
from .image_loader import test_images
from .multi_label import genre_targets
from .precision import feature_dtype, one_thread, precision_name

SAVED_TOGETHER = 256
"""Images whose features are written at a time: a killed run loses no more."""


VALIDATED_TOGETHER = 10_000
"""Rows of features in a batch of the validation set."""


def features_cache() -> Path:
    """The folder of the cache: `data/features` of the project."""
    return project_folder() / "data" / "features"


def extract_features(
    learn: Learner, tracks: pd.DataFrame, *, dtype: torch.dtype = torch.float32
) -> np.ndarray | StoredFeatures:
    """Compute the body's features of every track's image, or read them from the cache.

    There is one folder per body, device and precision; the bodies of an ensemble have their own.

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
    np.ndarray or StoredFeatures [shape=(n, ...), dtype=float32]
        More than `MOST_IN_MEMORY` bytes stay on disk, and their rows are read when indexed;
        `feature_blocks` passes over either kind.
    """
    body, name = learn.model[0], learn.training_run.architecture
    joined = isinstance(body, JoinedBackbones)
    members = zip(body, name.split("+"), strict=True) if joined else [(body, name)]
    parts = [_extract_by(learn, member, name, tracks, dtype) for member, name in members]
    if any(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part) for part in parts], axis=1)
    features = StoredFeatures([one for part in parts for one in part.parts])
    return features[:] if features.nbytes <= MOST_IN_MEMORY else features


def _extract_by(learn, body, name, tracks, dtype):
    """The features of one body, from the cache; in memory where the cache cannot be written."""
    suffix = settings_suffix(MelSettings(**(learn.training_run.mel_settings or {})))
    computed_in = f"{learn.dls.device.type}-{precision_name(dtype)}"
    store = FeatureStore(features_cache() / f"{name}-{_digest(body)}{suffix}-{computed_in}")
    keys = np.array([bytes.fromhex(image_key(image)) for image in tracks["image"]], "S16")
    unsaved = {}
    for rows in _missing_rows(store, keys, tracks["image"]):
        computed = _compute(learn, body, tracks.iloc[rows], dtype)
        try:
            store.append(keys[rows], computed)
        except OSError as error:
            warnings.warn(
                f"The features cannot be cached ({error.strerror}). Training goes on, and the next "
                "one computes them again.",
                MelgenreWarning,
                stacklevel=4,
            )
            unsaved.update(zip(keys[rows].tolist(), computed, strict=True))
    found = store.find(keys)
    if not unsaved:
        return StoredFeatures([(store, found)])
    features = np.empty((len(keys), *computed.shape[1:]), np.float32)
    for row, key in enumerate(keys.tolist()):
        in_memory = key in unsaved
        features[row] = unsaved[key] if in_memory else StoredFeatures([(store, found)])[[row]][0]
    return features


def _missing_rows(store, keys, images):
    """The rows of images without intact features, some at a time, in the order of the shards."""
    missing = np.flatnonzero(store.find_intact(keys) < 0)
    missing = missing[np.sort(np.unique(keys[missing], return_index=True)[1])]
    ordered = sorted(missing, key=lambda row: shard_row(images.iloc[row]) or ("", 0))
    for start in range(0, len(ordered), SAVED_TOGETHER):
        yield ordered[start : start + SAVED_TOGETHER]


def _compute(learn, body, tracks, dtype):
    """Features of images as the learner's own DataLoaders prepare them."""
    body.eval().to(memory_format=torch.channels_last)
    device = learn.dls.device.type
    # A CPU takes no longer for two at a time, and more would not fit its cache.
    bs = 2 if device == "cpu" else 32
    batches = test_images(learn, tracks, bs=bs)

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


def tensor_dataloader(
    dl: TfmdDL, x: torch.Tensor | StoredFeatures, y: torch.Tensor, **changes: Any
) -> TfmdDL:
    """A DataLoader over tensors or features on disk in place of the items of another one.

    Parameters
    ----------
    dl
        Of n items.
    x : torch.Tensor or StoredFeatures [shape=(n, ...)]
        The inputs.
    y : torch.Tensor [shape=(n,) or (n, n_genres)]
        The targets.
    **changes
        As for fastai's `DataLoader.new`.
    """
    return dl.new(
        cls=TfmdDL,  # which shuffles all rows
        create_item=noop,
        after_item=noop,
        do_batch=lambda rows: (torch.as_tensor(x[rows]), y[rows]),
        **changes,
    )


def feature_dataloaders(learn: Learner) -> DataLoaders:
    """DataLoaders of features in place of images, in the learner's own split.

    Parameters
    ----------
    learn
        Of `melgenre.training.learner.genre_learner`.

    Returns
    -------
    fastai.data.core.DataLoaders
        The training set has its features in `train.x`, which may be on disk, and the targets of
        `genre_targets` in `train.y`.
    """
    device = learn.dls.device
    tables = [part.items for part in (learn.dls.train_ds, learn.dls.valid_ds)]
    dtype = feature_dtype(device.type)
    features = [_on_device(extract_features(learn, one, dtype=dtype), device) for one in tables]
    genres = [genre_targets(learn, one).to(device) for one in tables]
    # The same order whether the features were cached or not.
    set_seed(learn.training_run.seed, reproducible=True)
    sizes = learn.dls.bs, min(len(genres[1]), VALIDATED_TOGETHER)
    loaders = [
        tensor_dataloader(dl, x, y, after_batch=noop, bs=size)
        for dl, x, y, size in zip(learn.dls.loaders, features, genres, sizes, strict=True)
    ]
    loaders[0].x, loaders[0].y = features[0], genres[0]
    return DataLoaders(*loaders, device=device)


def _on_device(features, device):
    """Features in memory as a tensor on a device; those on disk as they are."""
    on_disk = isinstance(features, StoredFeatures)
    return features if on_disk else torch.tensor(features, device=device)


def predict_features(learn: Learner, tracks: pd.DataFrame) -> torch.Tensor:
    """Probabilities [shape=(n, n_genres)] from cached features."""
    head = learn.model[1].eval()
    device = next(head.parameters()).device
    with torch.inference_mode():
        blocks = feature_blocks(extract_features(learn, tracks))
        logits = torch.cat([head(block.to(device)) for block in blocks])
    return learn.loss_func.activation(logits.float()).cpu()
