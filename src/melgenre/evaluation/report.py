"""Tables and plots of results: for the README, for notebook 09 and for papers."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.isotonic import IsotonicRegression

from ..data.protocols import PROTOCOLS
from .metrics import paired_permutation_test
from .results import load_predictions, load_results, summarise_results

ENOUGH_SEEDS = 3

RANDOM = ("random-10-fold", "random")
STRICT = ("artist-3-fold", "fault-filtered", "artist-split")
"""The two ends of a slope: of each, the first protocol under which most models were evaluated."""

LABEL_HEIGHT = 0.24
"""Inches from one label of a slope to the next."""


def results_table(folder: str | Path) -> pd.DataFrame:
    """The accuracies of all models (rows) under all protocols (columns), with intervals.

    Parameters
    ----------
    folder
        With the results of `record_run`.

    Returns
    -------
    pd.DataFrame of str
        Such as "71.1 [59.9, 81.5]", in %. A number of seeds below three is named.
    """
    summary = summarise_results(folder)
    summary["text"] = [
        f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        + ("" if row.seeds >= ENOUGH_SEEDS else f" ({row.seeds} of {ENOUGH_SEEDS} seeds)")
        for row in summary.itertuples()
    ]
    table = summary.pivot_table(
        index="model", columns="protocol", values="text", aggfunc="last", sort=False
    )
    table = table[_in_order(summary)].fillna("–")
    return table.rename(columns={name: PROTOCOLS[name].title for name in table})


def plot_results(folder: str | Path) -> Axes:
    """Plot the accuracy of each model under each protocol, with its 95 % interval."""
    summary = summarise_results(folder)
    models, protocols = list(dict.fromkeys(summary["model"])), _in_order(summary)
    _, ax = plt.subplots(figsize=(9, 0.6 * len(models) + 1.5))
    for number, protocol in enumerate(protocols):
        rows = summary[summary["protocol"] == protocol]
        y = rows["model"].map(models.index) + 0.12 * (number - len(protocols) / 2)
        errors = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
        title = PROTOCOLS[protocol].title
        ax.errorbar(rows["accuracy"], y, xerr=errors, fmt="o", label=title, capsize=2)
    ax.set_yticks(range(len(models)), models)
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    ax.set(xlabel="accuracy with its 95 % interval")
    ax.legend(bbox_to_anchor=(1, 1))
    return ax


def plot_slopes(folder: str | Path) -> Axes:
    """Plot how far the accuracy of each model drops from a random split to unseen artists.

    Each line is a model: on the left its mean accuracy on the random split, on the right that on
    the artist-filtered one, with the drop in points. Where no model was evaluated on both, the
    plot is a sentence that says so.

    Parameters
    ----------
    folder
        With the results of `record_run`.
    """
    random, strict, ends = _slopes(summarise_results(folder))
    if ends.empty:
        _, ax = plt.subplots(figsize=(8, 1))
        ax.set_axis_off()
        ax.text(0, 0.5, "No model was evaluated both on a random split and on unseen artists.")
        return ax
    ends = 100 * ends.sort_values(strict)
    bottom, top = ends.min().min() - 3, ends.max().max() + 3
    height = LABEL_HEIGHT * max(len(ends) + 4, 14)
    _, ax = plt.subplots(figsize=(9, height + 0.6))
    heights = _apart(ends[strict], LABEL_HEIGHT * (top - bottom) / height)
    colours = plt.cm.viridis(np.linspace(0, 0.85, len(ends)))
    for (model, row), y, colour in zip(ends.iterrows(), heights, colours, strict=True):
        ax.plot([0, 1], row, "o-", color=colour)
        ax.plot([1, 1.12], [row[strict], y], color=colour, linewidth=0.5, clip_on=False)
        drop = f"{row[strict] - row[random]:+.1f}".replace("-", "−")
        text = f"{row[strict]:.1f} ({drop})  {model}"
        ax.text(1.14, y, text, va="center", fontsize=9)
    ax.set_xticks([0, 1], [PROTOCOLS[random].title, PROTOCOLS[strict].title])
    ax.set(xlim=(-0.1, 1.1), ylim=(bottom, top), ylabel="accuracy in %")
    ax.grid(axis="y", alpha=0.3)
    ax.figure.subplots_adjust(right=0.5)
    return ax


def compare_models(folder: str | Path, protocol: str = "fault-filtered") -> pd.DataFrame:
    """Compare the best model under a protocol with each other model, by a paired test.

    Returns
    -------
    pd.DataFrame
        One row per model, the best first: `accuracy`, `difference` of the best model to it with
        `low` and `high` (95 % interval), and `p_value` of `paired_permutation_test`, on the seeds
        that both have.
    """
    runs = load_results(folder)
    runs = runs[runs["protocol"] == protocol]
    mean = runs.groupby("model")["accuracy"].mean().sort_values(ascending=False)
    tables = {model: load_predictions(folder, runs[runs["model"] == model]) for model in mean.index}
    best = tables[mean.index[0]]
    rows = [{"model": mean.index[0], "accuracy": mean.iloc[0]}]
    for model in mean.index[1:]:
        other = tables[model]
        # A split that is drawn at random differs between seeds.
        shared = set(best["seed"]) & set(other["seed"])
        test = {}
        if shared:
            pair = (table[table["seed"].isin(shared)] for table in (best, other))
            test = paired_permutation_test(*pair)
            test["low"], test["high"] = test.pop("interval")
        rows.append({"model": model, "accuracy": mean[model], **test})
    columns = ["accuracy", "difference", "low", "high", "p_value"]
    return pd.DataFrame(rows).set_index("model").reindex(columns=columns)


def plot_published(published: pd.DataFrame, folder: str | Path) -> Axes:
    """Plot published accuracies on the fault-filtered test of GTZAN beside those of a folder.

    Parameters
    ----------
    published
        With `model`, `accuracy` (in %) and `protocol`.
    folder
        With the results of `record_run`.
    """
    summary = summarise_results(folder)
    summary = summary[summary["protocol"].str.startswith("fault-filtered")]
    with_valid = summary["protocol"] == "fault-filtered-train+valid"
    ours = pd.DataFrame(
        {
            "model": summary["model"] + with_valid.map({True: " (train+valid)", False: ""}),
            **{name: 100 * summary[name] for name in ("accuracy", "low", "high")},
            "source": "this project",
        }
    )
    theirs = published[published["protocol"] == "fault-filtered"][["model", "accuracy"]]
    both = pd.concat([theirs.assign(source="published"), ours])
    both = both.sort_values("accuracy", ignore_index=True)
    _, ax = plt.subplots(figsize=(8, 0.27 * len(both) + 1))
    for source, rows in both.groupby("source"):
        (points,) = ax.plot(rows["accuracy"], rows.index, "o", label=source)
        ax.hlines(rows.index, rows["low"], rows["high"], alpha=0.5, color=points.get_color())
    ax.set_yticks(both.index, both["model"])
    ax.set(xlabel="accuracy on the fault-filtered test in %")
    ax.grid(axis="x", alpha=0.3)
    ax.legend()
    return ax


def _slopes(summary):
    """The random and the strict protocol that most models have, and their accuracies under both."""
    table = summary.pivot_table(
        index="model", columns="protocol", values="accuracy", aggfunc="last", sort=False
    ).reindex(columns=[*RANDOM, *STRICT])
    pairs = [[random, strict] for random in RANDOM for strict in STRICT]
    pair = max(pairs, key=lambda pair: len(table[pair].dropna()))
    return *pair, table[pair].dropna()


def _apart(heights, gap):
    """The nearest heights, by least squares, that are at least a gap apart; they are ascending."""
    steps = gap * np.arange(len(heights))
    return IsotonicRegression().fit_transform(steps, heights - steps) + steps


def _in_order(summary):
    """The protocols of a summary, in the order of `PROTOCOLS`."""
    return [name for name in PROTOCOLS if name in set(summary["protocol"])]
