"""Every model by every protocol, on a small made-up collection."""

import sys

import pytest
from conftest import ROOT

from melgenre.data.splits import SplitError
from melgenre.evaluation.results import load_predictions, load_results
from melgenre.experiments import compare_initialisations, vote

sys.path.append(str(ROOT / "scripts"))
import make_results  # noqa: E402

VOTERS = ["resnet18, frozen-head", "resnet18, texture"]


@pytest.fixture(scope="module")
def run_again(music, tmp_path_factory):
    """A function that runs `make results` on few small models, and goes on where it stopped."""
    folder = tmp_path_factory.mktemp("project")

    def run():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MELGENRE_DATA", str(music))
            patch.setattr(make_results, "PROTOCOLS", ["random"])
            patch.setattr(make_results, "MACHINE", "resnet18")
            patch.setattr(make_results, "NETWORKS", [("resnet18", "frozen-head"),
                                                     ("resnet18", "texture")])  # fmt: skip
            patch.setattr(make_results, "VOTERS", VOTERS)
            patch.setattr(sys, "argv", ["make_results.py", "--seeds", "1", "--results", "results"])
            make_results.main()
        return folder / "results"

    return run


def test_every_model_is_run_once_and_a_vote_is_made_of_what_was_kept(run_again):
    results = run_again()
    lines = (results / "runs.jsonl").read_text().splitlines()
    runs = load_results(results).set_index("model")
    assert len(lines) == len(runs) == 3 + 1 + 2 + 1
    tables = [load_predictions(results, runs.loc[[model]]).set_index("track_id")
              for model in VOTERS]  # fmt: skip
    voted = load_predictions(results, runs.loc[[make_results.VOTE]]).set_index("track_id")
    p = sum(table["p_bellrain"] for table in tables) / 2
    assert voted["p_bellrain"].to_dict() == pytest.approx(p.to_dict(), abs=2e-3)
    # Broken off before the vote: the next run makes only that.
    (results / "runs.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    again = load_results(run_again()).set_index("model").loc[runs.index]
    assert again.loc[make_results.VOTE, "accuracy"] == runs.loc[make_results.VOTE, "accuracy"]
    assert (again["date"] == runs["date"]).drop(make_results.VOTE).all()


def test_a_vote_of_models_that_were_not_run_is_refused(run_again, images):
    results = run_again()
    with pytest.raises(ValueError, match="No vote without resnet99.*random with seed 0"):
        vote(results, "vote", ["resnet99", "resnet18, texture"], "random", images)


@pytest.mark.parametrize("folds", [None, 1, 2])
def test_starts_are_not_compared_on_a_small_collection(images, folds):
    tracks = images if folds is None else images.assign(artist_fold=folds)
    with pytest.raises(SplitError, match="Too few tracks to compare starts"):
        compare_initialisations(tracks, tracks)
