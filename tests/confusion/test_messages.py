"""The kernel's side of the confusion browser: its state and its answers to messages."""

import io
import json
import re

import numpy as np
import pytest
import soundfile
import traitlets
from fastai.vision.all import ImageDataLoaders, resnet18, vision_learner as fastai_learner
from PIL import Image
from test_matrix import ODD, made_up_predictions

from melgenre.confusion.browser import ConfusionBrowser
from melgenre.data.annotations import AnnotationError
from melgenre.data.mel_settings import MelSettings
from melgenre.features.images import extract_melspectrograms

SENTENCE = r"The widget sent an unknown .*\. Run the cell that shows the widget again\."


@pytest.fixture
def send_raw(monkeypatch):
    """A function that sends a message to a browser and returns the answer and its buffers."""

    def send_raw(browser, message):
        sent = []
        monkeypatch.setattr(browser, "send", lambda answer, buffers: sent.append((answer, buffers)))
        browser._answer(browser, message, [])
        assert len(sent) == 1
        json.dumps(sent[0][0])
        return sent[0]

    return send_raw


@pytest.fixture
def send(send_raw):
    """The same function for a message with a ticket, which the answer must have as well."""

    def send(browser, **message):
        answer, buffers = send_raw(browser, {"ticket": "t", **message})
        assert answer.pop("ticket") == "t"
        return answer, buffers

    return send


@pytest.fixture
def browser(images, tmp_path):
    """Predictions of the made-up music: the first clip of each genre gets the next genre's name."""
    genres = sorted(images["genre"].unique())
    table = images.copy()
    next_genre = dict(zip(genres, genres[1:] + genres[:1], strict=True))
    first = ~table["genre"].duplicated()
    table["predicted"] = table["genre"].where(~first, table["genre"].map(next_genre))
    for genre in genres:
        table[f"p_{genre}"] = np.where(table["predicted"] == genre, 0.91, 0.01)
    return ConfusionBrowser(table, annotations=tmp_path / "annotations.csv")


def test_little_is_sent_at_first(browser):
    state = browser.get_state()
    front_end = [state.pop(name) for name in ("_esm", "_css")]
    assert len(json.dumps(state, default=str)) < 3_000
    assert sum(map(len, front_end)) < 40_000


def test_a_cell_lists_its_clips_the_most_confident_first(tmp_path, send):
    table = made_up_predictions(["a", "b", "c"], n=40)
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv")
    browser.selection = ("a", "b")
    selected = browser.selected
    assert set(selected["genre"]) == {"a"}
    assert set(selected["predicted"]) == {"b"}
    assert selected["p_b"].is_monotonic_decreasing
    names = []
    while True:
        answer, buffers = send(browser, kind="clips", selection=["a", "b"], start=len(names))
        names += [clip["name"] for clip in answer["clips"]]
        assert len(buffers) == len(answer["clips"]) <= 8
        if len(names) >= answer["total"]:
            break
    assert names == selected["track_id"].tolist()


def test_a_row_lists_wrong_predictions_before_correct_ones(tmp_path):
    table = made_up_predictions(["a", "b", "c"], n=40)
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv")
    browser.selection = ("a", None)
    correct = browser.selected["genre"] == browser.selected["predicted"]
    assert correct.is_monotonic_increasing
    assert len(browser.selected) == 40


def test_a_selection_of_an_unknown_genre_raises(browser):
    with pytest.raises(traitlets.TraitError, match="The matrix has no genre 'x'. Choose one of"):
        browser.selection = ("x", None)
    assert browser.selection == (None, None)


def test_image_and_sound_of_a_clip_are_sent_on_request(browser, send):
    clip = browser.results.iloc[0]
    answer, images = send(
        browser, kind="clips", selection=[clip["genre"], clip["predicted"]], start=0
    )
    described = answer["clips"][0]
    assert (described["name"], described["sound"]) == (clip["track_id"], "available")
    assert described["probabilities"][0] == (clip["predicted"], 0.91)
    assert len(described["probabilities"]) == 5
    image = Image.open(io.BytesIO(images[0]))
    assert image.size == (387, 128)
    grey = np.array(Image.open(clip["image"])).astype(int)
    brightness = np.array(image.convert("L")).astype(int)
    assert np.corrcoef(grey.ravel(), brightness.ravel())[0, 1] > 0.95
    _, (mp3,) = send(browser, kind="sound", table="results", row=described["row"])
    y, rate = soundfile.read(io.BytesIO(mp3))
    assert len(y) / rate == pytest.approx(30, abs=0.2)
    assert len(mp3) < 500_000


def test_the_sound_is_as_long_as_the_images_of_other_settings(music, images, tmp_path, send):
    tracks = images.head(1).drop(columns="image")
    settings = MelSettings(duration=3)
    tracks = extract_melspectrograms(tracks, tmp_path, settings=settings, progress=False)
    table = tracks.assign(predicted="a", p_a=1.0)
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv")
    answer, _ = send(browser, kind="clips", selection=[None, None], start=0)
    assert answer["clips"][0]["seconds"] == 3
    _, (mp3,) = send(browser, kind="sound", table="results", row=0)
    y, rate = soundfile.read(io.BytesIO(mp3))
    assert len(y) / rate == pytest.approx(3, abs=0.2)


def test_a_clip_with_missing_or_damaged_files_is_still_listed(browser, send, tmp_path):
    damaged = tmp_path / "damaged.wav"
    damaged.write_text("no sound")
    no_image = tmp_path / "damaged.png"
    no_image.write_text("no image")
    table = browser.results.copy()
    table.loc[0, "path"] = str(tmp_path / "gone.wav")
    table.loc[1, "path"] = None
    table.loc[2, ["path", "image"]] = None
    table.loc[3, ["path", "image"]] = [str(damaged), None]
    table.loc[4, "image"] = str(no_image)
    browser = ConfusionBrowser(table, annotations=tmp_path / "a.csv")
    sounds, images = {}, {}
    for row in range(5):
        cell = table.loc[row, ["genre", "predicted"]].tolist()
        answer, buffers = send(browser, kind="clips", selection=cell, start=0)
        for clip, buffer in zip(answer["clips"], buffers, strict=True):
            sounds[clip["row"]], images[clip["row"]] = clip["sound"], buffer
    assert [sounds[row] for row in range(4)] == ["missing", "none", "none", "available"]
    assert [bool(images[row]) for row in range(5)] == [True, True, False, False, False]
    answer, _ = send(browser, kind="sound", table="results", row=3)
    assert "damaged.wav: not readable as sound" in answer["error"]
    answer, _ = send(browser, kind="sound", table="results", row=0)
    assert "gone.wav: no such file" in answer["error"]
    assert str(tmp_path) not in answer["error"]


def test_an_annotation_is_saved_and_shown_again(browser, send):
    correct = browser.results["genre"].iloc[-1]
    answer, _ = send(
        browser,
        kind="annotation",
        table="results",
        row=2,
        label="mislabelled",
        correct_genre=correct,
        comment="sounds <i>odd</i>",
    )
    assert answer == {"file": "annotations.csv"}
    clip = browser.results.iloc[2]
    expected = {
        "genre": clip["genre"],
        "label": "mislabelled",
        "correct_genre": correct,
        "comment": "sounds <i>odd</i>",
    }
    assert browser.annotations.to_dict("records") == [{"track_id": clip["track_id"], **expected}]
    again = ConfusionBrowser(browser.results, annotations=browser.annotations_file)
    answer, _ = send(again, kind="clips", selection=[clip["genre"], clip["predicted"]], start=0)
    shown = {one["name"]: one["annotation"] for one in answer["clips"]}
    assert shown[clip["track_id"]] == expected


def test_annotations_are_in_the_projects_data_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    browser = ConfusionBrowser(made_up_predictions(["a", "b"]))
    assert browser.annotations_file.resolve() == tmp_path / "data" / "annotations.csv"


def test_a_damaged_file_of_annotations_raises_at_once(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(AnnotationError, match="a.csv is not a file of annotations"):
        ConfusionBrowser(made_up_predictions(["a", "b"]), annotations=tmp_path / "a.csv")


@pytest.mark.slow
def test_a_learner_gives_attribution_maps_and_neighbours(learner, images, tmp_path, send):
    browser = ConfusionBrowser(learner, annotations=tmp_path / "a.csv")
    assert (browser.matrix["attribution"], browser.matrix["neighbours"]) == (True, True)
    answer, (overlay,) = send(browser, kind="attribution", table="results", row=0)
    clip = browser.results.iloc[0]
    assert answer["genres"] == list(dict.fromkeys([clip["predicted"], clip["genre"]]))
    overlay = np.array(Image.open(io.BytesIO(overlay)))
    assert overlay.shape == (128, 387, 4)
    assert overlay[..., 3].max() == 255
    answer, buffers = send(browser, kind="neighbours", table="results", row=0)
    assert len(answer["clips"]) == len(buffers) == 5
    training = set(learner.dls.train_ds.items["track_id"])
    assert {one["name"] for one in answer["clips"]} <= training
    _, (mp3,) = send(browser, kind="sound", table="training", row=answer["clips"][0]["row"])
    assert mp3


def test_a_clip_without_an_image_gets_a_sentence_instead_of_attribution(learner, tmp_path, send):
    table = ConfusionBrowser(learner, annotations=tmp_path / "a.csv").results.assign(image=None)
    browser = ConfusionBrowser(table, learn=learner, annotations=tmp_path / "a.csv")
    for kind in ("attribution", "neighbours"):
        answer, _ = send(browser, kind=kind, table="results", row=0)
        assert "has no image file" in answer["error"]


@pytest.mark.slow
def test_a_fastai_learner_of_other_images_works_too(tmp_path, send):
    rng = np.random.default_rng(0)
    for genre in ODD[1:3]:
        for n in range(4):
            file = tmp_path / genre.replace("/", "_") / f"{n}.jpg"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file)
    dls = ImageDataLoaders.from_folder(tmp_path, valid_pct=0.5, seed=0, bs=2, num_workers=0)
    learn = fastai_learner(dls, resnet18, pretrained=False)
    browser = ConfusionBrowser(learn, annotations=tmp_path / "a.csv")
    assert browser.results["predicted"].isin(list(dls.vocab)).all()
    clip = browser.results.iloc[0]
    _, buffers = send(browser, kind="clips", selection=[clip["genre"], clip["predicted"]], start=0)
    assert Image.open(io.BytesIO(buffers[0])).size == (64, 64)
    _, (overlay,) = send(browser, kind="attribution", table="results", row=0)
    assert Image.open(io.BytesIO(overlay)).size == (64, 64)


ROW = {"table": "results", "row": 0}
LABEL = {"label": "fine", "correct_genre": "", "comment": ""}
ODD_VALUES = [True, -1, 1.0, 10**30, [], [0], {}, {"a": 1}]
ODD_NAMES = [None, "", "__class__", *ODD_VALUES]


def unknown_messages():
    """Messages that the front end never sends: names of other attributes, values of odd types."""
    yield from [None, 3, "clips", [], ["clips"]]
    for kind in ("settings", "clip", "state", "_send_clips", "_answer", *ODD_NAMES):
        yield {"kind": kind, **ROW, **LABEL}
    for kind in ("sound", "attribution", "neighbours", "annotation"):
        yield {"kind": kind}
        for table in ("selected", "annotations", "learn", "settings", *ODD_NAMES):
            yield {"kind": kind, **LABEL, "table": table, "row": 0}
        for row in (1000, "0", "track_id", *ODD_NAMES):
            yield {"kind": kind, **LABEL, "table": "results", "row": row}
    for selection in ([None], [None, "x"], [[], {}], [None] * 3, *ODD_NAMES):
        yield {"kind": "clips", "selection": selection, "start": 0}
    for start in (1000, "0", *ODD_NAMES):
        yield {"kind": "clips", "selection": [None, None], "start": start}
    unknown = {
        "label": ["great", "", "__class__", *ODD_VALUES],
        "correct_genre": ["great", None, "__class__", *ODD_VALUES],
        "comment": ["x" * 501, None, *ODD_VALUES],
    }
    for name, values in unknown.items():
        for value in values:
            yield {"kind": "annotation", **ROW, **LABEL, name: value}


def test_unknown_messages_get_a_sentence_and_change_nothing(learner, tmp_path, send_raw):
    browser = ConfusionBrowser(learner, annotations=tmp_path / "annotations.csv")
    state, attributes = browser.get_state(), dict(vars(browser))
    for message in unknown_messages():
        answer, buffers = send_raw(browser, message)
        assert set(answer) == {"error", "ticket"}, message
        assert re.fullmatch(SENTENCE, answer["error"]), message
        assert buffers == []
    assert not list(tmp_path.iterdir())
    assert browser.get_state() == state
    attributes["send"] = vars(browser)["send"]  # replaced by the fixture
    assert all(vars(browser)[name] is value for name, value in attributes.items())


def test_a_browser_without_a_learner_sends_no_attribution(browser, send):
    browser.matrix = {**browser.matrix, "attribution": True, "neighbours": True}  # by the page
    for kind in ("attribution", "neighbours"):
        answer, buffers = send(browser, kind=kind, **ROW)
        assert "unknown kind of message" in answer["error"]
        assert not buffers
    answer, _ = send(browser, kind="sound", table="training", row=0)
    assert "unknown table" in answer["error"]


def test_a_genre_that_the_page_adds_to_the_matrix_stays_unknown(browser, send):
    browser.matrix = {**browser.matrix, "genres": ["x"]}
    answer, _ = send(browser, kind="clips", selection=["x", None], start=0)
    assert "unknown selection" in answer["error"]


@pytest.mark.slow
def test_the_standalone_page_contains_no_paths_and_no_markup_of_names(browser, tmp_path):
    file = browser.to_html(tmp_path / "page.html", clips_per_cell=1, seconds=2)
    assert file == tmp_path / "page.html"
    text = file.read_text(encoding="utf-8")
    assert str(browser.results["path"].iloc[0]) not in text
    assert text.count('"mp3": ') == 20  # one correct and one wrong prediction of each genre
    odd = ConfusionBrowser(made_up_predictions(ODD), annotations=tmp_path / "a.csv")
    text = odd.to_html(tmp_path / "odd.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 1
    assert "<b>bold" not in text


@pytest.mark.slow
def test_a_page_with_a_media_folder_contains_only_their_addresses(browser, tmp_path):
    media = tmp_path / "site" / "live" / "clips"
    (tmp_path / "site").mkdir()
    file = browser.to_html(
        tmp_path / "site" / "live.html", clips_per_cell=1, seconds=2, media=media
    )
    addresses = re.findall(r'"(?:image|mp3)": "([^"]*)"', file.read_text(encoding="utf-8"))
    assert len(addresses) == 40
    assert addresses[0].startswith("live/clips/")
    assert {file.parent / address for address in addresses} == set(media.iterdir())
    assert file.stat().st_size < 100_000
