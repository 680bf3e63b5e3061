"""Images in shards are those of single files, and resume and change like these."""

import hashlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from melgenre.confusion.clips import image_png
from melgenre.data.collection import find_tracks
from melgenre.data.duplicates import find_duplicates
from melgenre.data.image_files import image_exists, image_key, read_image
from melgenre.data.mel_settings import ImageError, MelSettings, check_image, image_settings
from melgenre.data.shards import load_shards
from melgenre.errors import MelgenreWarning
from melgenre.features import shard_writer, shards
from melgenre.features.images import extract_melspectrograms
from melgenre.features.shards import extract_shards

SHORT = MelSettings(duration=1)


@pytest.fixture
def songs(tmp_path, write_song):
    """The table of twelve short songs of three genres and of a damaged one."""
    for number in range(12):
        folder = tmp_path / "music" / ("blues", "jazz", "rock")[number % 3]
        write_song(folder / f"{number}.wav", seconds=1 + number / 20)
    (tmp_path / "music" / "jazz" / "text.wav").write_text("This is not a song.\n" * 50)
    return find_tracks(tmp_path / "music")


def extract(songs, folder):
    """The extraction, without the warning of the damaged song."""
    with pytest.warns(MelgenreWarning, match="1 of .* tracks skipped: jazz/text.wav"):
        return extract_shards(songs, folder, settings=SHORT, progress=False)


def written(folder):
    """The bytes and the time of each shard."""
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.glob("*.parquet")}


def full_disk_after(n):
    """A function in place of `_content` that raises an error from its n-th call on."""
    content, calls = shard_writer._content, itertools.count(1)

    def fail_late(image):
        if next(calls) >= n:
            raise OSError(28, "No space left on device")
        return content(image)

    return fail_late


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of four songs, in row groups of three, written in this process."""
    monkeypatch.setattr(shards, "MOST_TRACKS", 4)
    monkeypatch.setattr(shard_writer, "GROUP_ROWS", 3)
    with joblib.parallel_config(backend="sequential"):
        yield


def test_several_genres_per_song_are_lists_after_reading(songs, tmp_path, small_shards):
    lists = [[genre, "loud"] if row % 2 else [genre] for row, genre in enumerate(songs["genre"])]
    made = extract(songs.assign(genre=lists), tmp_path / "shards")
    assert made["genre"].map(type).eq(list).all()
    expected = dict(zip(songs["track_id"], map(sorted, lists), strict=True))
    assert made["genre"].tolist() == [expected[track] for track in made["track_id"]]
    before = written(tmp_path / "shards")
    extract(songs.assign(genre=lists), tmp_path / "shards")
    assert written(tmp_path / "shards") == before
    assert load_shards(tmp_path / "shards")["genre"].tolist() == made["genre"].tolist()


def test_shards_have_the_bytes_of_single_files(songs, tmp_path, small_shards):
    made = extract(songs, tmp_path / "shards")
    with pytest.warns(MelgenreWarning, match="skipped"):
        single = extract_melspectrograms(songs, tmp_path / "files", settings=SHORT, progress=False)
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 4
    assert sorted(made["track_id"]) == sorted(single["track_id"])
    files = single.set_index("track_id")
    for track, path, image in made[["track_id", "path", "image"]].itertuples(index=False):
        content = Path(files["image"][track]).read_bytes()
        assert read_image(image) == content
        assert image_key(image) == image_key(files["image"][track])
        assert image_key(image) == hashlib.md5(content).hexdigest()
        assert path == files["path"][track]
        assert image_settings(image) == SHORT
        check_image(image, SHORT)
    assert made.attrs["skipped"][0][0] == "jazz/text.wav"
    pd.testing.assert_frame_equal(load_shards(tmp_path / "shards"), made)
    assert image_png(made.iloc[0], SHORT) == image_png(files.loc[made["track_id"][0]], SHORT)
    assert "recording_id" in find_duplicates(made)


def test_a_second_extraction_writes_nothing(songs, tmp_path, small_shards):
    first = extract(songs, tmp_path / "shards")
    before = written(tmp_path / "shards")
    pd.testing.assert_frame_equal(extract(songs.sample(frac=1), tmp_path / "shards"), first)
    assert written(tmp_path / "shards") == before


def test_a_new_song_changes_one_shard_and_a_changed_one_its_image(
    songs, tmp_path, small_shards, write_song, monkeypatch
):
    folder = tmp_path / "shards"
    made = extract(songs, folder)
    before, drawn, draw = written(folder), [], shard_writer.make_png
    monkeypatch.setattr(
        shard_writer, "make_png", lambda path, _: drawn.append(path) or draw(path, _)
    )
    write_song(tmp_path / "music" / "rock" / "new.wav")
    more = extract(find_tracks(tmp_path / "music"), folder)
    assert len(more) == len(made) + 1
    assert sum(written(folder)[file] != content for file, content in before.items()) == 1
    assert sorted(Path(path).name for path in drawn) == ["new.wav", "text.wav"]

    drawn.clear()
    images = {
        track: read_image(image)
        for track, image in zip(more["track_id"], more["image"], strict=True)
    }
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 22050)
    soundfile.write(songs["path"][0], noise, 22050)
    os.remove(songs["path"][1])  # its image is kept, as that of a single file
    changed = extract(songs, folder)
    assert len(changed) == len(made), "those of other tables are deleted"
    assert {Path(path).name for path in drawn} == {"text.wav", Path(songs["path"][0]).name}
    differing = [
        track
        for track, image in zip(changed["track_id"], changed["image"], strict=True)
        if read_image(image) != images[track]
    ]
    assert differing == [songs["track_id"][0]]


def test_another_column_or_number_of_shards_draws_no_image_again(
    songs, tmp_path, small_shards, monkeypatch
):
    readable = songs[~songs["path"].str.contains("text")]
    folder = tmp_path / "shards"
    made = extract_shards(readable, folder, settings=SHORT, progress=False)
    images = {
        track: read_image(image)
        for track, image in zip(made["track_id"], made["image"], strict=True)
    }
    monkeypatch.setattr(shard_writer, "make_png", None)
    monkeypatch.setattr(shards, "MOST_TRACKS", 2)
    before = written(folder)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ImageError, match="No space left"):
        patch.setattr(shard_writer, "_content", full_disk_after(5))
        extract_shards(readable, folder, settings=SHORT, progress=False)
    assert before.items() <= written(folder).items()
    pd.testing.assert_frame_equal(load_shards(folder), made)  # until all new shards are written
    several = [["a", "b"]] * len(readable)
    again = extract_shards(readable.assign(genres=several), folder, settings=SHORT, progress=False)
    assert len(list(folder.glob("*.parquet"))) == 8
    assert again["genres"].map(list).tolist() == several
    for track, image in zip(again["track_id"], again["image"], strict=True):
        assert read_image(image) == images[track]
    monkeypatch.setattr(shards, "MOST_TRACKS", 100)
    extract_shards(readable, folder, settings=SHORT, progress=False)
    assert len(list(folder.glob("*.parquet"))) == 1
    pd.testing.assert_frame_equal(
        load_shards(folder).drop(columns="image"), made.drop(columns="image")
    )


def test_a_damaged_shard_gets_a_sentence_and_is_made_again(songs, tmp_path, small_shards):
    folder = tmp_path / "shards"
    made, before = extract(songs, folder), written(folder)
    file = Path(made["image"][0].partition("#")[0])
    content = file.read_bytes()
    at = content.index(read_image(made["image"][0])) + 60
    file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    pd.testing.assert_frame_equal(load_shards(folder), made)  # reads no image
    with pytest.raises(OSError, match="images-00000-of-00004.parquet cannot be read .*Delete it"):
        read_image(made["image"][0])
    with pytest.raises(ImageError, match="not readable"):
        check_image(made["image"][0])
    assert image_png(made.iloc[0].drop("path"), SHORT) == b""
    for damaged in (b"", content[:50], content[:-9]):
        file.write_bytes(damaged)
        with pytest.raises(ImageError, match="The shard images-00000-of-00004.parquet is damaged"):
            load_shards(folder)
        extract(songs, folder)
        assert file.read_bytes() == content
    file.unlink()
    assert not image_exists(made["image"][0])
    with pytest.raises(FileNotFoundError, match="No such shard"):
        read_image(made["image"][0])
    with pytest.raises(ImageError, match="interrupted .3 of 4."):
        load_shards(folder)
    extract(songs, folder)
    assert [one[0] for one in written(folder).values()] == [one[0] for one in before.values()]


def test_many_workers_make_the_same_shards(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MOST_TRACKS", 1)
    made = extract(songs, tmp_path / "one")
    assert len(list((tmp_path / "one").glob("*.parquet"))) == 16
    single = {
        track: read_image(image)
        for track, image in zip(made["track_id"], made["image"], strict=True)
    }
    with joblib.parallel_config(backend="sequential"):
        other = extract(songs, tmp_path / "two")
    for track, image in other[["track_id", "image"]].to_numpy():
        assert read_image(image) == single[track]
    for file in (tmp_path / "one").glob("*.parquet"):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_images_that_exist_are_taken_as_they_are(songs, tmp_path, small_shards):
    first = extract(songs, tmp_path / "shards")
    silent = first.assign(path=None)
    again = extract_shards(silent, tmp_path / "again", settings=SHORT, progress=False)
    for one, other in zip(first["image"], again["image"], strict=True):
        assert read_image(one) == read_image(other)
    with pytest.raises(ImageError, match="have no sound to make new images from"):
        extract_shards(silent, tmp_path / "other", progress=False)
    with pytest.raises(ImageError, match="was made with other settings"):
        extract_shards(songs, tmp_path / "again", progress=False)


def test_images_in_shards_are_kept_by_an_extraction_of_single_files(songs, tmp_path, small_shards):
    made = extract(songs, tmp_path / "shards")
    kept = extract_melspectrograms(made, tmp_path / "files", settings=SHORT, progress=False)
    assert kept["image"].tolist() == made["image"].tolist()
    assert not list((tmp_path / "files").rglob("*.png"))


def test_tables_that_no_shard_can_hold_get_a_sentence(songs, tmp_path):
    twice = pd.concat([songs, songs.head(1)])
    with pytest.raises(ImageError, match=f"{songs['track_id'][0]!r} occurs twice"):
        extract_shards(twice, tmp_path / "shards")
    mixed = songs.assign(year=[1990, "unknown"] * 6 + [None])
    with pytest.raises(ImageError, match="The column year cannot be written to Parquet"):
        extract_shards(mixed, tmp_path / "shards")
    with pytest.raises(ImageError, match="No track could .*text.wav: not readable as sound"):
        extract_shards(songs[songs["path"].str.contains("text")], tmp_path / "shards")
    with pytest.raises(ImageError, match="No shards in 'nothing'"):
        load_shards(tmp_path / "nothing")


@pytest.mark.slow
def test_datasets_streams_the_images(songs, tmp_path):
    made = extract(songs, tmp_path / "shards")
    program = """
import sys, datasets
rows = datasets.load_dataset("parquet", data_files=sys.argv[1], split="train", streaming=True)
print(type(rows.features["image"]).__name__)
for row in rows:
    print(row["track_id"], row["genre"], *row["image"].size, sum(row["image"].tobytes()))
"""
    pytest.importorskip("datasets")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", program, str(tmp_path / "shards" / "*.parquet")]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    expected = ["Image"]
    for track, genre, image in made[["track_id", "genre", "image"]].itertuples(index=False):
        opened = Image.open(io.BytesIO(read_image(image)))
        expected.append(f"{track} {genre} {SHORT.columns} {SHORT.n_mels} {sum(opened.tobytes())}")
    assert ran.stdout.splitlines() == expected
