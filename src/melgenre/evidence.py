"""Why a network said so: what in a picture spoke for a genre, and which known clips are like it."""

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch.nn.functional import normalize

from .frozen import body_features, feature_folder

STEPS = 8  # from silence to the picture; more change the map little, and take longer


def picture_evidence(learn, picture, genres):
    """How much each point of a picture spoke for some genres, against silence.

    Integrated gradients: the picture is faded in from black, which is silence, and each point is
    given the share that it had in the change of the genre's logit (Sundararajan, Taly and Yan,
    "Axiomatic attribution for deep networks", 2017), by Captum.

    Parameters
    ----------
    learn : fastai.learner.Learner
    picture : str or Path
    genres : list of str
        Of the learner's vocabulary.

    Returns
    -------
    np.ndarray [shape=(len(genres), n_mels, columns)]
        Logits; they add up to the genre's logit less that of silence, but for the steps.
    """
    asked = _batch(learn, picture)
    silence = _batch(learn, np.zeros((*asked.shape[-2:], 3), dtype=np.uint8))
    learn.model.eval()
    explained = IntegratedGradients(learn.model).attribute(
        asked.expand(len(genres), -1, -1, -1),
        baselines=silence,
        target=[learn.dls.vocab.o2i[genre] for genre in genres],
        n_steps=STEPS,
        internal_batch_size=4,
    )
    return explained.sum(dim=1).detach().float().cpu().numpy()


def _batch(learn, picture):
    """One picture, a file or an array, as the learner's own DataLoaders prepare it."""
    (batch,) = learn.dls.test_dl([picture], num_workers=0, bs=1).one_batch()
    return torch.Tensor(batch)  # fastai's own kind of tensor minds what Captum does with it


def embed_pictures(learn, tracks):
    """What the network's last layer is given of each picture.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Its model is a body and a head, as fastai makes it.
    tracks : pd.DataFrame
        With `picture`.

    Returns
    -------
    torch.Tensor [shape=(n, d)]
        Of length 1, so that products are cosine similarities.
    """
    body, head = learn.model.eval()
    parts = []
    with torch.inference_mode():
        if getattr(learn, "frozen", False):
            device = next(head.parameters()).device
            features = torch.from_numpy(body_features(learn, tracks, feature_folder()))
            parts.append(head[:-1](features.to(device)))
        else:
            for (batch,) in learn.dls.test_dl(tracks, num_workers=0):
                parts.append(head[:-1](body(batch)))
    return normalize(torch.cat([torch.Tensor(part) for part in parts]).float()).cpu()


def nearest(asked, known, n=5):
    """The rows of `known` most like one embedding.

    Parameters
    ----------
    asked : torch.Tensor [shape=(d,)]
    known : torch.Tensor [shape=(n_known, d)]
        Both of `embed_pictures`.
    n : int

    Returns
    -------
    list of (int, float)
        Row and cosine similarity, the most alike first.
    """
    similarity, rows = (known @ asked).topk(min(n, len(known)))
    return list(zip(rows.tolist(), similarity.tolist(), strict=True))
