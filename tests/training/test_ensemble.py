"""The linear discriminant as a head, and ensembles that are trained and exported as one network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import run_of
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from melgenre.data.splits import SplitError, held_out
from melgenre.heads import SignedRoot, head_with_ood_score, member_heads
from melgenre.inference.classifier import GenreClassifier
from melgenre.networks import BUILT_IN, ArchitectureError, build_network, weights_source
from melgenre.training import recipes
from melgenre.training.calibration import calibrate, calibrated_copy
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.discriminant import COMPONENTS, fit_discriminant
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, predict_tracks
from melgenre.training.network_plots import plot_network
from melgenre.training.transfer import transfer_learner


@pytest.mark.parametrize(("n", "d", "k"), [(40, 500, 3), (450, 420, 3), (12, 3, 3), (30, 50, 2)])
def test_a_discriminant_is_one_linear_layer_with_scikit_learns_logits(n, d, k):
    torch.manual_seed(0)
    genres = torch.arange(n) % k
    features = torch.randn(n, d) * torch.rand(d) * 5 + genres[:, None] * torch.randn(d) + 2
    head = nn.Sequential(SignedRoot(), nn.BatchNorm1d(d), nn.Linear(d, k))
    fit_discriminant(head, features, genres, shrinkage=0.2)
    lda = make_pipeline(
        StandardScaler(),
        PCA(min(COMPONENTS, n - 1, d), svd_solver="full"),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2),
    )
    roots = SignedRoot()(features.double()).numpy()
    expected = lda.fit(roots, genres).decision_function(roots)
    if k == 2:  # scikit-learn gives the difference
        expected = np.stack([0 * expected, expected], axis=1)
    with torch.no_grad():
        logits, ood_score = head_with_ood_score(head.eval(), features)
    logits = logits.double().numpy()
    # The same but for a constant of each clip, and the temperature.
    differences, expected = logits - logits[:, :1], expected - expected[:, :1]
    temperature = np.median(expected[:, 1:] / differences[:, 1:])
    assert 1 / 3 < temperature < 20.1
    scale = np.abs(expected).max()
    np.testing.assert_allclose(differences * temperature, expected, atol=1e-3 * scale)
    assert ood_score.square().mean() == pytest.approx(1, abs=0.01)


def test_a_discriminant_of_few_clips_is_not_overconfident():
    # Noise: no genre is more probable than another.
    torch.manual_seed(0)
    genres = torch.arange(60) % 3
    head = nn.Sequential(SignedRoot(), nn.BatchNorm1d(200), nn.Linear(200, 3))
    fit_discriminant(head, torch.randn(60, 200), genres, shrinkage=0.2)
    with torch.no_grad():
        confidence = head.eval()(torch.randn(300, 200)).softmax(dim=1).amax(dim=1)
    assert confidence.mean() < 0.5


def test_a_discriminant_of_one_clip_per_genre_raises_an_error():
    head = nn.Sequential(SignedRoot(), nn.BatchNorm1d(20), nn.Linear(20, 3))
    with pytest.raises(SplitError, match="3 clips of 3 genres"):
        fit_discriminant(head, torch.randn(3, 20), torch.arange(3), shrinkage=0.2)


@pytest.fixture(scope="module")
def few(images):
    return images[images["genre"].isin(sorted(images["genre"].unique())[:3])].reset_index(drop=True)


@pytest.fixture(scope="module")
def ensemble(few):
    """The built-in backbone and a small network, with four heads each, after a short training."""
    with pytest.MonkeyPatch.context() as patch:
        short = replace(recipes.RECIPES["ensemble"], freeze_epochs=2)
        patch.setitem(recipes.RECIPES, "ensemble", short)
        learn = genre_learner(image_dataloaders(few), f"{BUILT_IN}+{BUILT_IN}", "ensemble")
        with learn.no_bar(), learn.no_logging():
            fit(learn)
    return learn


@pytest.mark.slow
@torch.no_grad()
def test_an_ensemble_predicts_the_mean_of_its_members(ensemble, few):
    body, head = ensemble.model.eval()
    assert weights_source(ensemble.training_run.architecture) == weights_source(BUILT_IN)
    (batch,) = ensemble.dls.test_dl(few, num_workers=0, bs=len(few)).one_batch()
    features = torch.cat([backbone(batch) for backbone in body], dim=1)
    members = [member(features).softmax(dim=1) for member in member_heads(head)]
    assert len(members) == 8
    assert not torch.allclose(members[0], members[1], atol=1e-3)  # other initial weights
    mean = torch.stack(members).mean(dim=0)
    predicted = predict_tracks(ensemble, few).filter(like="p_").to_numpy()
    np.testing.assert_allclose(predicted, mean, atol=1e-3)
    scores = [head_with_ood_score(member, features)[1] for member in member_heads(head)]
    expected = torch.stack(scores).square().mean(dim=0).sqrt()
    torch.testing.assert_close(head_with_ood_score(head, features)[1], expected)


@pytest.mark.slow
def test_the_diagram_of_an_ensemble_shows_its_backbones(ensemble):
    ax = plot_network(ensemble)
    text = " ".join(part.get_text() for part in ax.texts)
    assert text.count(f"{BUILT_IN}: 2048 textures") == 2
    assert "8 heads, mean of" in text


@pytest.mark.slow
def test_each_head_of_an_ensemble_is_trained_alone(ensemble, few):
    # The discriminants use the first and the second half of the features, and no random numbers.
    alone = genre_learner(image_dataloaders(few), BUILT_IN, "discriminant")
    with alone.no_bar(), alone.no_logging():
        fit(alone)
    for number in (3, 7):
        member = member_heads(ensemble.model[1])[number]
        torch.testing.assert_close(member[-1].weight, alone.model[1][-1].weight)


@pytest.mark.slow
def test_an_exported_ensemble_predicts_the_same_in_all_forms(ensemble, few, tmp_path):
    predictions = predict_tracks(ensemble, held_out(few))
    folder = export_learner(run_of(ensemble, predictions), tmp_path / "ensemble")
    temperature = calibrate(ensemble)["temperature"]
    expected = predictions.filter(like="p_").to_numpy() ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    images = [np.asarray(Image.open(file)) for file in predictions["image"]]
    answers = [
        GenreClassifier.load(folder, backend=backend).predict_images(images)
        for backend in ("torch", "onnx")
    ]
    for probabilities, _ in answers:
        np.testing.assert_allclose(probabilities, expected, atol=2e-3)
    np.testing.assert_allclose(answers[0][1], answers[1][1], rtol=1e-3)
    loaded, _ = load_exported(folder)
    by_fastai = predict_tracks(loaded, predictions[list(few)]).filter(like="p_")
    np.testing.assert_allclose(by_fastai, expected, atol=2e-3)
    started = transfer_learner(image_dataloaders(few), folder)  # keeps the weights of the genres
    last, exported = (learn.model[1][-1] for learn in (started, loaded))
    torch.testing.assert_close(last[0].weight, exported[0].weight)


@torch.no_grad()
def test_the_temperature_divides_the_logits_of_an_ensemble():
    network = build_network(BUILT_IN, 3, "texture+linear").eval()
    images = torch.rand(2, 3, 128, 387)
    torch.testing.assert_close(calibrated_copy(network, 2.0)(images), network(images) / 2)


def test_whole_networks_are_not_joined(few):
    for name, body in (("resnet18+resnet34", "whole"), ("resnet18", "texture+whole")):
        with pytest.raises(ArchitectureError, match="An ensemble has networks of textures"):
            build_network(name, 3, body)
