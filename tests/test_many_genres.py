"""161 unbalanced genres: from a folder of images to an exported model and its confusions."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from fastai.vision.all import noop
from genre_tree import TOP, folder_name, sizes, with_parents, write_images

from melgenre.app.worker import _html
from melgenre.confusion.browser import ConfusionBrowser
from melgenre.data.collection import load_collection
from melgenre.data.protocols import protocols_for
from melgenre.data.table import probabilities
from melgenre.evaluation.metrics import format_score
from melgenre.experiments import train_and_evaluate
from melgenre.inference.classifier import GenreClassifier
from melgenre.networks import BUILT_IN
from melgenre.training.export import export_learner

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """The table of a made-up collection of 161 genres with 40 to 3 tracks."""
    folder = tmp_path_factory.mktemp("many") / "tree"
    write_images(folder, sizes(largest=40))
    with pytest.warns(match=r"Fewer than 10 songs of .* and \d+ more: too few"):
        tracks = load_collection(folder)
    names = {folder_name(genre): genre for genre in TOP}
    return tracks.assign(genre=tracks["genre"].map(names))  # with FMA's slashes


@pytest.fixture(scope="module")
def run(collection, tmp_path_factory):
    """A training by the balanced discriminant; artists are separated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELGENRE_HOME", str(tmp_path_factory.mktemp("home")))
        return train_and_evaluate(
            collection, "artist-split", BUILT_IN, "balanced-discriminant", log=noop
        )


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    """The folder of the exported model."""
    return export_learner(run, tmp_path_factory.mktemp("models") / "many")


def test_artists_are_separated_although_most_genres_have_two(collection):
    assert protocols_for(collection) == ["random", "artist-split"]


def test_every_genre_is_learned_and_counts_in_the_result(run, collection):
    assert list(run.learner.dls.vocab) == sorted(TOP)
    assert run.result["untested"] == []
    assert len(run.result["recall"]) == 161
    assert run.result["macro_f1"] > 0.5  # patterns are easier than music
    low, high = run.result["macro_f1_interval"]
    assert 0.5 < low < high <= 1
    assert len(format_score(run.result)) < 150


def test_the_model_card_has_a_row_per_genre_instead_of_a_matrix(run, model):
    card = (model / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d*) \|", card, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == sorted(TOP)
    tested = run.predictions["genre"].value_counts()
    assert all(int(n) == tested[name] for name, n, _ in rows)
    f1 = f"{100 * run.result['macro_f1']:.1f} %"
    assert f"| macro F1 (all genres weigh the same) | {f1} [" in card
    assert max(map(len, card.splitlines())) < 500


@pytest.mark.filterwarnings("error::pandas.errors.PerformanceWarning")
def test_the_exported_model_predicts_and_plots_a_recording(model):
    classifier = GenreClassifier.load(model)
    noise = np.random.default_rng(0).normal(0, 0.1, 22050 * 70).astype(np.float32)
    analysis = classifier.analyze((noise, 22050))
    assert set(analysis.prediction) == set(TOP)
    assert sum(analysis.prediction.values()) == pytest.approx(1, abs=1e-4)
    assert probabilities(analysis.timeline).shape[1] == 161
    # The plot names the most probable genres, at a size that can be read.
    legend = analysis.plot().get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    assert "other genres" in labels and len(labels) <= 21
    assert legend.get_texts()[0].get_fontsize() > 4
    # So does the page.
    table, _ = _html(analysis, "noise.wav")
    assert table.count("<tr>") == 20
    assert "142 other genres" in table


def test_the_browser_sends_one_message_of_bounded_size(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        browser = ConfusionBrowser(run.predictions, learn=run.learner)
    assert len(json.dumps(browser.matrix)) < 150_000
    assert sorted(browser.matrix["genres"]) == sorted(TOP)
    assert np.sum(browser.matrix["counts"]) == len(run.predictions)
    with pytest.raises(Exception, match=r"has no genre 'noise'.* and 151 more, or None"):
        browser.selection = ("noise", None)
    browser.selection = ("Polka", None)
    assert set(browser.selected["genre"]) == {"Polka"}


@pytest.fixture(scope="module")
def lists(collection):
    """The same tracks, each with the genres above its own, as FMA lists them in `tracks.csv`."""
    folder = Path(collection["image"].iloc[0]).parents[2]
    rows = collection[["track_id", "artist_id"]].assign(
        genres=[";".join(with_parents(genre)) for genre in collection["genre"]]
    )
    rows.to_csv(folder / "tracks.csv", index=False)
    with pytest.warns(match=r"Fewer than 10 songs of .* and \d+ more: too few"):
        return load_collection(folder)


@pytest.fixture(scope="module")
def multi_label_run(lists, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELGENRE_HOME", str(tmp_path_factory.mktemp("home")))
        return train_and_evaluate(lists, "artist-split", BUILT_IN, "discriminant", log=noop)


def test_all_genres_of_a_song_are_learned(multi_label_run, lists, collection):
    assert lists["genre"].tolist() == [sorted(with_parents(one)) for one in collection["genre"]]
    assert list(multi_label_run.learner.dls.vocab) == sorted(TOP)
    assert multi_label_run.result["mean_average_precision"] > 0.5
    found = multi_label_run.predictions
    rows = zip(found["genre"], found["predicted"], strict=True)
    assert np.mean([TOP[true[0]] in predicted for true, predicted in rows]) > 0.8


def test_a_model_of_several_genres_is_exported_with_a_threshold_for_each(multi_label_run, tmp_path):
    classifier = GenreClassifier.load(export_learner(multi_label_run, tmp_path / "lists"))
    assert sorted(classifier.thresholds) == sorted(TOP)
    noise = np.random.default_rng(0).normal(0, 0.1, 22050 * 31).astype(np.float32)
    prediction = classifier.predict((noise, 22050))
    assert set(prediction) == set(TOP)
    assert set(prediction.genres) <= set(TOP)
