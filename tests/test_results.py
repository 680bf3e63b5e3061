"""The committed figures: the README says what the files say, and the predictions say the same."""

import json
import sys

import pandas as pd
import pytest
from conftest import ROOT

from melgenre.collection import gtzan_facts
from melgenre.evaluation import score

sys.path.append(str(ROOT / "scripts"))
from results_table import with_table  # noqa: E402

LINES = (ROOT / "results" / "results.jsonl").read_text().splitlines()


def test_the_readme_says_what_the_results_say():
    readme = (ROOT / "README.md").read_text()
    assert with_table(readme, LINES) == readme


@pytest.mark.parametrize("line", LINES, ids=lambda line: json.loads(line)["predictions"])
def test_each_figure_follows_from_its_predictions(line):
    run = json.loads(line)
    predictions = pd.read_csv(ROOT / "results" / run["predictions"])
    artists = gtzan_facts()[["track_id", "artist_id", "fault_filtered_split"]]
    predictions = predictions.merge(artists, on="track_id", how="left")
    again = score(predictions, run["protocol"])
    assert again["accuracy"] == run["accuracy"]
    assert again["interval"] == pytest.approx(run["interval"], abs=1e-4)
    probabilities = predictions.filter(like="p_")
    named = probabilities.idxmax(axis=1).str.removeprefix("p_")
    assert (named == predictions["predicted"]).mean() > 0.99  # but for ties in rounding
    if run["protocol"] == "fault-filtered":
        assert set(predictions["fault_filtered_split"]) == {"test"}
        assert len(predictions) == 290
