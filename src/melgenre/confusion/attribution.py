"""Explanations: attribution maps by integrated gradients, and nearest training clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import normalize

from ..training.cached_features import extract_features
from ..training.feature_store import feature_blocks
from ..training.image_loader import image_batch, test_images
from ..training.learner import is_frozen

if TYPE_CHECKING:
    from fastai.learner import Learner

STEPS = 6  # gradients per map; benchmarks/explaining.py compares them with more steps


def attribution_maps(
    learn: Learner, image: str | Path, genres: list[str], *, steps: int = STEPS
) -> np.ndarray:
    """Attribution maps: how much each point of an image adds to the logits of some genres.

    Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks",
    2017): the gradient of the logit is averaged along the straight line from silence, which is
    black, to the image, and multiplied by their difference. The line is the same for every
    genre, so all genres share the forward passes. With alpha = u^2, the midpoint rule in u places
    more points near silence, where the gradient changes fastest::

        integral of g(alpha) d(alpha) = integral of g(u^2) 2u du

    Parameters
    ----------
    learn
        Its model may be on any device.
    genres
        Of the learner's vocabulary.
    steps
        Number of points on the line.

    Returns
    -------
    np.ndarray [shape=(len(genres), n_mels, columns)]
        Logits. Each map adds up, except for the error of the quadrature, to the genre's logit for
        the image minus its logit for silence.
    """
    model = learn.model.eval()
    device = next(model.parameters()).device
    x = image_batch(learn, image).to(device)
    silence = image_batch(learn, np.zeros(x.shape[-2:], dtype=np.uint8)).to(device)
    targets = [learn.dls.vocab.o2i[genre] for genre in genres]
    gradients = torch.zeros(len(genres), *x.shape[1:], device=device)
    # One point at a time: larger batches are no faster on a CPU, and need more memory.
    for u in (np.arange(steps) + 0.5) / steps:
        point = torch.lerp(silence, x, float(u**2)).requires_grad_()
        logits = model(point)[0]
        for row, target in enumerate(targets):
            (gradient,) = torch.autograd.grad(logits[target], point, retain_graph=True)
            gradients[row] += 2 * u / steps * gradient[0]
    return ((x - silence) * gradients).sum(dim=1).cpu().numpy()


def smooth_maps(maps: np.ndarray) -> np.ndarray:
    """The positive part of attribution maps, smoothed as the confusion browser shows it.

    The maps of single points are noisy; smoothing shows which seconds and which bands matter.

    Parameters
    ----------
    maps : np.ndarray [shape=(n, n_mels, columns)]
        From `attribution_maps`.

    Returns
    -------
    np.ndarray [shape=(n, n_mels, columns)]
    """
    return np.stack([gaussian_filter(points, (2, 4)) for points in maps]).clip(min=0)


def embed_images(learn: Learner, tracks: pd.DataFrame) -> torch.Tensor:
    """Embeddings of images: the input of the last layer of the network.

    Parameters
    ----------
    learn
        Its model has a body (the backbone) and a head, as in fastai.
    tracks
        With `image`.

    Returns
    -------
    torch.Tensor [shape=(n, d)]
        Each row has the length 1, so that dot products are cosine similarities.
    """
    backbone, head = learn.model.eval()
    device = next(head.parameters()).device
    parts = []
    with torch.inference_mode():
        if is_frozen(learn):
            for features in feature_blocks(extract_features(learn, tracks)):
                parts.append(head[:-1](features.to(device)))
        else:
            for (batch,) in test_images(learn, tracks):
                parts.append(head[:-1](backbone(batch.to(device))))
    return normalize(torch.cat([torch.Tensor(part) for part in parts]).float()).cpu()


def nearest(query: torch.Tensor, references: torch.Tensor, n: int = 5) -> list[tuple[int, float]]:
    """The rows of `references` that are most similar to one embedding.

    Parameters
    ----------
    query : torch.Tensor [shape=(d,)]
    references : torch.Tensor [shape=(n_references, d)]
        Both from `embed_images`.

    Returns
    -------
    list of (int, float)
        Row and cosine similarity, highest similarity first: `n` pairs, or all if there are fewer.

    Examples
    --------
    >>> references = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> [row for row, _ in nearest(torch.tensor([0.0, 1.0]), references, n=2)]
    [1, 2]
    """
    similarity, rows = (references @ query).topk(min(n, len(references)))
    return list(zip(rows.tolist(), similarity.tolist(), strict=True))
