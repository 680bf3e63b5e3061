"""The committed results agree with their predictions and with the README."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
from conftest import ROOT

from melgenre.data.gtzan import gtzan_metadata
from melgenre.evaluation.metrics import evaluate
from melgenre.evaluation.report import (
    compare_models,
    plot_published,
    plot_results,
    plot_slopes,
    results_table as table_of_results,
)
from melgenre.evaluation.results import (
    ResultsError,
    load_predictions,
    load_results,
    record_run,
    summarise_results,
)
from melgenre.evaluation.run import Run

sys.path.append(str(ROOT / "scripts"))
from check_results import differences, unknown_tracks  # noqa: E402
from results_table import short, with_table  # noqa: E402

RUNS = [run for _, run in load_results(ROOT / "results").iterrows()]


def test_all_committed_runs_are_loaded():
    assert len(RUNS) == len((ROOT / "results" / "runs.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_the_readmes_have_the_committed_results():
    table = table_of_results(ROOT / "results")
    for file, shown in ("README.md", short(table)), ("results/README.md", table):
        text = (ROOT / file).read_text()
        assert with_table(text, shown) == text


def test_the_readme_shows_some_models_under_two_protocols(tmp_path):
    for protocol in ("random", "random-10-fold", "artist-3-fold"):
        record_run(tmp_path, evaluated("resnet34, texture", protocol))
        record_run(tmp_path, evaluated("small", protocol))
    table = short(table_of_results(tmp_path))
    assert list(table) == ["usual random split", "no artist on both sides"]
    assert list(table.index) == ["ResNet34, textures"]


@pytest.mark.slow
def test_the_first_sentence_of_the_readme_has_the_figures_of_its_table():
    first = (ROOT / "README.md").read_text().split("<!--")[0]
    means = summarise_results(ROOT / "results").query("model == 'resnet34, texture'")
    accuracy = means.set_index("protocol")["accuracy"]
    figures = [
        f"{accuracy[name]:.0%}".replace("%", " %") for name in ("random-10-fold", "artist-3-fold")
    ]
    assert re.findall(r"\d+ %", first) == figures


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["predictions"])
def test_each_result_follows_from_its_predictions(run):
    assert differences(ROOT / "results", run) == {}
    assert unknown_tracks(ROOT / "results", run) == []
    metadata = gtzan_metadata()
    predictions = load_predictions(ROOT / "results", pd.DataFrame([run])).merge(
        metadata[["track_id", "fault_filtered_split"]], on="track_id", how="left"
    )
    probabilities = predictions.filter(like="p_")
    if len(probabilities.columns):
        highest = probabilities.idxmax(axis=1).str.removeprefix("p_")
        assert (highest == predictions["predicted"]).mean() > 0.98  # rounded ones may be equal
    assert not predictions["track_id"].duplicated().any()
    if run["protocol"] == "random-10-fold":
        assert len(predictions) in (999, 1000)
    if run["protocol"] == "artist-3-fold":
        assert set(predictions["track_id"]) >= set(
            metadata.dropna(subset="artist_fold")["track_id"]
        ) - {"jazz.00054"}
    if run["protocol"].startswith("fault-filtered"):
        assert set(predictions["fault_filtered_split"]) == {"test"}
        assert len(predictions) == 290


def example(*, jazz=(0.9, 0.1), seed=0):
    """A run with predictions of two tracks, one of jazz and one of rock, given their `p_jazz`."""
    predictions = pd.DataFrame({"track_id": ["a", "b"], "genre": ["jazz", "rock"]})
    predictions = predictions.assign(p_jazz=jazz, p_rock=[1 - p for p in jazz])
    predictions["predicted"] = ["jazz" if p > 0.5 else "rock" for p in jazz]
    return Run(
        model="small, smoke-test", architecture="small", recipe="smoke-test", weights="none",
        seed=seed, collection="c", train_tracks=2, result=evaluate(predictions, "random"),
        predictions=predictions,
    )  # fmt: skip


def evaluated(model, protocol, **kwargs):
    """A run of a model under a protocol."""
    run = example(**kwargs)
    return replace(run, model=model, result=evaluate(run.predictions, protocol))


def test_a_run_is_recorded_and_replaces_an_earlier_run_of_its_seed(tmp_path):
    record_run(tmp_path, example(jazz=(0.1, 0.9)))
    record_run(tmp_path, example(seed=1))
    record_run(tmp_path, example(jazz=(0.8766, 0.9)))
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").open()]
    assert [(line["seed"], line["accuracy"]) for line in lines] == [(0, 0.5), (1, 1.0)]
    kept = pd.read_csv(tmp_path / "predictions" / lines[0]["predictions"])
    assert kept["p_jazz"].tolist() == [0.877, 0.9]


@pytest.mark.slow
def test_runs_recorded_at_the_same_time_are_all_kept(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: record_run(tmp_path, example(seed=seed)), range(16)))
    assert sorted(load_results(tmp_path)["seed"]) == list(range(16))


def test_an_incomplete_last_line_is_skipped_and_the_next_run_removes_it(tmp_path):
    record_run(tmp_path, example())
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"model": "small, qu')
    with pytest.warns(UserWarning, match="last line of runs.jsonl is incomplete"):
        assert len(load_results(tmp_path)) == 1
    with pytest.warns(UserWarning, match="incomplete"):
        record_run(tmp_path, example(seed=1))
    assert len(load_results(tmp_path)) == 2


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    record_run(tmp_path, example())
    file = tmp_path / "runs.jsonl"
    file.write_text('{"model"\n' + file.read_text())
    with pytest.raises(ResultsError, match="Line 1 of runs.jsonl is damaged"):
        load_results(tmp_path)


@pytest.mark.parametrize("damage, sentence", [
    (lambda file: file.unlink(), "its predictions are missing"),
    (lambda file: file.write_text(file.read_text().replace("jazz,jazz", "jazz,rock")), "give 50"),
    (lambda file: file.write_bytes(b"\xff\0"), "its predictions or its accuracy are damaged"),
])  # fmt: skip
def test_a_run_whose_predictions_give_another_accuracy_is_left_out(tmp_path, damage, sentence):
    record_run(tmp_path, example())
    record_run(tmp_path, example(seed=1))
    damage(tmp_path / "predictions" / "c_random_small-smoke-test_0.csv")
    with pytest.warns(UserWarning, match=sentence):
        assert load_results(tmp_path)["seed"].tolist() == [1]


@pytest.mark.parametrize("name, value", [
    ("seed", []), ("seed", [0]), ("accuracy", 10**400), ("accuracy", None), ("model", {}),
])  # fmt: skip
def test_a_line_with_invalid_values_is_left_out(tmp_path, name, value):
    record_run(tmp_path, example())
    record_run(tmp_path, example(seed=1))
    first, second = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    lines = [json.dumps(line) + "\n" for line in (first | {name: value}, second)]
    (tmp_path / "runs.jsonl").write_text("".join(lines))
    with pytest.warns(UserWarning, match="damaged"):
        runs = load_results(tmp_path)
    assert load_predictions(tmp_path, runs)["seed"].unique().tolist() == [1]


def test_predictions_outside_the_results_folder_are_not_read(tmp_path):
    record_run(tmp_path / "results", example())
    predictions = tmp_path / "results" / "predictions"
    (predictions / "c_random_small-smoke-test_0.csv").rename(tmp_path / "other.csv")
    file = tmp_path / "results" / "runs.jsonl"
    file.write_text(file.read_text().replace("c_random_small-smoke-test_0.csv", "../../other.csv"))
    with pytest.warns(UserWarning, match="damaged"):
        assert load_results(tmp_path / "results").empty


def test_a_genre_may_have_a_name_that_pandas_reads_as_missing(tmp_path):
    predictions = example().predictions
    predictions = predictions.replace({"genre": {"jazz": "None"}, "predicted": {"jazz": "None"}})
    predictions = predictions.rename(columns={"p_jazz": "p_None"})
    result = evaluate(predictions, "random")
    record_run(tmp_path, replace(example(), result=result, predictions=predictions))
    assert load_results(tmp_path)["accuracy"].tolist() == [1.0]


def test_an_accuracy_is_the_mean_of_its_seeds(tmp_path):
    record_run(tmp_path, example())
    record_run(tmp_path, example(jazz=(0.9, 0.9), seed=1))
    result = summarise_results(tmp_path).iloc[0]
    assert (result["accuracy"], result["seeds"], result["tracks"]) == (0.75, 2, 2)
    assert result["low"] <= 0.75 <= result["high"]


@pytest.mark.slow
def test_the_best_model_is_compared_with_each_of_the_others():
    table = compare_models(ROOT / "results", "fault-filtered")
    assert table["accuracy"].is_monotonic_decreasing
    others = table.iloc[1:]
    expected = table["accuracy"].iloc[0] - others["accuracy"]
    assert (others["difference"] - expected).abs().max() < 1e-3
    assert (
        (others["low"] <= others["difference"]) & (others["difference"] <= others["high"])
    ).all()
    assert others["p_value"].between(0, 1).all()


def test_models_are_compared_on_the_seeds_that_both_have(tmp_path):
    def other_tracks(run):
        """The run on a split that is drawn by another seed."""
        predictions = run.predictions.assign(track_id=["c", "d"])
        return replace(run, predictions=predictions, result=evaluate(predictions, "random"))

    record_run(tmp_path, evaluated("best", "random"))
    record_run(tmp_path, other_tracks(evaluated("best", "random", seed=1)))
    record_run(tmp_path, evaluated("one seed", "random", jazz=(0.9, 0.8)))
    record_run(tmp_path, evaluated("another seed", "random", jazz=(0.1, 0.9), seed=2))
    table = compare_models(tmp_path, "random")
    assert table["difference"].round(3).to_dict() == pytest.approx(
        {"best": float("nan"), "one seed": 0.5, "another seed": float("nan")}, nan_ok=True
    )


def test_a_table_gives_the_number_of_seeds_if_some_are_missing(tmp_path):
    record_run(tmp_path, example())
    (text,) = table_of_results(tmp_path).loc["small, smoke-test"]
    assert text.startswith("100.0 [") and text.endswith("] (1 of 3 seeds)")


@pytest.mark.slow
def test_the_plots_show_every_result():
    summary = summarise_results(ROOT / "results")
    ax = plot_results(ROOT / "results")
    assert [text.get_text() for text in ax.get_yticklabels()] == list(
        dict.fromkeys(summary["model"])
    )
    shown = sorted(x for bars in ax.containers for x in bars.lines[0].get_xdata())
    assert shown == pytest.approx(sorted(summary["accuracy"]))
    published = pd.DataFrame({"model": ["theirs", "another"], "accuracy": [83.0, 92.0]})
    published["protocol"] = ["fault-filtered", "random"]
    ax = plot_published(published, ROOT / "results")
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert "another" not in names, "it has another protocol"
    assert "theirs" in names and "resnet34, texture (train+valid)" in names


def slopes(ax):
    """The accuracies at the two ends of each line of a model, in %."""
    return [list(line.get_ydata()) for line in ax.lines if list(line.get_xdata()) == [0, 1]]


@pytest.mark.slow
def test_the_slopes_fall_from_the_random_to_the_artist_filtered_folds():
    summary = summarise_results(ROOT / "results")
    ax = plot_slopes(ROOT / "results")
    ends = summary.pivot(index="model", columns="protocol", values="accuracy") * 100
    ends = ends.dropna(subset=["random-10-fold", "artist-3-fold"]).sort_values("artist-3-fold")
    expected = ends[["random-10-fold", "artist-3-fold"]].to_numpy()
    assert slopes(ax) == [pytest.approx(pair) for pair in expected]
    for text, (model, row) in zip(ax.texts, ends.iterrows(), strict=True):
        drop = row["random-10-fold"] - row["artist-3-fold"]
        assert text.get_text() == f"{row['artist-3-fold']:.1f} (−{drop:.1f})  {model}"
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(box.overlaps(above) for box, above in pairwise(boxes))


def test_a_slope_needs_a_random_and_an_artist_filtered_split(tmp_path):
    record_run(tmp_path, evaluated("one", "random"))
    record_run(tmp_path, evaluated("two", "random"))
    (sentence,) = plot_slopes(tmp_path).texts
    assert "No model was evaluated both" in sentence.get_text()
    record_run(tmp_path, evaluated("two", "artist-split", jazz=(0.1, 0.1)))
    ax = plot_slopes(tmp_path)
    assert slopes(ax) == [[100.0, 50.0]]
    assert [text.get_text() for text in ax.texts] == ["50.0 (−50.0)  two"]
    titles = [text.get_text() for text in ax.get_xticklabels()]
    assert titles == ["random 70/30", "artist-filtered 70/30"]
