"""Annotations: they are saved to a CSV, read again, and correct the table of tracks."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from melgenre.data.annotations import (
    COLUMNS,
    AnnotationError,
    apply_annotations,
    load_annotations,
    save_annotation,
)
from melgenre.data.splits import random_split
from melgenre.errors import MelgenreWarning

OLD_HEADER = "track_id,genre,decision,correct_genre,comment\n"


@pytest.fixture
def tracks():
    names = [f"{genre}.{n}" for genre in ("jazz", "rock") for n in range(6)]
    return pd.DataFrame({"track_id": names, "genre": [name.split(".")[0] for name in names]})


def test_an_annotation_is_saved_replaced_and_deleted(tmp_path):
    file = tmp_path / "new" / "annotations.csv"
    odd = 'ro\'ck "1",\n<b>Ж'
    save_annotation(file, odd, "R&B/soul", "corrupted", comment='a "comma", and\na line')
    save_annotation(file, "b", "jazz", "fine")
    save_annotation(file, "b", "jazz", "mislabelled", correct_genre="rock")
    saved = load_annotations(file).set_index("track_id")
    assert saved.loc[odd].tolist() == ["R&B/soul", "corrupted", "", 'a "comma", and\na line']
    assert saved.loc["b"].tolist() == ["jazz", "mislabelled", "rock", ""]
    save_annotation(file, odd, "R&B/soul", None)
    assert load_annotations(file)["track_id"].tolist() == ["b"]


def test_annotations_saved_at_the_same_time_are_all_kept(tmp_path):
    file = tmp_path / "annotations.csv"

    def save(n):
        save_annotation(file, f"track {n}", "jazz", "corrupted")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(save, range(20)))
    assert len(load_annotations(file)) == 20


def test_a_file_of_an_earlier_version_is_read_and_then_rewritten(tmp_path):
    old = tmp_path / "decisions.csv"
    old_text = OLD_HEADER + "a,jazz,broken,,noise\nb,rock,mislabelled,jazz,\n"
    old.write_text(old_text)
    new = tmp_path / "annotations.csv"
    for file in (old, new):
        found = load_annotations(file)
        assert list(found.columns) == COLUMNS
        assert found["label"].tolist() == ["corrupted", "mislabelled"]
    save_annotation(new, "c", "pop", "fine")
    assert new.read_text().splitlines() == [
        "track_id,genre,label,correct_genre,comment",
        "a,jazz,corrupted,,noise",
        "b,rock,mislabelled,jazz,",
        "c,pop,fine,,",
    ]
    assert old.read_text() == old_text


def test_an_earlier_file_is_ignored_beside_a_file_of_its_own_name_or_a_newer_one(tmp_path):
    (tmp_path / "decisions.csv").write_text(OLD_HEADER + "a,jazz,fine,,\n")
    assert load_annotations(tmp_path / "mine.csv").empty
    save_annotation(tmp_path / "annotations.csv", "a", "jazz", None)
    assert load_annotations(tmp_path / "annotations.csv").empty


def test_a_spreadsheet_runs_no_formula(tmp_path):
    file = tmp_path / "annotations.csv"
    save_annotation(file, "=1+1", "@SUM(A1)", "fine", comment="-2+3")
    assert file.read_text().splitlines()[1] == "'=1+1,'@SUM(A1),fine,,'-2+3"
    assert load_annotations(file).iloc[0].tolist() == ["=1+1", "@SUM(A1)", "fine", "", "-2+3"]


def test_annotations_correct_the_tracks_and_a_warning_gives_the_numbers(tmp_path, tracks):
    file = tmp_path / "annotations.csv"
    save_annotation(file, "jazz.0", "jazz", "mislabelled", correct_genre="rock")
    save_annotation(file, "jazz.1", "jazz", "mislabelled")
    save_annotation(file, "rock.0", "rock", "corrupted")
    save_annotation(file, "rock.1", "rock", "duplicate")
    save_annotation(file, "rock.2", "rock", "fine")
    save_annotation(file, "no such track", "rock", "corrupted")
    before = tracks.copy()
    expected = "removed because of their annotations: 3; genres corrected: 1. .* not comparable"
    with pytest.warns(MelgenreWarning, match=expected) as caught:
        corrected = apply_annotations(tracks, file)
    assert caught[0].filename == __file__
    split = random_split(corrected)
    assert set(tracks["track_id"]) - set(split["track_id"]) == {"jazz.1", "rock.0", "rock.1"}
    assert split.set_index("track_id").loc["jazz.0", "genre"] == "rock"
    pd.testing.assert_frame_equal(tracks, before)


def test_without_annotations_nothing_changes_and_nothing_is_printed(tmp_path, tracks, capsys):
    with warnings.catch_warnings(action="error"):
        same = apply_annotations(tracks, tmp_path / "none.csv")
    pd.testing.assert_frame_equal(same, tracks)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "\x00\xff",
        "track_id,genre,label,correct_genre,comment\na,jazz,nonsense,,\n",
        OLD_HEADER + "a,jazz,nonsense,,\n",
        "track_id,genre,decision,label,correct_genre,comment\na,jazz,fine,fine,,\n",
    ],
)
def test_a_file_without_annotations_raises_and_stays_unchanged(tmp_path, text):
    file = tmp_path / "mine.csv"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(AnnotationError, match="mine.csv (is not|cannot be read)"):
        load_annotations(file)
    with pytest.raises(AnnotationError):
        save_annotation(file, "a", "jazz", "fine")
    assert file.read_text(encoding="latin-1") == text


def test_an_unknown_label_raises(tmp_path):
    with pytest.raises(AnnotationError, match="'great' is not a label. Use one of fine"):
        save_annotation(tmp_path / "annotations.csv", "a", "jazz", "great")
    assert not list(tmp_path.iterdir())
