"""The results file: a line for every run, its predictions beside it, and the table made of both."""

import json
import os
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ..data.gtzan import gtzan_metadata
from ..errors import MelgenreError
from ..files import atomic_write, locked, project_folder, sweep
from ..text import spreadsheet_plain, spreadsheet_safe
from .metrics import bootstrap_ci
from .provenance import git_commit

RESULTS, PREDICTIONS = "runs.jsonl", "predictions"
ROUNDING = 1e-4  # of an accuracy in a line

RESULT_KEY = ["collection", "model", "protocol"]
"""What the seeds of one figure have in common."""
RUN_KEY = [*RESULT_KEY, "seed"]


class ResultsError(MelgenreError, ValueError):
    """A results file that is missing or damaged; the message says what to do."""


def results_folder():
    """Where a notebook writes its figures: `runs/results`, which git ignores.

    The environment variable `MELGENRE_RESULTS` names another folder: `make notebooks` sets it, so
    that the committed figures in `results/` change only with the committed notebooks.

    Returns
    -------
    Path
    """
    named = os.environ.get("MELGENRE_RESULTS")
    return Path(named) if named else project_folder() / "runs" / "results"


def record_result(folder, training, result, predictions):
    """Write a run's line into `<folder>/runs.jsonl`, and its predictions into a file of
    `<folder>/predictions`.

    A line of the same collection, protocol, model and seed is replaced. The predictions are
    written first: a process killed in between leaves at worst a line that `load_results` refuses.

    Parameters
    ----------
    folder : str or Path
    training : dict
        Of `melgenre.training.learner.describe_training`: at least `model`, `seed` and `collection`.
    result : dict
        Of `melgenre.evaluation.metrics.evaluate`.
    predictions : pd.DataFrame
        Of `melgenre.training.learner.predict_tracks`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PREDICTIONS).mkdir(exist_ok=True)
    sweep(folder)
    sweep(folder / PREDICTIONS)
    named = (training["collection"], result["protocol"], training["model"], str(training["seed"]))
    name = re.sub(r"[^\w.-]+", "-", "_".join(named)) + ".csv"
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **training, **result, "commit": git_commit(), "predictions": name,
    }  # fmt: skip
    kept = ["track_id", "genre", "predicted", *(c for c in predictions if c.startswith("p_"))]
    file = folder / RESULTS
    with locked(file):
        with atomic_write(folder / PREDICTIONS / name) as part:
            predictions[kept].round(3).map(spreadsheet_safe).to_csv(part, index=False)
        runs = {run["predictions"]: run for run in _read_lines(file)} | {name: line}
        with atomic_write(file) as part:
            lines = [json.dumps(run, ensure_ascii=False) + "\n" for run in runs.values()]
            part.write_text("".join(lines), encoding="utf-8")


def _read_lines(file):
    """The runs of a results file, as they are written; none if there is no file."""
    if not file.exists():
        return []
    lines = file.read_bytes().splitlines()
    runs = []
    for number, line in enumerate(lines, 1):
        try:
            run = json.loads(line)
            if not isinstance(run, dict) or not isinstance(run["predictions"], str):
                raise ValueError("it is not a run")
            runs.append(run)
        except (ValueError, KeyError, RecursionError) as error:
            if number < len(lines):
                raise ResultsError(
                    f"Line {number} of {file.name} is damaged ({error!r}). Delete that line, and "
                    "run its model again."
                ) from error
            warnings.warn(
                f"The last line of {file.name} is incomplete and was skipped: a run was "
                "interrupted while it was written. Run it again.",
                stacklevel=3,
            )
    return runs


def load_results(folder):
    """The runs of a results file.

    A run whose predictions are missing or do not give its accuracy is left out, with a warning.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    pd.DataFrame
        A row a run, with the columns of its line.

    Raises
    ------
    ResultsError
        If there is no results file, or if a line other than the last is damaged.
    """
    file = Path(folder) / RESULTS
    if not file.exists():
        raise ResultsError(
            f"No {RESULTS} in {file.parent.name!r}: notebooks 04 and 05 and `make results` write "
            "one."
        )
    runs, wrong = [], {}
    for run in _read_lines(file):
        problem = _problem(file.parent, run)
        if problem:
            wrong[run["predictions"]] = problem
        else:
            runs.append(run)
    if wrong:
        listed = "; ".join(f"{name}: {problem}" for name, problem in wrong.items())
        warnings.warn(f"{len(wrong)} runs are left out ({listed}). Run them again.", stacklevel=2)
    return pd.DataFrame(runs, columns=None if runs else RUN_KEY)


def _problem(folder, run):
    """Why a run cannot be trusted, in a few words; None if its predictions give its accuracy."""
    try:
        predictions = _read_predictions(folder, run["predictions"])
        accuracy = (predictions["genre"] == predictions["predicted"]).mean()
        recorded = float(run["accuracy"])
        missing = set(RUN_KEY) - run.keys()
    except FileNotFoundError:
        return "its predictions are missing"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "its predictions or its accuracy are damaged"
    if missing:
        return f"its line has no {', '.join(sorted(missing))}"
    if not all(isinstance(run[name], (str, int)) for name in RUN_KEY):
        return "its line is damaged"
    if not abs(accuracy - recorded) <= ROUNDING:
        return f"its predictions give {accuracy:.2%}, not {recorded:.2%}"
    return None


def _read_predictions(folder, name):
    if Path(name).name != name:  # a results file from elsewhere must not name files of this machine
        raise ValueError(f"{name} is not a file beside the results")
    # A genre may be named "None" or "NA", which pandas would take for a missing value.
    predictions = pd.read_csv(
        Path(folder, PREDICTIONS, name), dtype={"track_id": str}, keep_default_na=False
    )
    probabilities = [column for column in predictions if column.startswith("p_")]
    predictions[probabilities] = predictions[probabilities].apply(pd.to_numeric)
    return predictions.map(spreadsheet_plain)


def load_predictions(folder, runs):
    """The predictions of some runs, one below the other, with the artists of GTZAN's tracks.

    Parameters
    ----------
    folder : str or Path
    runs : pd.DataFrame
        Rows of `load_results`.

    Returns
    -------
    pd.DataFrame
        `track_id`, `genre`, `predicted`, `p_<genre>`, `seed`, `artist_id`.
    """
    tables = [
        _read_predictions(folder, run.predictions).assign(seed=run.seed)
        for run in runs.itertuples()
    ]
    artists = gtzan_metadata()[["track_id", "artist_id"]]
    return pd.concat(tables, ignore_index=True).merge(artists, on="track_id", how="left")


def summarise_results(folder):
    """One row a figure: the mean over its seeds, with the interval over artists.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    pd.DataFrame
        `collection`, `model`, `protocol`, `weights`, `tracks`, `seeds`, `accuracy`, `low`, `high`
        (95 % interval of the mean over the seeds), `macro_f1`.
    """
    rows = []
    for key, runs in load_results(folder).groupby(RESULT_KEY, sort=False):
        low, high = bootstrap_ci(load_predictions(folder, runs))
        rows.append({
            **dict(zip(RESULT_KEY, key, strict=True)), "weights": runs["weights"].iloc[-1],
            "tracks": runs["tracks"].iloc[-1], "seeds": len(runs),
            "accuracy": runs["accuracy"].mean(), "low": low, "high": high,
            "macro_f1": runs["macro_f1"].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows)
