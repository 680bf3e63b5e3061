"""Make the live page of the site: a confusion matrix with sound, of synthetic music.

    python scripts/make_live_page.py FOLDER

The model is a logistic regression of the 28 descriptors that was trained on two clips per genre, by
one artist. Better models make no error on this music, and a matrix without errors shows nothing.
"""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd

import melgenre as mg

CLIPS_PER_GENRE = 10
TRAINING_CLIPS = 2  # of each genre: those of its first artist

TEXT = """# The confusion matrix, live

Select a cell and hear its clips: rows are the true genres, columns the predicted ones. This is the
widget of notebook 06, saved by `ConfusionBrowser.to_html`. It needs neither Python nor a server.

```{{warning}}
This music is synthetic: a program composed it in ten invented genres. An accuracy on it says
nothing about real music. {correct} of {total} predictions are correct. The model is a weak one, so
that there is something to hear: a logistic regression of 28 descriptors, trained on {training}
clips of each genre, by one invented artist. The clips here are by other artists.
```

```{{raw}} html
<style>
{css}
</style>
{body}
```
"""


def predict_synthetic_music(folder: Path):
    """Predictions of synthetic music by a model that has seen one artist of each genre.

    They take a minute, and are kept in the folder for the next time.
    """
    file = folder / f"predictions-{CLIPS_PER_GENRE}.csv"
    if file.exists():
        return pd.read_csv(file)
    music = mg.make_synthetic_collection(folder / "music", clips_per_genre=CLIPS_PER_GENRE)
    tracks = mg.compute_descriptors(mg.find_tracks(music))
    training = tracks.groupby("genre").cumcount() < TRAINING_CLIPS
    seen, test = tracks[training], tracks[~training].reset_index(drop=True)
    assert not set(seen["artist_id"]) & set(test["artist_id"])
    model = mg.LogisticRegression().fit(seen[list(mg.DESCRIPTORS)], seen["genre"])
    descriptors = test[list(mg.DESCRIPTORS)]
    test["predicted"] = model.predict(descriptors)
    test[[f"p_{genre}" for genre in model.classes_]] = model.predict_proba(descriptors)
    test.to_csv(file, index=False)
    return test


def make_live_page(folder: Path) -> Path:
    """Write `live.md`, with its sounds and images in `live/`."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions = predict_synthetic_music(folder)
    shutil.rmtree(folder / "live", ignore_errors=True)
    browser = mg.ConfusionBrowser(predictions, annotations=folder / "annotations.csv")
    file = browser.to_html(
        folder / "confusions.html", clips_per_cell=2, seconds=8, media=folder / "live"
    )
    html = file.read_text("utf-8")
    css = Path(mg.confusion.__path__[0], "browser.css").read_text("utf-8")
    text = TEXT.format(
        css=css,
        body=re.search("<body>(.*)</body>", html, re.S)[1],
        correct=(predictions["genre"] == predictions["predicted"]).sum(),
        total=len(predictions),
        training=TRAINING_CLIPS,
    )
    page = folder / "live.md"
    page.write_text(text, encoding="utf-8")
    return page


if __name__ == "__main__":
    make_live_page(Path(sys.argv[1]))
