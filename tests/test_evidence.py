"""Why a network said so: the evidence adds up, and a clip's copy is its nearest neighbour."""

import numpy as np
import pytest
import torch
from PIL import Image

from melgenre.evidence import embed_pictures, nearest, picture_evidence
from melgenre.export import load_exported


def test_evidence_adds_up_to_what_the_picture_changes(learner, pictures):
    picture = pictures["picture"].iloc[0]
    genres = list(learner.dls.vocab)[:2]
    maps = picture_evidence(learner, picture, genres)
    assert maps.shape == (2, 128, 387)
    silence = np.zeros((128, 387), dtype=np.uint8)
    batches = learner.dls.test_dl([picture, Image.fromarray(silence).convert("RGB")], num_workers=0)
    with torch.no_grad():
        logits = learner.model(batches.one_batch()[0])[:, :2]
    change = (logits[0] - logits[1]).numpy()
    # The steps from silence are few, so this holds roughly.
    assert maps.sum(axis=(1, 2)) == pytest.approx(
        change, abs=float(0.3 * np.abs(change).max() + 0.3)
    )


def test_black_pixels_are_no_evidence(learner, pictures, tmp_path):
    pixels = np.array(Image.open(pictures["picture"].iloc[0]))
    pixels[:64] = 0  # the upper bands are silent
    Image.fromarray(pixels).save(tmp_path / "low.png")
    maps = picture_evidence(learner, tmp_path / "low.png", [learner.dls.vocab[0]])
    assert not maps[0, :64].any()
    assert maps[0, 64:].any()


def test_the_nearest_clip_is_the_clip_itself(learner, exported, pictures):
    known = pictures.head(8)
    loaded, _ = load_exported(exported)
    for learn in (learner, loaded):
        embedded = embed_pictures(learn, known)
        assert embedded.norm(dim=1).numpy() == pytest.approx(1, abs=1e-4)
        rows, similarities = zip(*nearest(embedded[5], embedded, n=3), strict=True)
        assert rows[0] == 5
        assert similarities[0] == pytest.approx(1, abs=1e-4)
        assert list(similarities) == sorted(similarities, reverse=True)
