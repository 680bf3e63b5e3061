"""The README of an exported model, in the Hugging Face hub's conventions."""

from huggingface_hub import ModelCardData

from ..evaluation.metrics import confusion_matrix
from ..inference.model_folder import FEWEST_CLIPS

CARD_TEXT = """
# {architecture} for music genres

Made by melgenre. It looks at the mel-spectrogram of thirty
seconds of sound and names one of {n_genres} genres: {genres}.

| | |
| --- | --- |
| accuracy | **{accuracy:.1f} %**, 95 % interval {low:.1f} to {high:.1f}, of {tracks} tracks |
| protocol | {protocol} |
| learned from | {train_tracks} tracks of {collection} |
| recipe, seed | {recipe}, {seed} |
| starting weights | {weights} |
| temperature | {temperature}, fitted on {valid_tracks} tracks |

The interval is a bootstrap over artists, where they are known. What the clips judged were called:

{matrix}

## What it is for, and what not

It tells apart the genres it learned, as they sounded in the clips it learned from. Genres are
conventions, and a collection's labels are one person's: GTZAN's are known to hold mistakes. It must
not be used to decide about people, payments or what is heard, nor as a measure of music.
{limit}

## Licence

The weights it started from ({weights}) come with their own terms: ImageNet's images are for
research. The recordings it learned from belong to their owners, and none is in this folder.
"""


def model_card(config, predictions):
    """The README of an exported model, in Markdown with the hub's header.

    Parameters
    ----------
    config : dict
        Of the folder's `config.json`.
    predictions : pd.DataFrame

    Returns
    -------
    str
    """
    training, result, calibration = config["training"], config["result"], config["calibration"]
    header = ModelCardData(
        library_name="melgenre", license="other", license_name="weights-of-their-origin",
        tags=["music", "audio-classification", "music-genre", "fastai", "mel-spectrogram"],
        pipeline_tag="audio-classification",
    )  # fmt: skip
    low, high = (100 * bound for bound in result["interval"])
    text = CARD_TEXT.format(
        architecture=config["architecture"], n_genres=len(config["genres"]),
        genres=", ".join(config["genres"]), accuracy=100 * result["accuracy"], low=low, high=high,
        tracks=result["tracks"], protocol=_protocol(result),
        train_tracks=training.get("train_tracks", "?"), collection=training.get("collection"),
        recipe=training.get("recipe"), seed=training.get("seed"), weights=training["weights"],
        temperature=calibration["temperature"], limit=_limit(calibration),
        valid_tracks=calibration["tracks"], matrix=_markdown(confusion_matrix(predictions)),
    )  # fmt: skip
    return f"---\n{header.to_yaml()}\n---\n{text}"


def _protocol(result):
    untested = ", ".join(result.get("untested", ()))
    return f"{result['protocol']}; not tested: {untested}" if untested else result["protocol"]


def _limit(calibration):
    """What a model does with sound that is none of its genres."""
    if calibration["ood_threshold"] is None:
        return (
            f"It was calibrated on fewer than {FEWEST_CLIPS} clips, so it cannot tell what it does "
            "not know: silence, noise and speech get one of its genres."
        )
    return (
        "Sound that lies further from what it learned than 99 % of its validation clips (a "
        f"ood_score above {calibration['ood_threshold']}), such as silence, noise or speech, is "
        'answered with "unsure".'
    )


def _markdown(counts):
    """A confusion matrix as a table in Markdown."""
    names = [str(name).replace("|", "\\|") for name in counts.index]
    lines = ["| is \\ called | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for name, row in zip(names, counts.to_numpy().tolist(), strict=True):
        lines.append(f"| {name} | " + " | ".join(str(n) if n else "" for n in row) + " |")
    return "\n".join(lines)
