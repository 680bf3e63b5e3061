"""The confusion matrix: what it counts, what it sends, and what it says of bad tables."""

import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile
import traitlets
from fastai.vision.all import (
    ClassificationInterpretation,
    ImageDataLoaders,
    resnet18,
    vision_learner as fastai_learner,
)
from PIL import Image

from melgenre.confusion.browser import (
    ConfusionBrowser,
    as_predictions,
    confusion_matrix,
    plot_confusion_matrix,
)

ODD = ["R&B/soul", "<b>bold</b>", "Джаз", "\"quoted\" 'name' </script>"]


def results(genres, n=6, seed=0, **columns):
    """A made-up table of results; each genre's clips are called by all names in turn."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"genre": np.repeat(genres, n)})
    probabilities = rng.dirichlet(np.ones(len(genres)), len(rows))
    rows["track_id"] = [f"{genre}.{i}" for i, genre in enumerate(rows["genre"])]
    rows["predicted"] = [genres[i] for i in probabilities.argmax(axis=1)]
    rows[[f"p_{genre}" for genre in genres]] = probabilities
    return rows.assign(image=None, path=None, **columns)


@pytest.fixture
def ask(monkeypatch):
    """A function that sends a browser a message and returns what it answers."""

    def ask(browser, **message):
        sent = []
        monkeypatch.setattr(browser, "send", lambda answer, buffers: sent.append((answer, buffers)))
        browser._answer(browser, {"ticket": "t", **message}, [])
        assert len(sent) == 1
        assert sent[0][0].pop("ticket") == "t"
        json.dumps(sent[0][0])
        return sent[0]

    return ask


@pytest.fixture
def browser(images, tmp_path):
    """The made-up music as results: the first clip of each genre is called by the next genre."""
    genres = sorted(images["genre"].unique())
    table = images.copy()
    called = dict(zip(genres, genres[1:] + genres[:1], strict=True))
    first = ~table["genre"].duplicated()
    table["predicted"] = table["genre"].where(~first, table["genre"].map(called))
    for genre in genres:
        table[f"p_{genre}"] = np.where(table["predicted"] == genre, 0.91, 0.01)
    return ConfusionBrowser(table, decisions=tmp_path / "decisions.csv")


def test_every_clip_is_counted_once_and_an_empty_genre_keeps_its_row():
    table = results(["a", "b", "c"])
    table = table[table["genre"] != "b"]
    counts = confusion_matrix(table)
    assert counts.to_numpy().sum() == len(table)
    assert counts.loc["b"].sum() == 0
    assert list(counts.index) == list(counts.columns) == ["a", "b", "c"]
    for row, column in np.ndindex(3, 3):
        of_cell = (table["genre"] == "abc"[row]) & (table["predicted"] == "abc"[column])
        assert counts.iat[row, column] == of_cell.sum()


@pytest.mark.parametrize("normalize", [False, True])
def test_the_figure_shows_what_was_counted(normalize):
    table = results([*ODD, "$x^$"])
    ax = plot_confusion_matrix(table, normalize=normalize)
    ax.figure.canvas.draw()  # odd names must not be taken for formulas
    assert len(ax.texts) == (confusion_matrix(table) > 0).to_numpy().sum()
    shown = sum(float(text.get_text()) for text in ax.texts)
    assert shown == pytest.approx(500 if normalize else len(table), abs=10 if normalize else 0)
    plt.close(ax.figure)


def test_columns_that_are_missing_are_named():
    with pytest.raises(ValueError, match=r"no column genre, predicted, p_<genre>, path or image"):
        as_predictions(pd.DataFrame({"x": [1]}))
    with pytest.raises(ValueError, match=r"no column p_<genre>\."):
        ConfusionBrowser(pd.DataFrame({"genre": ["a"], "predicted": ["a"], "path": ["a.wav"]}))


def test_little_is_sent_at_first(browser):
    state = browser.get_state()
    page = [state.pop(name) for name in ("_esm", "_css")]
    assert len(json.dumps(state, default=str)) < 3_000
    assert sum(map(len, page)) < 40_000


def test_a_cell_lists_its_clips_the_most_confident_first(tmp_path, ask):
    table = results(["a", "b", "c"], n=40)
    browser = ConfusionBrowser(table, decisions=tmp_path / "d.csv")
    browser.selection = ("a", "b")
    chosen = browser.selected
    assert set(chosen["genre"]) == {"a"}
    assert set(chosen["predicted"]) == {"b"}
    assert chosen["p_b"].is_monotonic_decreasing
    names = []
    while True:
        answer, buffers = ask(browser, kind="clips", selection=["a", "b"], start=len(names))
        names += [clip["name"] for clip in answer["clips"]]
        assert len(buffers) == len(answer["clips"]) <= 8
        if len(names) >= answer["total"]:
            break
    assert names == chosen["track_id"].tolist()
    browser.selection = ("a", None)
    right = browser.selected["genre"] == browser.selected["predicted"]
    assert right.is_monotonic_increasing  # mistakes before what was right
    assert len(browser.selected) == 40


def test_a_selection_that_is_no_genre_is_refused(browser):
    with pytest.raises(traitlets.TraitError, match="No genre 'x' here: choose among"):
        browser.selection = ("x", None)
    assert browser.selection == (None, None)


def test_a_clip_is_seen_and_heard_when_asked_for(browser, ask):
    clip = browser.results.iloc[0]
    answer, images = ask(
        browser, kind="clips", selection=[clip["genre"], clip["predicted"]], start=0
    )
    described = answer["clips"][0]
    assert (described["name"], described["sound"]) == (clip["track_id"], "here")
    assert described["probabilities"][0] == [clip["predicted"], 0.91]
    assert len(described["probabilities"]) == 5
    image = Image.open(io.BytesIO(images[0]))
    assert image.size == (387, 128)
    grey = np.array(Image.open(clip["image"])).astype(int)
    brightness = np.array(image.convert("L")).astype(int)
    assert np.corrcoef(grey.ravel(), brightness.ravel())[0, 1] > 0.95
    _, (mp3,) = ask(browser, kind="sound", table="results", row=described["row"])
    y, rate = soundfile.read(io.BytesIO(mp3))
    assert len(y) / rate == pytest.approx(30, abs=0.2)
    assert len(mp3) < 500_000


def test_a_missing_file_is_told_and_leaves_its_image(browser, ask, tmp_path):
    table = browser.results.copy()
    table.loc[0, "path"] = str(tmp_path / "gone.wav")
    table.loc[1, "path"] = None
    table.loc[2, ["path", "image"]] = None
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    table.loc[3, ["path", "image"]] = [str(broken), None]
    browser = ConfusionBrowser(table, decisions=tmp_path / "d.csv")
    sounds, images = {}, {}
    for row in range(4):
        choice = table.loc[row, ["genre", "predicted"]].tolist()
        answer, buffers = ask(browser, kind="clips", selection=choice, start=0)
        for clip, buffer in zip(answer["clips"], buffers, strict=True):
            sounds[clip["row"]], images[clip["row"]] = clip["sound"], buffer
    assert [sounds[row] for row in range(4)] == ["gone", "none", "none", "here"]
    assert [bool(images[row]) for row in range(4)] == [True, True, False, False]
    answer, _ = ask(browser, kind="sound", table="results", row=3)
    assert "broken.wav: not readable as sound" in answer["error"]
    answer, _ = ask(browser, kind="sound", table="results", row=0)
    assert "gone.wav: no such file" in answer["error"]
    assert str(tmp_path) not in answer["error"]


def test_a_decision_is_kept_and_shown_again(browser, ask):
    answer, _ = ask(
        browser, kind="annotation", table="results", row=2, decision="mislabelled",
        correct_genre=browser.results["genre"].iloc[-1], comment="sounds <i>odd</i>",
    )  # fmt: skip
    assert answer == {"file": "decisions.csv"}
    kept = browser.decisions.iloc[0]
    assert kept["track_id"] == browser.results["track_id"].iloc[2]
    assert kept["comment"] == "sounds <i>odd</i>"
    again = ConfusionBrowser(browser.results, decisions=browser.annotations_file)
    clip = browser.results.iloc[2]
    answer, _ = ask(again, kind="clips", selection=[clip["genre"], clip["predicted"]], start=0)
    shown = {one["name"]: one["decision"] for one in answer["clips"]}
    assert shown[clip["track_id"]]["decision"] == "mislabelled"


def test_a_learner_explains_and_compares(learner, images, tmp_path, ask):
    browser = ConfusionBrowser(learner, decisions=tmp_path / "d.csv")
    assert (browser.matrix["explains"], browser.matrix["compares"]) == (True, True)
    assert len(browser.results) == len(learner.dls.valid_ds)
    answer, (overlay,) = ask(browser, kind="attribution", table="results", row=0)
    clip = browser.results.iloc[0]
    assert answer["genres"] == list(dict.fromkeys([clip["predicted"], clip["genre"]]))
    overlay = np.array(Image.open(io.BytesIO(overlay)))
    assert overlay.shape == (128, 387, 4)
    assert overlay[..., 3].max() == 255
    answer, buffers = ask(browser, kind="neighbours", table="results", row=0)
    assert len(answer["clips"]) == len(buffers) == 5
    learned = set(learner.dls.train_ds.items["track_id"])
    assert {one["name"] for one in answer["clips"]} <= learned
    _, (mp3,) = ask(browser, kind="sound", table="training", row=answer["clips"][0]["row"])
    assert mp3
    same = ConfusionBrowser(ClassificationInterpretation.from_learner(learner))
    pd.testing.assert_frame_equal(same.results, browser.results)


def test_a_learner_of_somebody_elses_images_works_too(tmp_path, ask):
    rng = np.random.default_rng(0)
    for genre in ODD[1:3]:
        for n in range(4):
            file = tmp_path / genre.replace("/", "_") / f"{n}.jpg"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file)
    dls = ImageDataLoaders.from_folder(tmp_path, valid_pct=0.5, seed=0, bs=2, num_workers=0)
    learn = fastai_learner(dls, resnet18, pretrained=False)
    browser = ConfusionBrowser(learn, decisions=tmp_path / "d.csv")
    assert browser.results["predicted"].isin(list(dls.vocab)).all()
    clip = browser.results.iloc[0]
    _, buffers = ask(browser, kind="clips", selection=[clip["genre"], clip["predicted"]], start=0)
    assert Image.open(io.BytesIO(buffers[0])).size == (64, 64)
    _, (overlay,) = ask(browser, kind="attribution", table="results", row=0)
    assert Image.open(io.BytesIO(overlay)).size == (64, 64)


def test_a_loaded_learner_has_no_clips_and_says_so(exported):
    from melgenre.training.export import load_exported

    learn, _ = load_exported(exported)
    with pytest.raises(ValueError, match="This learner has no clips to be asked about"):
        ConfusionBrowser(learn)


def test_the_page_says_its_size_and_names_nothing_but_names(browser, tmp_path, capsys):
    file = browser.to_html(tmp_path / "page.html", clips_per_cell=1, seconds=2)
    told = capsys.readouterr().out
    assert "page.html: 20 clips, up to 1 a cell (20 left out)" in told
    text = file.read_text(encoding="utf-8")
    assert str(browser.results["path"].iloc[0]) not in text
    assert len(text) == pytest.approx(file.stat().st_size, rel=0.01)
    odd = ConfusionBrowser(results(ODD), decisions=tmp_path / "d.csv").to_html(
        tmp_path / "odd.html"
    )
    text = odd.read_text(encoding="utf-8")
    assert text.count("</script>") == 1
    assert "<b>bold" not in text
