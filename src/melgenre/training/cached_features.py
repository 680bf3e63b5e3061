"""What a frozen body makes of an image, computed once.

A body that does not learn says the same of an image in every epoch, with every seed and in every
fold. Kept on disk, its features turn the training of a head from minutes into seconds.
"""

import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import DataLoaders, noop, set_seed
from tqdm.auto import tqdm

from ..files import atomic_write, locked, project_folder, sweep
from .precision import feature_dtype, one_thread, precision_name

KEPT_AT_ONCE = 256
"""Images after whose features the file is written: a killed run loses no more."""


def features_cache():
    """Where features are kept: `data/features` of the project."""
    return project_folder() / "data" / "features"


def extract_features(learn, tracks, folder, *, dtype=torch.float32):
    """The body's features of every track's image; only those new to the folder are computed.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Its model is a body and a head, on the device of its DataLoaders. The body is used in
        evaluation mode.
    tracks : pd.DataFrame
        With `image`.
    folder : str or Path
        Where the features are kept, in one file for each body, device and precision.
    dtype : torch.dtype
        Of the body's arithmetic, by autocast.

    Returns
    -------
    np.ndarray [shape=(n, ...), dtype=float32]
    """
    body = learn.model[0]
    computed_in = f"{learn.dls.device.type}-{precision_name(dtype)}"
    file = Path(folder) / f"{learn.architecture}-{_digest_body(body)}-{computed_in}.npz"
    with suppress(OSError):  # a read-only folder keeps what it has
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
    keys = [hashlib.md5(Path(image).read_bytes()).hexdigest() for image in tracks["image"]]
    known = _load(file, _version(file))
    new = tracks.assign(key=keys)[[key not in known for key in keys]]
    for start in range(0, len(new), KEPT_AT_ONCE):
        some = new.iloc[start : start + KEPT_AT_ONCE]
        computed = _compute(learn, body, some, dtype)
        known = _keep(file, dict(zip(some["key"], computed, strict=True)))
    return np.stack([known[key] for key in keys])


def _keep(file, computed):
    """Add features to those that a file keeps; returns all, as `_load`."""
    with locked(file):  # another process may add to it at the same time
        known = {**_load(file, _version(file)), **computed}
        images, features = np.array(list(known)), np.stack(list(known.values()))
        try:
            with atomic_write(file) as part, part.open("wb") as opened:
                np.savez(opened, images=images, features=features)
        except OSError as error:
            warnings.warn(
                f"The features are used, but not kept ({error.strerror}): the next training "
                "computes them again.",
                stacklevel=4,
            )
    return known


def _version(file):
    """What changes whenever a file is written."""
    if not file.exists():
        return None
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=1)
def _load(file, _version):
    """The features that a file keeps, by the md5 of their image; a damaged file keeps none."""
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as kept:
            return dict(zip(kept["images"].tolist(), kept["features"], strict=True))
    except Exception as error:  # a damaged archive brings about errors of any kind
        warnings.warn(
            f"The kept features in {file.name} are damaged ({type(error).__name__}) and are "
            "computed again.",
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


def _digest_body(body):
    """A name for a body: the same layers with the same weights have the same."""
    digest = hashlib.md5(str(body).encode())
    for tensor in body.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def tensor_dataloader(dl, x, y, **changes):
    """A DataLoader whose batches are cut from tensors, in place of being read item by item.

    Parameters
    ----------
    dl : fastai.data.core.TfmdDL
    x, y : torch.Tensor [shape=(n, ...), (n,)]
        What it would read: its n items and their numbers of genre.
    **changes
        As for fastai's `DataLoader.new`.

    Returns
    -------
    fastai.data.core.TfmdDL
    """
    return dl.new(
        create_item=noop, after_item=noop, do_batch=lambda rows: (x[rows], y[rows]), **changes
    )


def feature_dataloaders(learn, folder):
    """DataLoaders of features in place of images, in the learner's own split.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Of `melgenre.training.learner.genre_learner`.
    folder : str or Path
        As for `extract_features`.

    Returns
    -------
    fastai.data.core.DataLoaders
        Batches of features and genres.
    """
    numbers, device = learn.dls.vocab.o2i, learn.dls.device
    tables = [part.items for part in (learn.dls.train_ds, learn.dls.valid_ds)]
    dtype = feature_dtype(device.type)
    features = [
        torch.tensor(extract_features(learn, one, folder, dtype=dtype), device=device)
        for one in tables
    ]
    genres = [torch.tensor(one["genre"].map(numbers).tolist(), device=device) for one in tables]
    set_seed(learn.seed, reproducible=True)  # the same order whether features were kept or not
    # What is only watched goes through the head in one batch: it is quick, and changes nothing.
    sizes = learn.dls.bs, len(genres[1])
    loaders = [
        tensor_dataloader(dl, x, y, after_batch=noop, bs=size)
        for dl, x, y, size in zip(learn.dls.loaders, features, genres, sizes, strict=True)
    ]
    return DataLoaders(*loaders, device=device)


def predict_features(learn, tracks, folder):
    """Probabilities [shape=(n, n_genres)] by way of the kept features."""
    features = torch.from_numpy(extract_features(learn, tracks, folder))
    head = learn.model[1].eval()
    with torch.inference_mode():
        logits = head(features.to(next(head.parameters()).device))
    return logits.float().softmax(dim=1).cpu()
