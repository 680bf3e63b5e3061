"""The plots show what was trained, and say what is missing where they cannot."""

import numpy as np
import pytest
from fastai.learner import load_learner
from PIL import Image

from melgenre.networks import ArchitectureError
from melgenre.training.dataloaders import image_dataloaders
from melgenre.training.learner import genre_learner, predict_tracks
from melgenre.training.network_plots import plot_feature_maps, plot_network
from melgenre.training.plots import (
    RecordError,
    plot_learning_curves,
    plot_ood_scores,
    plot_reliability,
)


@pytest.fixture(scope="module")
def texture(images):
    """A texture network whose head is not trained."""
    return genre_learner(image_dataloaders(images), "efficientnet_lite0", "texture")


def texts(ax):
    return "\n".join(text.get_text() for text in ax.texts)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.slow
def test_learning_curves_show_each_epoch_even_after_a_prediction(images):
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    learn = genre_learner(image_dataloaders(few), "resnet18", "smoke-test", pretrained=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
    losses = np.array([row[:2] for row in learn.recorder.values])
    predict_tracks(learn, few)
    ax = plot_learning_curves({"one": learn, "two": learn})
    validation, training = ax.get_lines()[:2]
    np.testing.assert_allclose(training.get_ydata(), losses[:, 0])
    np.testing.assert_allclose(validation.get_ydata(), losses[:, 1])
    assert validation.get_xdata().tolist() == [1, 2]
    assert validation.get_color() == training.get_color() != ax.get_lines()[2].get_color()
    assert labels(ax)[0] == "one, validation"


def test_a_learner_without_a_record_has_no_learning_curves(texture):
    with pytest.raises(RecordError, match="'new' has no record of a training"):
        plot_learning_curves({"new": texture})


def test_the_diagram_of_a_texture_network_shows_its_shapes(texture):
    text = texts(plot_network(texture))
    for shape in ("24 maps of 32 × 97", "40 maps of 32 × 97", "2048 → 512 → 10", "16 zones"):
        assert shape in text


def test_the_diagram_of_a_whole_network_shows_its_shapes(learner):
    text = texts(plot_network(learner))
    for shape in ("512 maps of 4 × 13", "1024 → 512 → 4", "4 genres"):
        assert shape in text


def test_feature_maps_stand_beside_a_mean_and_a_deviation_per_zone(texture, images):
    figure = plot_feature_maps(texture, images["image"].iloc[0], n=3)
    axes = np.reshape(figure.axes, (4, 3))
    for row in axes[1:]:
        assert len(row[0].images) == 1
        assert [len(ax.patches) for ax in row[1:]] == [16, 16]
    deviations = [np.mean([bar.get_width() for bar in ax.patches]) for ax in axes[1:, 2]]
    assert deviations == sorted(deviations, reverse=True)


def test_a_whole_network_has_no_zones(learner, images):
    with pytest.raises(ArchitectureError, match="Choose a recipe for textures"):
        plot_feature_maps(learner, images["image"].iloc[0])


@pytest.mark.slow
def test_a_reliability_diagram_shows_the_error_before_and_after(learner):
    ax = plot_reliability(learner)
    assert [label.split(":")[0].split(" (")[0] for label in labels(ax)[1:]] == ["before", "after"]
    assert all("ECE" in label for label in labels(ax)[1:])
    assert "8 validation clips in 5 bins" in ax.get_title()


def test_a_sound_in_a_file_and_in_an_array_have_the_same_score(learner, images):
    file = images["image"].iloc[0]
    ax = plot_ood_scores(learner, {"file": file, "array": np.asarray(Image.open(file))})
    scores = [label.split()[-1] for label in labels(ax) if label.startswith(("file", "array"))]
    assert len(scores) == 2 and scores[0] == scores[1]
    assert sum(bar.get_height() for bar in ax.patches) == 8


def test_a_loaded_learner_has_no_validation_clips(learner, tmp_path):
    learner.export(tmp_path / "learner.pkl")
    loaded = load_learner(tmp_path / "learner.pkl")
    with pytest.raises(RecordError, match="no validation clips"):
        plot_reliability(loaded)
    with pytest.raises(RecordError, match="no validation clips"):
        plot_ood_scores(loaded, {})
