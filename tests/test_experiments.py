"""Models under protocols, on a small synthetic collection."""

import sys
from functools import partial

import pytest
from conftest import ROOT

from melgenre.data.protocols import PROTOCOLS, Protocol, apply_protocol
from melgenre.data.splits import SplitError, held_out, random_folds
from melgenre.evaluation.metrics import evaluate
from melgenre.evaluation.results import load_results
from melgenre.experiments import compare_initialisations, train_and_evaluate

sys.path.append(str(ROOT / "scripts"))
import make_results  # noqa: E402


@pytest.fixture(scope="module")
def run_again(music, tmp_path_factory):
    """A function that runs `make results` with small models, and resumes when called again."""
    folder = tmp_path_factory.mktemp("project")

    def run():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MELGENRE_DATA", str(music))
            patch.setattr(make_results, "PROTOCOLS", ["random"])
            patch.setattr(make_results, "SVM_BACKBONE", "resnet18")
            patch.setattr(make_results, "NETWORKS", [("resnet18", "frozen-head"),
                                                     ("resnet18", "texture")])  # fmt: skip
            patch.setattr(sys, "argv", ["make_results.py", "--seeds", "1", "--results", "results"])
            make_results.main()
        return folder / "results"

    return run


@pytest.mark.slow
def test_every_model_is_run_once(run_again):
    results = run_again()
    lines = (results / "runs.jsonl").read_text().splitlines()
    runs = load_results(results).set_index("model")
    assert len(lines) == len(runs) == 3 + 1 + 2
    # If the first run was interrupted before the last model, the next run adds only that.
    last = "resnet18, texture"
    (results / "runs.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    again = load_results(run_again()).set_index("model").loc[runs.index]
    assert again.loc[last, "accuracy"] == runs.loc[last, "accuracy"]
    assert (again["date"] == runs["date"]).drop(last).all()


@pytest.mark.parametrize("folds", [None, 1, 2])
def test_initialisations_are_not_compared_on_a_small_collection(images, folds):
    tracks = images if folds is None else images.assign(artist_fold=folds)
    with pytest.raises(SplitError, match="Too few tracks to compare initialisations"):
        compare_initialisations(tracks, tracks)
    lists = tracks.assign(genre=[[genre] for genre in tracks["genre"]])
    with pytest.raises(SplitError, match="these tracks have lists of genres"):
        compare_initialisations(lists, tracks)


@pytest.mark.slow
def test_a_network_is_trained_and_evaluated_in_one_call(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:3])]
    few = few.drop(columns="split").reset_index(drop=True)
    epochs = []
    run = train_and_evaluate(few, "artist-split", "resnet18", "smoke-test", 1, log=epochs.append)
    assert len(epochs) == 4
    split = apply_protocol(few, "artist-split", 1)
    assert run.predictions["track_id"].tolist() == held_out(split)["track_id"].tolist()
    assert run.result == evaluate(run.predictions, "artist-split", split=split)
    assert run.train_tracks == (split["split"] == "train").sum()
    assert run.learner.dls.vocab == sorted(few["genre"].unique())
    assert run.seconds > 0


@pytest.mark.slow
def test_with_folds_each_track_is_predicted_by_a_network_that_was_not_trained_on_it(
    images, tmp_path, monkeypatch
):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    monkeypatch.setattr("melgenre.training.checkpoint.SECONDS_BETWEEN", 0)
    monkeypatch.setitem(
        PROTOCOLS, "two", Protocol("two", partial(random_folds, n_folds=2), "two folds", True)
    )
    few = images[images["genre"].isin(sorted(images["genre"].unique())[:2])]
    few = few.drop(columns="split").reset_index(drop=True)
    run = train_and_evaluate(few, "two", "resnet18", "smoke-test", log=lambda epoch: None)
    assert sorted(run.predictions["track_id"]) == sorted(few["track_id"])
    assert run.learner is None, "there are two"
    assert not list((tmp_path / "data" / "checkpoints").iterdir())


def test_the_seed_of_a_training_is_the_seed_of_its_split(images):
    few = images.drop(columns="split")
    one, two = (held_out(apply_protocol(few, "artist-split", seed)) for seed in (0, 1))
    assert set(one["track_id"]) != set(two["track_id"])
