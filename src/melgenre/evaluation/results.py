"""Runs and their predictions on disk: JSON Lines of runs, one CSV of predictions per run."""

import json
import os
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ..data.gtzan import gtzan_metadata
from ..data.table import PREFIX
from ..errors import MelgenreError, MelgenreWarning
from ..files import atomic_write, locked, project_folder, sweep
from ..text import spreadsheet_plain, spreadsheet_safe
from .bootstrap import bootstrap_ci
from .provenance import git_commit
from .run import Run

RESULTS, PREDICTIONS = "runs.jsonl", "predictions"
ROUNDING = 1e-4
"""Of an accuracy in a line."""

RESULT_KEY = ["collection", "model", "protocol"]
"""What the seeds of one result have in common."""
RUN_KEY = [*RESULT_KEY, "seed"]


class ResultsError(MelgenreError, ValueError):
    """A results file that is missing or damaged; the message says what to do."""


def results_folder() -> Path:
    """The folder for the results of a notebook: `runs/results`, which git ignores.

    The environment variable `MELGENRE_RESULTS` names another folder: `make notebooks` sets it, so
    that the committed results in `results/` change only with the committed notebooks.
    """
    named = os.environ.get("MELGENRE_RESULTS")
    return Path(named) if named else project_folder() / "runs" / "results"


def record_run(folder: str | Path, run: Run) -> None:
    """Write a run to `<folder>/runs.jsonl`, and its predictions to `<folder>/predictions`.

    A line with the same collection, protocol, model and seed is replaced. The predictions are
    written first: a process killed in between leaves at worst a line that `load_results` skips.

    Parameters
    ----------
    run
        With `result` and `predictions`.

    Raises
    ------
    ResultsError
        If the run predicts several genres per song: its lines would have no accuracy to compare.
    """
    if "accuracy" not in run.result:
        raise ResultsError(
            "The results of this folder are accuracies, and a run of several genres per song has "
            "none. Keep it by export_learner: its scores are in the model's README.md."
        )
    folder = Path(folder)
    (folder / PREDICTIONS).mkdir(parents=True, exist_ok=True)
    sweep(folder)
    sweep(folder / PREDICTIONS)
    named = (run.collection, run.result["protocol"], run.model, str(run.seed))
    name = re.sub(r"[^\w.-]+", "-", "_".join(named)) + ".csv"
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **run.provenance(),
        **run.result,
        "commit": git_commit(),
        "predictions": name,
    }
    columns = [column for column in run.predictions if column.startswith(PREFIX)]
    kept = run.predictions[["track_id", "genre", "predicted", *columns]]
    file = folder / RESULTS
    with locked(file):
        with atomic_write(folder / PREDICTIONS / name) as part:
            kept.round(3).map(spreadsheet_safe).to_csv(part, index=False)
        runs = {one["predictions"]: one for one in _read_lines(file)} | {name: line}
        with atomic_write(file) as part:
            lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in runs.values()]
            part.write_text("".join(lines), encoding="utf-8")


def _read_lines(file):
    """The lines of a results file; none if there is no file."""
    if not file.exists():
        return []
    lines = file.read_bytes().splitlines()
    runs = []
    for number, line in enumerate(lines, 1):
        try:
            run = json.loads(line)
            if not isinstance(run, dict) or not isinstance(run["predictions"], str):
                raise ValueError("not a run")
            runs.append(run)
        except (ValueError, KeyError, RecursionError) as error:
            if number < len(lines):
                raise ResultsError(
                    f"Line {number} of {file.name} is damaged ({error!r}). Delete that line, and "
                    "train its model again."
                ) from error
            warnings.warn(
                f"The last line of {file.name} is incomplete and was skipped: a run was "
                "interrupted while it was written. Repeat the run.",
                MelgenreWarning,
                stacklevel=3,
            )
    return runs


def load_results(folder: str | Path) -> pd.DataFrame:
    """Load the runs of a results file.

    A run whose predictions are missing or do not give its accuracy is left out, with a warning.

    Returns
    -------
    pd.DataFrame
        One row per run, with the columns of its line.

    Raises
    ------
    ResultsError
        If there is no results file, or if a line other than the last is damaged.
    """
    file = Path(folder) / RESULTS
    if not file.exists():
        raise ResultsError(
            f"No {RESULTS} in {file.parent.name!r}. Notebooks 04 and 05 and `make results` write "
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
        sentence = f"{len(wrong)} runs are left out ({listed}). Repeat them."
        warnings.warn(sentence, MelgenreWarning, stacklevel=2)
    return pd.DataFrame(runs, columns=None if runs else RUN_KEY)


def _problem(folder, run):
    """Why a run is left out, in a few words; None if its predictions give its accuracy."""
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
    columns = [column for column in predictions if column.startswith(PREFIX)]
    predictions[columns] = predictions[columns].apply(pd.to_numeric)
    return predictions.map(spreadsheet_plain)


def load_predictions(folder: str | Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Load the predictions of some runs into one table, with the artists of GTZAN's tracks.

    Parameters
    ----------
    runs
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


def summarise_results(folder: str | Path) -> pd.DataFrame:
    """Average each result over its seeds, with the interval over artists.

    Returns
    -------
    pd.DataFrame
        One row per collection, model and protocol: these three, and `weights`, `tracks`, `seeds`,
        `accuracy`, `low`, `high` (95 % interval of the mean over the seeds), `macro_f1`.
    """
    rows = []
    for key, runs in load_results(folder).groupby(RESULT_KEY, sort=False):
        low, high = bootstrap_ci(load_predictions(folder, runs))
        row = {
            "weights": runs["weights"].iloc[-1],
            "tracks": runs["tracks"].iloc[-1],
            "seeds": len(runs),
            "accuracy": runs["accuracy"].mean(),
            "low": low,
            "high": high,
            "macro_f1": runs["macro_f1"].mean(),
        }
        rows.append(dict(zip(RESULT_KEY, key, strict=True)) | row)
    return pd.DataFrame(rows)
