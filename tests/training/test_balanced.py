"""Balanced recipes: every genre weighs the same in the training."""

import numpy as np
import pandas as pd
import pytest
import torch
from genre_tree import write_images
from sklearn.metrics import recall_score
from torch import nn
from torch.nn.functional import cross_entropy

from melgenre.data.collection import find_tracks
from melgenre.data.splits import random_split
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.discriminant import fit_discriminant
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, genre_weights, is_frozen
from melgenre.training.recipes import RECIPES, RecipeError, get_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_balanced_form_that_differs_in_nothing_else(name):
    plain, balanced = get_recipe(name), get_recipe(f"balanced-{name}")
    assert balanced.balanced and not plain.balanced
    changed = {key for key, value in vars(plain).items() if vars(balanced)[key] != value}
    assert changed <= {"balanced", "built_in"}
    if plain.built_in:
        assert get_recipe(balanced.built_in) == get_recipe(f"balanced-{plain.built_in}")


def test_a_balanced_recipe_takes_epochs_and_has_the_same_errors():
    assert get_recipe("balanced-fine-tune@7").epochs == 7
    with pytest.raises(RecipeError, match="No recipe 'unknown'"):
        get_recipe("balanced-unknown")


def clips(sizes, spread=1.5):
    """Features [shape=(n, 30)] of overlapping genres, and their numbers [shape=(n,)]."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(sizes), 30))
    genres = np.repeat(np.arange(len(sizes)), sizes)
    x = np.abs(3 + centres[genres] + rng.normal(0, spread, (len(genres), 30)))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(genres)


def linear_head(n_genres):
    return nn.Sequential(nn.Identity(), nn.BatchNorm1d(30), nn.Linear(30, n_genres))


def fitted(x, y, **options):
    head = linear_head(int(y.max()) + 1)
    fit_discriminant(head, x, y, shrinkage=0.2, **options)
    return head


def test_a_balanced_discriminant_of_balanced_genres_is_the_plain_one():
    x, y = clips([20, 20, 20])
    plain, balanced = fitted(x, y), fitted(x, y, balanced=True)
    for one, other in zip(plain.parameters(), balanced.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_balanced_discriminant_finds_more_of_the_rare_genres():
    sizes = [100, 100, 8, 8]
    x, y = clips(sizes)
    unseen, genres = clips([100] * 4)
    recalls = []
    for balanced in (False, True):
        predicted = fitted(x, y, balanced=balanced)(unseen).argmax(dim=1)
        recalls.append(recall_score(genres, predicted, average=None))
    assert recalls[1][2:].mean() > recalls[0][2:].mean() + 0.05
    assert recalls[1].mean() > recalls[0].mean()


@pytest.mark.parametrize("balanced", [False, True])
def test_a_genre_of_two_clips_does_not_leave_the_others_overconfident(balanced):
    x, y = clips([12, 12, 12, 2], spread=4)
    unseen, genres = clips([200, 200, 200, 0], spread=4)
    head = fitted(x, y, balanced=balanced)
    with torch.no_grad():
        logits = head(unseen)
    confidence = logits.softmax(dim=1).max(dim=1).values.mean().item()
    accuracy = (logits.argmax(dim=1) == genres).float().mean().item()
    assert abs(confidence - accuracy) < 0.15


@pytest.fixture
def unbalanced(tmp_path):
    """Images of three genres with 4, 8 and 16 tracks, and a split."""
    write_images(tmp_path / "tree", {"Jazz": 4, "Polka": 8, "Rock": 16})
    return random_split(find_tracks(tmp_path / "tree").drop(columns="artist_id"))


def test_the_weights_give_every_genre_the_same_share_of_the_loss(unbalanced):
    dls = image_dataloaders(unbalanced)
    weights = genre_weights(dls)
    tracks = dls.train_ds.items["genre"].value_counts().reindex(list(dls.vocab)).to_numpy()
    assert len(set(tracks)) > 1
    shares = weights.numpy() * tracks
    np.testing.assert_allclose(shares, shares[0], rtol=1e-6)
    assert shares.sum() == pytest.approx(tracks.sum())


@pytest.mark.slow
def test_a_balanced_recipe_trains_with_these_weights(unbalanced, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    dls = image_dataloaders(unbalanced)
    plain = genre_learner(dls, "resnet18", "smoke-test", pretrained=False)
    learn = genre_learner(dls, "resnet18", "balanced-smoke-test", pretrained=False)
    assert plain.loss_func.func.weight is None
    logits, y = torch.randn(len(dls.vocab), len(dls.vocab)), torch.arange(len(dls.vocab))
    expected = cross_entropy(logits, y, weight=genre_weights(dls))
    torch.testing.assert_close(torch.tensor(float(learn.loss_func(logits, y))), expected)
    assert learn.training_run.model == "resnet18, balanced-smoke-test"
    assert not is_frozen(learn)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    assert np.isfinite(pd.DataFrame(learn.recorder.values).to_numpy(dtype=float)).all()
