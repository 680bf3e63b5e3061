"""Songs of several genres: from the table of tracks to the exported model."""

import csv
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import BCEWithLogitsLossFlat
from hypothesis import given, settings, strategies as st
from matplotlib.figure import Figure
from torch import nn
from typer.testing import CliRunner

from melgenre.app.worker import _html
from melgenre.cli import app
from melgenre.confusion.browser import ConfusionBrowser
from melgenre.data.genres import genre_matrix
from melgenre.data.splits import SplitError, random_split
from melgenre.data.table import probabilities, probability_columns
from melgenre.evaluation.metrics import EvaluationError
from melgenre.evaluation.multi_label import average_precision
from melgenre.experiments import train_and_evaluate
from melgenre.features.shards import extract_shards
from melgenre.heads import join_heads
from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import ModelError, read_config
from melgenre.inference.prediction import Prediction
from melgenre.inference.timeline import plot_timeline
from melgenre.networks import BUILT_IN
from melgenre.training import cached_features, feature_store
from melgenre.training.calibration import calibrate, calibrated_copy, fit_temperature
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.discriminant import fit_discriminant
from melgenre.training.export import export_learner
from melgenre.training.exported import load_exported, load_split
from melgenre.training.fit import fit
from melgenre.training.learner import genre_learner, genre_weights, predict_tracks
from melgenre.training.multi_label import best_thresholds, genre_targets
from melgenre.training.plots import plot_reliability
from melgenre.training.transfer import transfer_learner

pytestmark = pytest.mark.filterwarnings("ignore::melgenre.errors.MelgenreWarning")


@pytest.fixture(scope="module")
def tracks(images):
    """The synthetic tracks of four genres, of which some have a second one."""
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:4])].reset_index(drop=True)
    first, second = sorted(few["genre"].unique())[:2]
    lists = [[genre, "loud"] if genre in (first, second) else [genre] for genre in few["genre"]]
    return few.assign(genre=lists).drop(columns="split")


@pytest.fixture(scope="module")
def run(tracks, tmp_path_factory):
    """A trained and evaluated head of the built-in backbone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELGENRE_HOME", str(tmp_path_factory.mktemp("home")))
        return train_and_evaluate(tracks, "random", BUILT_IN, "discriminant", log=lambda _: None)


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    """The model folder of `run`."""
    return export_learner(run, tmp_path_factory.mktemp("models") / "several")


@pytest.mark.slow
def test_the_learner_is_multi_label(run, tracks):
    learn = run.learner
    assert list(learn.dls.vocab) == sorted({genre for one in tracks["genre"] for genre in one})
    assert isinstance(learn.loss_func, BCEWithLogitsLossFlat)
    _, targets = learn.dls.valid.one_batch()
    items = learn.dls.valid_ds.items[: len(targets)]
    assert torch.equal(targets.bool(), genre_targets(learn, items))
    assert (learn.dls.valid_ds.items["split"] == "valid").all()


@pytest.mark.slow
def test_the_discriminant_learns_the_genres_and_the_run_is_evaluated(run):
    found = predict_tracks(run.learner, run.learner.dls.train_ds.items)
    assert (found["predicted"] == found["genre"]).mean() > 0.8
    assert run.result["mean_average_precision"] > 0.6
    probability = probabilities(run.predictions)
    assert not np.allclose(probability.sum(axis=1), 1)
    assert probability.to_numpy().min() >= 0 and probability.to_numpy().max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_the_exported_model_predicts_the_same_genres(run, model, backend):
    classifier = GenreClassifier.load(model, backend=backend)
    config = read_config(model)
    assert (config["multi_label"], config["format_version"]) == (True, 7)
    assert set(classifier.thresholds) == set(classifier.genres)
    assert "average_precision" in config["result"]
    learn, _ = load_exported(model)
    predicted = predict_tracks(learn, run.predictions.drop(columns="predicted").iloc[:, :8])
    # Calibration changes probabilities and thresholds alike, and so no prediction.
    assert predicted["predicted"].tolist() == run.predictions["predicted"].tolist()
    for row, song in zip(predicted.itertuples(), run.predictions["path"], strict=True):
        prediction = classifier.predict(song)
        assert sorted(prediction.genres) == row.predicted
        assert prediction.genre == prediction.genres[0]


@pytest.mark.slow
def test_a_loaded_learner_is_multi_label_and_starts_another_one(run, model, tracks, monkeypatch):
    learn, _ = load_exported(model)
    table = predict_tracks(learn, tracks)
    assert table["predicted"].map(type).eq(list).all()
    assert learn.training_run.thresholds == read_config(model)["calibration"]["thresholds"]
    other = transfer_learner(image_dataloaders(random_split(tracks)), model)
    assert isinstance(other.loss_func, BCEWithLogitsLossFlat)
    last = run.learner.model[1][-1].weight
    assert other.model[1][-1].weight.shape == last.shape
    split = load_split(model, tracks)["split"]
    assert split.tolist() == random_split(tracks)["split"].tolist()
    texts = pd.read_csv(model / "split.csv")["genre"]
    assert texts.str.contains("; loud").any()


@pytest.mark.slow
def test_the_model_card_names_the_scores_and_the_thresholds(model):
    card = (model / "README.md").read_text()
    assert "| mean average precision | **" in card
    assert "| genre | average precision | threshold |" in card
    assert "predicts any of 5 genres" in card
    assert "metric" in card and "mean_average_precision" in card


@pytest.mark.slow
def test_songs_of_a_folder_have_several_genres_in_the_table(model, tracks, tmp_path):
    classifier = GenreClassifier.load(model)
    songs = tracks["path"].tolist()[:6]
    table = classify_folder(classifier, songs, tmp_path / "genres.csv", progress=False)
    again = classify_folder(classifier, songs, tmp_path / "genres.csv", progress=False)
    pd.testing.assert_frame_equal(table, again)
    rows = list(csv.DictReader((tmp_path / "genres.csv").open()))
    for row, song in zip(rows, songs, strict=True):
        assert row["genre"] == "; ".join(classifier.predict(song).genres)
    analysis = classifier.analyze(songs[0])
    html, _ = _html(analysis, "song")
    for genre in analysis.prediction.genres:
        assert f"{genre}, {analysis.prediction[genre]:.0%}" in html


@pytest.mark.slow
def test_the_commands_train_on_a_folder_and_print_all_genres_of_a_song(
    tracks, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # the commands set it
    music, model = tmp_path / "mine", tmp_path / "model"
    rows = [("track_id", "genres")]
    for number, (path, genres) in enumerate(zip(tracks["path"], tracks["genre"], strict=True)):
        song = music / "all" / f"{number}{Path(path).suffix}"
        song.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, song)
        rows.append((f"all/{number}", ";".join(genres)))
    with (music / "tracks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    run = CliRunner().invoke
    options = ["--out", str(model), "--architecture", BUILT_IN, "--quiet"]
    trained = run(app, ["train", str(music), *options])
    assert trained.exit_code == 0, trained.output
    assert "Result:   mean average precision " in trained.output
    assert "loud" in trained.output
    song = str(next(music.rglob("0.*")))
    genres = GenreClassifier.load(model).predict(song).genres
    line = run(app, ["predict", song, "--model", str(model)]).stdout
    assert line.startswith(", ".join(genres))
    printed = json.loads(run(app, ["predict", song, "--json", "--model", str(model)]).stdout)
    assert (printed["genre"], printed["genres"]) == (genres[0], genres)


@pytest.mark.slow
def test_a_damaged_threshold_raises_a_model_error(model, tmp_path):
    config = json.loads((model / "config.json").read_text())
    config["format_version"] = 3  # without checksums
    genre = config["genres"][0]
    thresholds = config["calibration"]["thresholds"]
    for wrong in (None, [], {}, thresholds | {genre: 2}, thresholds | {genre: "0.5"}):
        config["calibration"]["thresholds"] = wrong
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="thresholds must be one per genre"):
            read_config(tmp_path)
    config["multi_label"] = "yes"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="multi_label must be true or false"):
        read_config(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["texture", "fine-tune-texture@1"])
def test_other_recipes_train_heads_of_several_genres(recipe, tracks, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    learn = genre_learner(image_dataloaders(random_split(tracks)), BUILT_IN, recipe)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    assert learn.recorder.metric_names[-2] == "average_precision_score"
    found = predict_tracks(learn, learn.dls.train_ds.items)
    true = genre_matrix(found["genre"], learn.dls.vocab)
    assert mean_precision(true, probabilities(found)) > mean_precision(true, np.zeros(true.shape))
    assert set(learn.training_run.thresholds) == set(learn.dls.vocab)


def mean_precision(true, found):
    found = np.asarray(found)
    return np.mean([average_precision(*one)[0] for one in zip(true.T, found.T, strict=True)])


def test_an_ensemble_gives_the_mean_of_the_probabilities_of_each_genre():
    torch.manual_seed(0)
    heads = [nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval() for _ in range(3)]
    joined, x = join_heads(heads, multi_label=True).eval(), torch.randn(5, 4)
    expected = torch.stack([head(x).sigmoid() for head in heads]).mean(dim=0)
    torch.testing.assert_close(joined(x).sigmoid(), expected)
    halved = calibrated_copy(nn.Sequential(nn.Identity(), joined), 2.0)
    torch.testing.assert_close(halved(x), joined(x) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["texture", "discriminant"])
def test_heads_on_shards_and_features_on_disk_are_those_in_memory(
    recipe, tracks, tmp_path, monkeypatch
):
    found = []
    shards = extract_shards(tracks, tmp_path / "shards", progress=False)
    split = random_split(shards)
    files = split.assign(image=tracks.set_index("track_id")["image"][split["track_id"]].to_numpy())
    for number, table in enumerate((files, split)):
        if number:
            monkeypatch.setattr(cached_features, "MOST_IN_MEMORY", 0)
            monkeypatch.setattr(feature_store, "BLOCK_BYTES", 50_000)
        monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / str(number)))
        learn = genre_learner(image_dataloaders(table), BUILT_IN, recipe)
        with learn.no_bar(), learn.no_logging():
            fit(learn)
        found.append(predict_tracks(learn, table))
    one, other = map(probabilities, found)
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_a_balanced_loss_weighs_the_songs_with_a_genre_as_much_as_those_without(
    tracks, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    dls = image_dataloaders(random_split(tracks))
    learn = genre_learner(dls, BUILT_IN, "balanced-texture")
    has = genre_matrix(dls.train_ds.items["genre"], dls.vocab)
    weights = genre_weights(dls).numpy()
    np.testing.assert_allclose(weights * has.sum(axis=0), (~has).sum(axis=0), rtol=1e-6)
    logits = torch.zeros(has.shape)
    expected = np.where(has, weights, 1).mean() * np.log(2)
    assert learn.loss_func(logits, torch.tensor(has)).item() == pytest.approx(expected)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    found = predict_tracks(learn, learn.dls.train_ds.items)
    assert (found["predicted"] == found["genre"]).mean() > 0.8


def test_a_balanced_discriminant_gives_rare_genres_a_higher_probability():
    rng = np.random.default_rng(0)
    several = rng.random((200, 3)) < [0.5, 0.3, 0.05]
    several[:2] = True
    x = torch.tensor(rng.normal(size=(200, 10)) + several @ rng.normal(size=(3, 10))).float()
    means = []
    for balanced in (False, True):
        head = torch.nn.Sequential(torch.nn.BatchNorm1d(10), torch.nn.Linear(10, 3))
        fit_discriminant(head, x, torch.tensor(several), shrinkage=0.2, balanced=balanced)
        means.append(head.eval()(x).sigmoid().mean(dim=0))
    assert means[1][2] > 2 * means[0][2]
    torch.testing.assert_close(means[1][0], means[0][0], atol=0.1, rtol=0)


@pytest.mark.slow
def test_without_a_valid_part_every_threshold_is_a_half(tracks, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    split = random_split(tracks).replace({"split": {"valid": "test"}})
    learn = genre_learner(image_dataloaders(split), BUILT_IN, "discriminant")
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    assert set(learn.training_run.thresholds.values()) == {0.5}
    assert set(calibrate(learn)["thresholds"].values()) == {0.5}


def test_a_genre_of_the_validation_part_alone_gets_a_sentence(tracks):
    split = random_split(tracks)
    split.at[split.index[split["split"] == "valid"][0], "genre"] = ["unheard", "loud"]
    with pytest.raises(SplitError, match="Split the tracks again"):
        image_dataloaders(split)


@pytest.mark.slow
def test_the_reliability_of_all_pairs_is_plotted(run):
    ax = plot_reliability(run.learner)
    assert "validation clips" in ax.get_title()
    assert len(ax.get_legend().get_texts()) == 3


@pytest.mark.slow
def test_a_confusion_matrix_of_several_genres_gets_a_sentence(run):
    with pytest.raises(EvaluationError, match="needs one genre per track"):
        ConfusionBrowser(run.predictions)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(10, 60))
def test_no_other_threshold_has_a_higher_f1(seed, n):
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 20, size=(n, 1)) / 20
    true = rng.random((n, 1)) < p
    true[:5] = True
    chosen = best_thresholds(true, p)[0]
    assert f1(true, p >= chosen) == max(f1(true, p >= t) for t in np.arange(0.025, 1, 0.05))


def f1(true, predicted):
    return 2 * (true & predicted).sum() / max(1, true.sum() + predicted.sum())


def test_a_rare_genre_has_the_threshold_of_all_genres_together():
    rng = np.random.default_rng(0)
    true = rng.random((200, 4)) < [0.3, 0.3, 0.3, 0]
    true[:2, 3] = True
    p = np.clip(0.3 * true + 0.2 + 0.05 * rng.normal(size=true.shape), 0, 1)
    thresholds = best_thresholds(true, p)
    assert thresholds[3] == best_thresholds(true.reshape(-1, 1), p.reshape(-1, 1))[0]
    assert 0.3 < thresholds[3] < 0.45


def test_the_temperature_of_sigmoids_is_recovered():
    torch.manual_seed(0)
    logits = torch.randn(4000, 3)
    true = torch.rand(4000, 3) < logits.sigmoid()
    assert fit_temperature(3 * logits, true) == pytest.approx(3, rel=0.1)


def test_a_genre_of_all_clips_cannot_be_separated():
    head = torch.nn.Sequential(torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    genres = torch.tensor([[True, i % 2 == 0] for i in range(20)])
    with pytest.raises(SplitError, match="All training clips have one genre in common"):
        fit_discriminant(head, torch.randn(20, 5), genres, shrinkage=0.2)


def test_a_prediction_has_the_genres_above_their_thresholds():
    known = {"ood_score": 1.0, "ood_threshold": 1.6, "thresholds": {"a": 0.2, "b": 0.9, "c": 0.5}}
    prediction = Prediction(["a", "b", "c"], [0.3, 0.8, 0.6], **known)
    assert (prediction.genres, prediction.genre) == (["c", "a"], "c")
    # Every song has a genre, unless it is out of distribution.
    assert Prediction(["a", "b", "c"], [0.1, 0.8, 0.4], **known).genres == ["b"]
    unsure = Prediction(["a", "b", "c"], [0.3, 0.8, 0.6], **known | {"ood_score": 2.0})
    assert (unsure.genres, unsure.genre) == ([], "unsure")


def test_probabilities_that_do_not_sum_to_one_are_rows_of_a_heat_map():
    genres = [f"_g{i}$" for i in range(20)]
    timeline = pd.DataFrame({"start": [0.0, 30, 45], "end": [30.0, 60, 75]})
    timeline[probability_columns(genres)] = np.linspace(0, 1, 60).reshape(3, 20)
    timeline["is_ood"] = [False, True, False]
    images = [np.zeros((8, 20), np.uint8)] * 3
    ax = plot_timeline(timeline, images, Figure(), multi_label=True)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown[-1] == r"g19\$" and len(shown) == 12
    heat = ax.collections[0].get_array()
    np.testing.assert_allclose(heat[-1], timeline["p__g19$"])
    assert ax.get_xlim() == (0, 75)
    ax.figure.savefig("/dev/null", format="png")
