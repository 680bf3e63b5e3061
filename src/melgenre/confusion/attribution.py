"""Explanations: attribution maps by integrated gradients, and nearest training clips."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import normalize

from ..training.cached_features import extract_features
from ..training.learner import is_frozen

STEPS = 6  # gradients per map; benchmarks/explaining.py measures what more of them would change


def attribution_maps(learn, image, genres, *, steps=STEPS):
    """Attribution maps: what each point of an image adds to the logits of some genres.

    Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks",
    2017): the gradient of the logit is averaged along the straight line from silence, which is
    black, to the image, and multiplied by their difference. The line is the same for every
    genre, so all genres share the forward passes. With alpha = u^2, the midpoint rule in u places
    more points near silence, where the gradient changes fastest::

        integral of g(alpha) d(alpha) = integral of g(u^2) 2u du

    Parameters
    ----------
    learn : fastai.learner.Learner
        Its model may be on any device.
    image : str or Path
    genres : list of str
        Of the learner's vocabulary.
    steps : int
        Points on the line.

    Returns
    -------
    np.ndarray [shape=(len(genres), n_mels, columns)]
        Logits. Each map adds up, except for the error of the quadrature, to the genre's logit for
        the image minus its logit for silence.
    """
    model = learn.model.eval()
    device = next(model.parameters()).device
    x = image_batch(learn, image).to(device)
    silence = image_batch(learn, np.zeros((*x.shape[-2:], 3), dtype=np.uint8)).to(device)
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


def smooth_maps(maps):
    """The positive part of attribution maps, smoothed as the confusion browser shows it.

    Single points flicker; a person wants to know which seconds and which bands matter.

    Parameters
    ----------
    maps : np.ndarray [shape=(n, n_mels, columns)]
        Of `attribution_maps`.

    Returns
    -------
    np.ndarray [shape=(n, n_mels, columns)]
    """
    return np.stack([gaussian_filter(one, (2, 4)) for one in maps]).clip(min=0)


def image_batch(learn, image):
    """One image as the learner's own DataLoaders prepare it.

    Parameters
    ----------
    learn : fastai.learner.Learner
    image : str, Path or np.ndarray [shape=(n_mels, columns, 3), dtype=uint8]

    Returns
    -------
    torch.Tensor [shape=(1, 3, n_mels, columns)]
    """
    (batch,) = learn.dls.test_dl([image], num_workers=0, bs=1).one_batch()
    return torch.Tensor(batch)  # a plain tensor: fastai's subclass slows down every operation


def embed_images(learn, tracks):
    """What the network's last layer is given of each image.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Its model is a body and a head, as fastai makes it.
    tracks : pd.DataFrame
        With `image`.

    Returns
    -------
    torch.Tensor [shape=(n, d)]
        Of length 1, so that products are cosine similarities.
    """
    body, head = learn.model.eval()
    device = next(head.parameters()).device
    parts = []
    with torch.inference_mode():
        if is_frozen(learn):
            features = torch.from_numpy(extract_features(learn, tracks))
            parts.append(head[:-1](features.to(device)))
        else:
            for (batch,) in learn.dls.test_dl(tracks, num_workers=0):
                parts.append(head[:-1](body(batch.to(device))))
    return normalize(torch.cat([torch.Tensor(part) for part in parts]).float()).cpu()


def nearest(asked, known, n=5):
    """The rows of `known` most like one embedding.

    Parameters
    ----------
    asked : torch.Tensor [shape=(d,)]
    known : torch.Tensor [shape=(n_known, d)]
        Both of `embed_images`.
    n : int

    Returns
    -------
    list of (int, float)
        Row and cosine similarity, the most alike first.
    """
    similarity, rows = (known @ asked).topk(min(n, len(known)))
    return list(zip(rows.tolist(), similarity.tolist(), strict=True))
