"""The README of an exported model, in the Hugging Face hub's conventions."""

import re
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from ..evaluation.metrics import LARGE, confusion_matrix, format_percent
from ..inference.model_folder import FEWEST_CLIPS
from ..text import listed

CARD_TEXT = """
# {architecture} for music genres

Made with melgenre. The network predicts {one_of} genres from the mel-spectrogram of thirty
seconds of sound: {genres}.

| | |
| --- | --- |
| {metric} | **{value:.1f} %**, 95 % interval {low:.1f} to {high:.1f}, on {tracks} tracks |
{f1}| protocol | {protocol} |
| trained on | {train_tracks} tracks of {collection} |
| recipe, seed | {recipe}, {seed} |
| starting weights | {weights} |
| temperature | {temperature}, fitted on {valid_tracks} tracks{how} |

The interval is a bootstrap over artists, where they are known. {table}

## Intended use and limits

It distinguishes the genres of its training set, as they sound there. Genres are conventions, and
the labels of a collection are one person's: GTZAN's are known to have errors. It must not be used
for decisions about people, payments or what is played.
{limit}

## Licence

The starting weights ({weights}) come with their own terms: ImageNet's images are for research. The
recordings that it was trained on belong to their owners, and none is in this folder.
"""


def model_card(config: dict[str, Any], predictions: pd.DataFrame) -> str:
    """The README of an exported model, in Markdown with the hub's header.

    The header has a `model-index`, from which the hub shows the accuracy on the model's page.

    Parameters
    ----------
    config
        Of the folder's `config.json`.
    predictions
        Of the test tracks.
    """
    training, result, calibration = config["training"], config["result"], config["calibration"]
    several, n_genres = config["multi_label"], len(config["genres"])
    metric = "mean average precision" if several else "accuracy"
    header = ModelCardData(
        model_name=config["architecture"],
        eval_results=[_eval_result(training["collection"], result, metric)],
        library_name="melgenre",
        license="other",
        license_name="weights-of-their-origin",
        tags=["music", "audio-classification", "music-genre", "fastai", "mel-spectrogram"],
        pipeline_tag="audio-classification",
    )
    low, high = (100 * bound for bound in result["interval"])
    text = CARD_TEXT.format(
        architecture=config["architecture"],
        one_of=f"{'any' if several else 'one'} of {n_genres}",
        genres=listed(config["genres"], LARGE),
        metric=metric,
        value=100 * result[_key(metric)],
        f1=_f1(result) if several else _macro_f1(result),
        low=low,
        high=high,
        tracks=result["tracks"],
        protocol=_protocol(result),
        temperature=calibration["temperature"],
        valid_tracks=calibration["tracks"],
        how=f" ({calibration['how']})" if "how" in calibration else "",
        limit=_limit(calibration),
        table=_per_genre(config) if several else _matrix(confusion_matrix(predictions)),
        **{
            name: training[name]
            for name in ("train_tracks", "collection", "recipe", "seed", "weights")
        },
    )
    return f"---\n{header.to_yaml()}\n---\n{text}"


def _key(metric):
    """The key of a metric in a result."""
    return metric.replace(" ", "_")


def _f1(result):
    """A row of the card's table."""
    micro, macro = (100 * result[f"{average}_f1"] for average in ("micro", "macro"))
    return f"| F1 | {micro:.1f} % (micro average), {macro:.1f} % (macro average) |\n"


def _eval_result(collection, result, metric):
    """The metric as an entry of the hub's `model-index`."""
    low, high = result["interval"]
    return EvalResult(
        task_type="audio-classification",
        task_name="music genre classification",
        dataset_type=re.sub(r"[^\w.-]+", "-", collection).strip("-.") or "music",
        dataset_name=collection,
        dataset_config=result["protocol"],
        dataset_split="test",
        dataset_args={"tracks": result["tracks"]},
        metric_type=_key(metric),
        metric_name=f"{metric}, 95 % interval {low:.3f} to {high:.3f}",
        metric_value=result[_key(metric)],
        metric_args={"interval": list(result["interval"])},
    )


def _macro_f1(result):
    """The row of the macro F1, which weights a rare genre as much as a common one."""
    if result.get("macro_f1") is None:  # an older result
        return ""
    score = format_percent(result["macro_f1"], result.get("macro_f1_interval"))
    return f"| macro F1 (all genres weigh the same) | {score} |\n"


def _protocol(result):
    untested = listed(result.get("untested", ()))
    return f"{result['protocol']}; not tested: {untested}" if untested else result["protocol"]


def _limit(calibration):
    """What a model predicts for sound that is out of distribution."""
    if calibration["ood_threshold"] is None:
        return (
            f"Calibrated on fewer than {FEWEST_CLIPS} clips, it has no out-of-distribution "
            "threshold: silence, noise and speech get one of its genres."
        )
    return (
        "Sound with an out-of-distribution score above that of 99 % of its held-out clips "
        f"({calibration['ood_threshold']}), such as silence, noise or speech, is predicted as "
        '"unsure".'
    )


def _per_genre(config):
    """The average precision and the threshold of each genre."""
    tested, thresholds = config["result"]["average_precision"], config["calibration"]["thresholds"]
    rows = [
        [
            _cell(genre),
            f"{100 * tested[genre]:.1f} %" if genre in tested else "not tested",
            f"{thresholds[genre]:.2f}",
        ]
        for genre in config["genres"]
    ]
    table = _markdown(["genre", "average precision", "threshold"], rows)
    return "A song has each genre whose\nprobability reaches its threshold:\n\n" + table


def _cell(name):
    return str(name).replace("|", "\\|")


def _matrix(counts):
    """The confusion matrix in Markdown; of many genres, a row for each instead of a column."""
    names = list(map(_cell, counts.index))
    if len(names) > LARGE:
        return "The genres:\n\n" + _markdown(
            ["genre", "test tracks", "correct", "most often predicted as, when wrong"],
            [_genre_row(names, i, counts.to_numpy()[i]) for i in range(len(names))],
        )
    table = _markdown(
        ["true \\ predicted", *names],
        [[name, *row] for name, row in zip(names, counts.to_numpy().tolist(), strict=True)],
    )
    return "The confusion matrix (rows: true\ngenre, columns: predicted genre):\n\n" + table


def _genre_row(names, own, row):
    """A genre, its test tracks, how many are correct, and the most frequent error."""
    wrong = row.copy()
    wrong[own] = 0
    error = f"{names[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
    return [names[own], row.sum(), row[own], error]


def _markdown(header, rows):
    """A table in Markdown, with empty cells for zeros."""
    lines = [header, ["---"] * len(header), *([str(cell or "") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
