"""A folder of songs is classified into a table; the commands of the shell."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import melgenre
from melgenre.errors import MelgenreWarning
from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.model_folder import write_config
from melgenre.inference.songs import find_audio_files


@pytest.fixture(scope="module")
def classifier(exported):
    return GenreClassifier.load(exported)


@pytest.fixture
def songs(tmp_path, write_song):
    """A folder of several formats, odd names, unreadable files, and a loop of links."""
    folder = tmp_path / "my songs"
    write_song(folder / "a.wav", seconds=31)
    write_song(folder / "deep" / "er" / "Ж 'quoted', \"twice\".flac", seconds=70)
    write_song(folder / "deep" / "line\nbreak.ogg", seconds=3)
    (folder / "broken.mp3").write_text("no song" * 99)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("no sound either")
    write_song(folder / ".hidden.wav")
    (folder / "deep" / "circle").symlink_to(folder)
    return folder


@pytest.mark.slow
def test_every_song_has_a_row_and_unreadable_ones_have_an_error(classifier, songs):
    table = classify_folder(classifier, songs, progress=False).set_index("song")
    assert set(table.index) == {
        "a.wav", "broken.mp3", "empty.wav", "deep/line\nbreak.ogg",
        "deep/er/Ж 'quoted', \"twice\".flac",
    }  # fmt: skip
    assert "broken.mp3: not readable" in table.loc["broken.mp3", "error"]
    assert "empty.wav: empty" in table.loc["empty.wav", "error"]
    good = table[table["error"] == ""]
    for name, row in good.iterrows():
        prediction = classifier.predict(songs / name)
        assert row["genre"] == prediction.genre
        for genre, probability in prediction.items():
            assert row[f"p_{genre}"] == pytest.approx(probability, abs=1e-3)
    assert str(songs) not in table.to_csv()


@pytest.mark.slow
def test_every_readable_song_of_a_messy_folder_is_classified(classifier, messy_music):
    table = classify_folder(classifier, messy_music, progress=False).set_index("song")
    assert len(table) == 36 + 1 + 3
    failed = table[table["error"] != ""]
    assert {Path(song).name for song in failed.index} == {"cut off.mp3", "empty.wav", "text.mp3"}
    for song, error in failed["error"].items():
        assert error.startswith(f"{song}: ")
    reasons = {Path(song).name: error for song, error in failed["error"].items()}
    assert "truncated or damaged: 300.1 s expected" in reasons["cut off.mp3"]
    assert "it is text" in reasons["text.mp3"]


def test_a_name_that_is_not_utf_8_can_be_printed_and_written(classifier, tmp_path, write_song):
    song = write_song(tmp_path / "music" / "song.wav")
    try:
        song.rename(os.fsdecode(os.fsencode(song.parent) + b"/caf\xe9.wav"))
    except OSError:
        pytest.skip("this file system takes no such name")
    (tmp_path / "music" / os.fsdecode(b"\xe9.mp3")).write_text("no song")
    table = classify_folder(classifier, tmp_path / "music", tmp_path / "g.csv", progress=False)
    assert table["song"].tolist() == ["caf\\xe9.wav", "\\xe9.mp3"]
    assert table["error"].iloc[1].startswith("\\xe9.mp3: not readable as sound")
    assert pd.read_csv(tmp_path / "g.csv")["song"].tolist() == table["song"].tolist()


@pytest.mark.slow
def test_an_interrupted_run_resumes(classifier, songs, tmp_path, monkeypatch, write_song):
    file = tmp_path / "genres.csv"
    first = classify_folder(classifier, songs, file, progress=False)
    kept = pd.read_csv(file, dtype={"modified": str}).fillna({"genre": "", "error": ""})
    pd.testing.assert_frame_equal(first, kept, check_dtype=False)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed within a line
    classified, predict = [], GenreClassifier.predict

    def record(self, song):
        classified.append(song.name)
        return predict(self, song)

    monkeypatch.setattr(GenreClassifier, "predict", record)
    write_song(songs / "a.wav", seconds=40)  # changed since
    again = classify_folder(classifier, songs, file, progress=False)
    assert "a.wav" in classified
    assert len(classified) == 2
    assert sorted(pd.read_csv(file)["song"]) == sorted(first["song"])  # once each
    assert again["song"].tolist() == first["song"].tolist()
    assert classify_folder(classifier, songs, file, progress=False).equals(again)
    assert len(classified) == 2


def test_a_csv_of_another_kind_is_not_touched(classifier, songs, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="mine.csv is not a table of genres"):
        classify_folder(classifier, songs, file, progress=False)
    assert file.read_text() == "a,b\n1,2\n"


ANEW = "genres.csv was written with another model and is started anew."


@pytest.mark.slow
def test_a_csv_of_another_model_is_started_anew(classifier, exported, songs, tmp_path, capsys):
    file = tmp_path / "genres.csv"
    other = shutil.copytree(exported, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    write_config(other, config | {"genres": config["genres"][::-1]})
    classify_folder(GenreClassifier.load(other), songs, file, progress=False)
    with pytest.warns(MelgenreWarning, match=ANEW) as warned:
        table = classify_folder(classifier, songs, file, progress=False)
    assert warned[0].filename == __file__, "the warning names the line of the caller"
    expected = classify_folder(classifier, songs, progress=False)
    pd.testing.assert_frame_equal(table, expected)
    assert set(table["model"]) == {classifier.fingerprint}
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_csv_with_the_column_names_of_an_earlier_version_is_resumed(
    classifier, songs, tmp_path, monkeypatch
):
    file = tmp_path / "genres.csv"
    first = classify_folder(classifier, songs, file, progress=False)
    file.write_text(file.read_text().replace("ood_score", "strangeness", 1))
    assert "strangeness,error" in file.read_text()
    monkeypatch.delattr(GenreClassifier, "predict")  # nothing is classified again
    again = classify_folder(classifier, songs, file, progress=False)
    pd.testing.assert_frame_equal(again, first)
    pd.testing.assert_frame_equal(pd.read_csv(file), pd.read_csv(file)[list(first)])


@pytest.mark.slow
def test_a_csv_without_the_column_of_the_model_is_started_anew(classifier, songs, tmp_path):
    """As the first version wrote it."""
    file = tmp_path / "genres.csv"
    first = classify_folder(classifier, songs, file, progress=False)
    first.drop(columns="model").to_csv(file, index=False)
    with pytest.warns(MelgenreWarning, match=ANEW):
        again = classify_folder(classifier, songs, file, progress=False)
    pd.testing.assert_frame_equal(again, first)


def test_a_song_replaced_by_an_older_one_is_classified_again(classifier, tmp_path, write_song):
    song = write_song(tmp_path / "music" / "song.wav", seconds=3)
    classify_folder(classifier, [song], tmp_path / "g.csv", progress=False)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 22050 * 4)
    soundfile.write(song, noise, 22050)
    os.utime(song, (0, 0))
    again = classify_folder(classifier, [song], tmp_path / "g.csv", progress=False)
    pd.testing.assert_frame_equal(again, classify_folder(classifier, [song], progress=False))


def test_two_names_never_become_one(classifier, tmp_path, write_song):
    song = write_song(tmp_path / "music" / "\\xe9.wav", seconds=3)
    try:
        shutil.copy(song, os.fsdecode(os.fsencode(song.parent) + b"/\xe9.wav"))
    except OSError:
        pytest.skip("this file system takes no such name")
    table = classify_folder(classifier, song.parent, tmp_path / "g.csv", progress=False)
    assert sorted(table["song"]) == ["\\\\xe9.wav", "\\xe9.wav"]
    assert (table["error"] == "").all()


def test_a_spreadsheet_takes_no_name_for_a_formula(classifier, tmp_path, write_song):
    song = write_song(tmp_path / "music" / "=cmd|' !A0.wav", seconds=3)
    for _ in range(2):  # the second run resumes
        table = classify_folder(classifier, song.parent, tmp_path / "g.csv", progress=False)
    assert table["song"].tolist() == ["=cmd|' !A0.wav"]
    assert (tmp_path / "g.csv").read_text().splitlines()[1].startswith("'=cmd|' !A0.wav,")


def test_a_folder_without_sound_raises_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sound in this folder"):
        find_audio_files(tmp_path)


class TestShell:
    def run(self, *arguments, cwd=None):
        command = [sys.executable, "-m", "melgenre", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd)

    @pytest.mark.slow
    def test_predict_prints_one_line_per_song_and_the_errors(self, exported, songs, classifier):
        ran = self.run("predict", songs, "--model", exported, "--json")
        assert ran.returncode == 3
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        assert len(lines) == 3
        for line in lines:
            assert line["genre"] == classifier.predict(line["song"]).genre
            assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-2)
        assert "broken.mp3: not readable" in ran.stderr
        assert "Traceback" not in ran.stderr

    @pytest.mark.slow
    def test_control_characters_of_a_name_are_escaped(self, exported, tmp_path, write_song):
        song = write_song(tmp_path / "music" / "\x1b[2J\x9b31mred\u202e.wav")
        write_song(tmp_path / "music" / "\x1b]0;title\x07.wav", seconds=0.1)
        for extra in ((), ("--json",)):
            ran = self.run("predict", song.parent, "--model", exported, *extra)
            assert ran.returncode == 3
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", ran.stdout + ran.stderr)
        assert json.loads(ran.stdout)["song"] == str(song)

    @pytest.mark.slow
    def test_predict_is_0_when_all_went_well_and_1_when_nothing_did(self, exported, songs):
        good = self.run("predict", songs / "a.wav", "--model", exported)
        # Nothing on stderr but the caveat of a model that was trained on made-up music.
        assert good.returncode == 0
        assert good.stderr.startswith("This model was trained on made-up music")
        assert good.stderr.count("\n") == 1
        assert good.stdout.endswith("a.wav\n")
        bad = self.run("predict", songs / "broken.mp3", "--model", exported)
        assert (bad.returncode, bad.stdout) == (1, "")

    @pytest.mark.slow
    @pytest.mark.parametrize("mel", ["bands=64", "n_mels", "n_mels=many", "n_mels=0"])
    def test_an_unknown_image_setting_gets_a_sentence(self, mel, tmp_path):
        ran = self.run("extract", "music", "images", "--mel", mel, cwd=tmp_path)
        assert ran.returncode == 1
        assert "n_mels" in ran.stderr
        assert "Traceback" not in ran.stderr

    @pytest.mark.slow
    def test_mistakes_are_reported_in_a_sentence(self, exported, songs, tmp_path):
        for arguments, sentence in [
            (("predict", songs / "a.wav", "--model", tmp_path / "none"), "No exported model in"),
            (("predict", exported, "--model", exported), "no sound in this folder"),
            (("train", songs, "--recipe", "great"), "No recipe 'great'. Choose one of texture"),
            (("extract", tmp_path / "none", tmp_path / "images"), "none"),
        ]:
            ran = self.run(*arguments, cwd=tmp_path)
            assert ran.returncode == 1, arguments
            assert sentence in ran.stderr
            assert "Traceback" not in ran.stderr
        assert self.run("predict").returncode == 2
        for command in ("predict", "extract", "train", "app"):
            assert f"\n  {command} " in self.run("--help").stdout
            assert self.run(command, "--help").returncode == 0

    def test_help_and_version_are_shown_as_they_are_written(self):
        assert self.run("--version").stdout == f"melgenre {melgenre.__version__}\n"
        assert "(needs melgenre[app])" in self.run("--help").stdout
        assert "(needs melgenre[app])" in self.run("app", "--help").stdout

    @pytest.mark.slow
    def test_one_folder_without_sound_does_not_stop_the_rest(self, exported, songs, tmp_path):
        (tmp_path / "no sound here").mkdir()
        ran = self.run("predict", songs / "a.wav", "no sound here", "missing/song.mp3",
                       "--model", exported, cwd=tmp_path)  # fmt: skip
        assert ran.returncode == 3
        assert ran.stdout.endswith("a.wav\n") and ran.stdout.count("\n") == 1
        assert ran.stderr.splitlines()[:-1] == [
            "no sound here: no sound in this folder. It should hold files such as song.mp3 or "
            "song.wav.",
            "missing/song.mp3: no such file. Check the path.",
        ]

    @pytest.mark.slow
    def test_extract_and_train_make_a_model_that_predicts(self, tmp_path):
        for genre, pitch in (("low", 110), ("high", 1760)):
            for number in range(6):
                file = tmp_path / "music" / genre / f"{number}.wav"
                file.parent.mkdir(parents=True, exist_ok=True)
                t = np.arange(5 * 22050) / 22050
                y = 0.3 * np.sin(2 * np.pi * (pitch + 7 * number) * t)
                soundfile.write(file, y * (1 + np.sin(2 * np.pi * (2 + number) * t)) / 2, 22050)
        mel = ("--mel", "n_mels=64", "--mel", "hop_length=3000")
        made = self.run("extract", "music", "images", "-q", *mel, cwd=tmp_path)
        assert made.stdout == "12 of 12 songs have an image in images.\n"
        assert len(list((tmp_path / "images").rglob("*.png"))) == 12
        trained = self.run("train", "music", "--recipe", "smoke-test", "--architecture", "resnet18",
                           "--out", "mine", "-q", *mel, cwd=tmp_path)  # fmt: skip
        assert trained.returncode == 0, trained.stderr
        few, unfiltered = trained.stderr.splitlines()  # and no warning of torch
        assert few.startswith("Fewer than 10 songs of high (6), low (6): too few")
        assert unfiltered.startswith("These tracks have no artist-filtered split. No track has an")
        config = json.loads((tmp_path / "mine" / "config.json").read_text())
        assert config["mel_settings"] == config["training"]["mel_settings"]
        assert config["mel_settings"]["n_mels"] == 64
        assert config["mel_settings"]["hop_length"] == 3000
        assert "Exported to mine" in trained.stdout
        predicted = self.run("predict", "music", "--model", "mine", "--csv", "g.csv", cwd=tmp_path)
        assert predicted.returncode == 0, predicted.stderr
        assert len(pd.read_csv(tmp_path / "g.csv")) == 12

    @pytest.mark.slow
    def test_hostile_names_are_trained_on(self, tmp_path, write_song):
        """Folders whose names hold control characters, are not UTF-8, or are very long."""
        names = [b"\x1b[2J\x9b31m\nred", b"caf\xe9", b"\xe9" * 250, "長".encode() * 85, b"=cmd"]
        for name in names:
            for number in range(6):
                song = write_song(tmp_path / "song.wav", seconds=1 + number / 4)
                genre = tmp_path / "music" / os.fsdecode(name)
                genre.mkdir(parents=True, exist_ok=True)
                song.rename(genre / os.fsdecode(b"\xff" * number + b"\x07.wav"))
        ran = self.run("train", "music", "--recipe", "smoke-test", "--architecture", "resnet18",
                       "--out", "mine", cwd=tmp_path)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", ran.stdout)
        genres = json.loads((tmp_path / "mine" / "config.json").read_text())["genres"]
        assert "caf\\xe9" in genres and "\\x1b[2J\\x9b31m\\nred" in genres
        ran = self.run("predict", "music", "--model", "mine", "--csv", "g.csv", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert len(pd.read_csv(tmp_path / "g.csv")) == 30

    @pytest.mark.slow
    def test_a_messy_folder_is_trained_on_and_predicted(self, messy_music, tmp_path):
        trained = self.run("train", messy_music, "--recipe", "smoke-test",
                           "--architecture", "resnet18", "--out", "mine", cwd=tmp_path)  # fmt: skip
        assert trained.returncode == 0, trained.stderr
        # What was understood, what was skipped, progress, and what the accuracy means.
        assert re.search(r"Jazz +12 +3 +0\n", trained.stdout)
        assert "3 of 40 tracks skipped" in trained.stderr
        assert "Jazz/Miles O'Hara/First album/empty.wav: empty file" in trained.stderr
        assert re.search(r"epoch  3: training loss .*, accuracy \d+", trained.stdout)
        assert "Genres:   Ambient, Drum & Bass, Jazz, Шансон\n" in trained.stdout
        assert re.search(r"Accuracy: .*\(artist-split\); few tracks, so only", trained.stdout)
        assert "No artist is in both parts" in trained.stdout
        # The split is stored: no artist is on two sides, and no unreadable song on any.
        split = pd.read_csv(tmp_path / "mine" / "split.csv")
        artist = split["track_id"].str.split("/").str[:2].str.join("/")
        assert len(split) == 37
        assert (split.groupby(artist)["split"].nunique() == 1).all()
        predicted = self.run("predict", messy_music, "--model", "mine", "--csv", "g.csv",
                             cwd=tmp_path)  # fmt: skip
        assert predicted.returncode == 3
        genres = pd.read_csv(tmp_path / "g.csv", keep_default_na=False)
        assert (genres["error"] != "").sum() == 3
        assert len(genres) == 40
