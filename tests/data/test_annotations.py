"""What a person decides goes into a CSV, comes back, and changes what is learned from."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from melgenre.data.annotations import (
    AnnotationError,
    apply_annotations,
    load_annotations,
    save_annotation,
)
from melgenre.data.splits import random_split


@pytest.fixture
def tracks():
    names = [f"{genre}.{n}" for genre in ("jazz", "rock") for n in range(6)]
    return pd.DataFrame({"track_id": names, "genre": [name.split(".")[0] for name in names]})


def test_a_decision_is_kept_changed_and_taken_back(tmp_path):
    file = tmp_path / "new" / "decisions.csv"
    odd = 'ro\'ck "1",\n<b>Ж'
    save_annotation(file, odd, "R&B/soul", "corrupted", comment='a "comma", and\na line')
    save_annotation(file, "b", "jazz", "fine")
    save_annotation(file, "b", "jazz", "mislabelled", correct_genre="rock")
    kept = load_annotations(file).set_index("track_id")
    assert kept.loc[odd].tolist() == ["R&B/soul", "corrupted", "", 'a "comma", and\na line']
    assert kept.loc["b"].tolist() == ["jazz", "mislabelled", "rock", ""]
    save_annotation(file, odd, "R&B/soul", None)
    assert load_annotations(file)["track_id"].tolist() == ["b"]


def test_marks_set_at_once_are_all_kept(tmp_path):
    file = tmp_path / "decisions.csv"
    with ThreadPoolExecutor(10) as pool:
        list(
            pool.map(lambda n: save_annotation(file, f"track {n}", "jazz", "corrupted"), range(20))
        )
    assert len(load_annotations(file)) == 20


def test_a_spreadsheet_runs_nothing(tmp_path):
    file = tmp_path / "decisions.csv"
    save_annotation(file, "=1+1", "@SUM(A1)", "fine", comment="-2+3")
    assert file.read_text().splitlines()[1] == "'=1+1,'@SUM(A1),fine,,'-2+3"
    assert load_annotations(file).iloc[0].tolist() == ["=1+1", "@SUM(A1)", "fine", "", "-2+3"]


def test_decisions_change_the_next_split_and_say_so(tmp_path, tracks, capsys):
    file = tmp_path / "decisions.csv"
    save_annotation(file, "jazz.0", "jazz", "mislabelled", correct_genre="rock")
    save_annotation(file, "jazz.1", "jazz", "mislabelled")
    save_annotation(file, "rock.0", "rock", "corrupted")
    save_annotation(file, "rock.1", "rock", "duplicate")
    save_annotation(file, "rock.2", "rock", "fine")
    save_annotation(file, "no such track", "rock", "corrupted")
    before = tracks.copy()
    split = random_split(apply_annotations(tracks, file))
    assert set(tracks["track_id"]) - set(split["track_id"]) == {"jazz.1", "rock.0", "rock.1"}
    assert split.set_index("track_id").loc["jazz.0", "genre"] == "rock"
    told = capsys.readouterr().out
    assert "3 tracks left out, 1 given another genre" in told
    assert "not comparable" in told
    pd.testing.assert_frame_equal(tracks, before)


def test_no_decisions_change_nothing_and_say_nothing(tmp_path, tracks, capsys):
    same = apply_annotations(tracks, tmp_path / "none.csv")
    pd.testing.assert_frame_equal(same, tracks)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\x00\xff", "track_id,genre,decision,correct_"
                                  "genre,comment\na,jazz,nonsense,,\n"])  # fmt: skip
def test_a_file_that_is_none_of_decisions_is_told(tmp_path, text):
    file = tmp_path / "mine.csv"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(AnnotationError, match="mine.csv (is no|cannot be read)"):
        load_annotations(file)
    assert file.read_text(encoding="latin-1") == text


def test_an_unknown_decision_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="'great' is no decision. Say one of fine"):
        save_annotation(tmp_path / "d.csv", "a", "jazz", "great")
