"""The results file: a line for every run, its predictions beside it, and the table made of both."""

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from . import __version__
from .collection import gtzan_facts, project_folder
from .evaluation import accuracy_interval

SEED_OF = ["collection", "model", "protocol"]
"""What the seeds of one figure have in common."""


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
    """Append a run to `<folder>/results.jsonl`, and write its predictions beside it.

    Parameters
    ----------
    folder : str or Path
    training : dict
        Of `melgenre.learner.describe_training`: at least `model`, `seed` and `collection`.
    result : dict
        Of `melgenre.evaluation.score`.
    predictions : pd.DataFrame
        Of `melgenre.evaluation.predict_tracks`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = (training["collection"], result["protocol"], training["model"], str(training["seed"]))
    name = re.sub(r"[^\w.-]+", "-", "_".join(named))
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **training, **result, "commit": git_commit(), "predictions": f"{name}.csv",
    }  # fmt: skip
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    kept = ["track_id", "genre", "predicted", *(c for c in predictions if c.startswith("p_"))]
    predictions[kept].round(3).to_csv(folder / f"{name}.csv", index=False)


def git_commit():
    """Short name of the commit whose package made a figure, None outside a checkout."""
    package = str(Path(__file__).parent)

    def git(*arguments):
        command = ["git", "-C", package, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Notebooks change while they run; what counts is whether the package is as committed.
        changed = "-dirty" if git("status", "--porcelain", ".") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None


def package_versions():
    """What a figure was made with: a dict of package and version."""
    names = ("torch", "fastai", "librosa", "scikit-learn", "numpy")
    ours = {"python": platform.python_version(), "melgenre": __version__}
    return ours | {name: version(name) for name in names}


def load_results(folder):
    """Every run of a results file; of runs repeated with the same seed, the last.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    pd.DataFrame
        A row a run, with the columns of its line.
    """
    lines = (Path(folder) / "results.jsonl").read_text().splitlines()
    runs = pd.DataFrame([json.loads(line) for line in lines])
    return runs.drop_duplicates([*SEED_OF, "seed"], keep="last").reset_index(drop=True)


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
        pd.read_csv(Path(folder) / run.predictions).assign(seed=run.seed)
        for run in runs.itertuples()
    ]
    artists = gtzan_facts()[["track_id", "artist_id"]]
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
    for key, runs in load_results(folder).groupby(SEED_OF, sort=False):
        low, high = accuracy_interval(load_predictions(folder, runs))
        rows.append({
            **dict(zip(SEED_OF, key, strict=True)), "weights": runs["weights"].iloc[-1],
            "tracks": runs["tracks"].iloc[-1], "seeds": len(runs),
            "accuracy": runs["accuracy"].mean(), "low": low, "high": high,
            "macro_f1": runs["macro_f1"].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows)
