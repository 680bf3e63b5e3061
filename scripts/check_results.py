"""Compute every committed result again from its predictions, and print each difference.

python scripts/check_results.py [FOLDER]
"""

import sys
from pathlib import Path

import pandas as pd

from melgenre.data.gtzan import gtzan_metadata
from melgenre.evaluation.metrics import evaluate
from melgenre.evaluation.results import load_predictions, load_results

ROOT = Path(__file__).resolve().parent.parent
COMPARED = ("tracks", "accuracy", "interval", "macro_f1", "recall")


def differences(folder, run):
    """Differences between the recorded result of a run and the result of its predictions.

    Parameters
    ----------
    folder : str or Path
    run : pd.Series
        A row of `melgenre.evaluation.results.load_results`.

    Returns
    -------
    dict
        The quantity -> recorded value and computed value. Empty if all values agree.
    """
    again = evaluate(load_predictions(folder, pd.DataFrame([run])), run["protocol"])
    return {
        name: (run[name], again[name]) for name in COMPARED if not _same(run[name], again[name])
    }


def _same(recorded, computed):
    """Equal up to the rounding of bootstrap intervals."""
    if isinstance(recorded, dict):
        recorded = {genre: recall for genre, recall in recorded.items() if recall is not None}
        return recorded == computed
    if isinstance(recorded, list):
        return all(abs(a - b) <= 1e-4 for a, b in zip(recorded, computed, strict=True))
    return recorded == computed


def unknown_tracks(folder, run):
    """Tracks of a run's predictions that are not in GTZAN, or have another genre there."""
    predictions = load_predictions(folder, pd.DataFrame([run]))
    genres = predictions["track_id"].map(gtzan_metadata().set_index("track_id")["genre"])
    return predictions.loc[genres != predictions["genre"], "track_id"].tolist()


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results"
    written = len((folder / "runs.jsonl").read_text().splitlines())
    runs = load_results(folder)
    wrong = written - len(runs)
    for _, run in runs.iterrows():
        found = differences(folder, run)
        if run["collection"] == "gtzan" and unknown_tracks(folder, run):
            found["tracks not in GTZAN"] = unknown_tracks(folder, run)
        for name, values in found.items():
            print(f"{run['predictions']}: {name}: {values}")
        wrong += bool(found)
    print(f"{written} results computed again from their predictions, {wrong} differ.")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
