import hashlib
import http.server
import json
import os
import re
import shutil
import tarfile
import threading
import warnings
import zipfile
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from melgenre.data import collection, gtzan as gtzan_module
from melgenre.data.collection import describe_collection, find_tracks, load_collection
from melgenre.data.download import DownloadError
from melgenre.data.gtzan import gtzan_metadata, verify_gtzan
from melgenre.data.metadata import CollectionError
from melgenre.data.splits import random_split
from melgenre.data.table import probabilities
from melgenre.data.tracks import CollectionWarning
from melgenre.errors import MelgenreWarning
from melgenre.features.descriptors import DESCRIPTORS, compute_descriptors
from melgenre.features.images import extract_melspectrograms


def write_clips(folder, write_song, names):
    for name in names:
        write_song(folder / name, seconds=1.2)
    return folder


NAMES = ["blues/blues.00000.wav", "blues/blues.00001.wav", "jazz/jazz.00000.au"]


@pytest.mark.parametrize("layout", ["", "genres", "Data/genres_original", "a/b/genres"])
def test_gtzan_is_found_in_every_layout(tmp_path, write_song, layout):
    write_clips(tmp_path / "here" / layout, write_song, NAMES)
    tracks = find_tracks(tmp_path / "here")
    assert tracks["track_id"].tolist() == ["blues.00000", "blues.00001", "jazz.00000"]
    assert tracks["genre"].tolist() == ["blues", "blues", "jazz"]
    assert set(tracks["collection"]) == {"gtzan"}
    assert tracks["fault_filtered_split"].tolist()[:2] == ["valid", "valid"]
    assert tracks["artist_id"].iloc[0] == "0"


@pytest.mark.parametrize("kind", ["zip", "gztar", "tar"])
def test_an_archive_is_a_collection_and_stays_as_it_is(tmp_path, write_song, kind):
    write_clips(tmp_path / "packed" / "Data" / "genres_original", write_song, NAMES)
    (tmp_path / "raw").mkdir()
    archive = shutil.make_archive(str(tmp_path / "raw" / "GTZAN"), kind, tmp_path / "packed")
    tracks = load_collection(archive, data=tmp_path / "data", progress=False)
    assert len(tracks) == 3
    # The folder that holds nothing but the archive is the same collection.
    again = load_collection(tmp_path / "raw", data=tmp_path / "data", progress=False)
    pd.testing.assert_frame_equal(again, tracks)
    assert len(list((tmp_path / "raw").iterdir())) == 1


def test_the_outer_folder_of_an_archive_is_not_a_genre(tmp_path, write_song):
    names = ["all of it/Jazz/Miles/a.wav", "all of it/Rock/Björk/b.wav"]
    write_clips(tmp_path / "packed", write_song, names)
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "packed")
    tracks = load_collection(archive, data=tmp_path / "data", progress=False)
    assert tracks["genre"].tolist() == ["Jazz", "Rock"]
    assert tracks["artist_id"].tolist() == ["Miles", "Björk"]


def test_a_users_own_music_keeps_its_names(tmp_path, write_song):
    names = ["R&B/Élan vital.flac", "R&B/a 'quoted' one.mp3", "джаз/песня.ogg", "rock/.hidden.wav"]
    names += ["rock/x.wav", "rock/x.flac", "old/rock/x.wav"]
    write_clips(tmp_path / "mine", write_song, names)
    (tmp_path / "mine" / "rock" / "cover.txt").write_text("no sound")
    tracks = find_tracks(tmp_path / "mine")
    assert tracks["track_id"].tolist() == [
        "R&B/a 'quoted' one", "R&B/Élan vital", "old/rock/x", "rock/x", "rock/x (2)", "джаз/песня",
    ]  # fmt: skip
    assert tracks["artist_id"].dropna().tolist() == ["rock"]
    assert tracks["collection"].str.startswith("mine-").all()
    assert tracks.attrs["skipped"] == {".txt": 1}


NESTED = [
    "Jazz/Miles/Blue/CD 1/So What.wav", "Jazz/Miles/Blue/CD 2/So What.wav", "Jazz/Ella/Songs/a.wav",
    "Rock/Björk 🎷/CD 1/b.wav", "Rock/loose.wav", "loose.wav", "Rock/Björk 🎷/CD 1/cover.jpg",
]  # fmt: skip


def test_folders_below_a_genre_are_artist_and_album(tmp_path, write_song):
    write_clips(tmp_path, write_song, [name for name in NESTED if name.endswith("wav")])
    (tmp_path / NESTED[-1]).write_bytes(b"")
    tracks = find_tracks(tmp_path).set_index("track_id")
    assert tracks["genre"].tolist() == ["Jazz"] * 3 + ["Rock"] * 2
    song = tracks.loc["Jazz/Miles/Blue/CD 2/So What"]
    assert (song["artist_id"], song["album"]) == ("Miles", "Blue")
    assert tracks.loc["Rock/Björk 🎷/CD 1/b", "artist_id"] == "Björk 🎷"
    assert pd.isna(tracks.loc["Rock/loose", "artist_id"])
    assert tracks.attrs["skipped"] == {".jpg": 1, ".wav": 1}
    # Songs of one name have images of their own, which are found again as they lie.
    drawn = extract_melspectrograms(tracks.reset_index(), tmp_path / "drawn", progress=False)
    assert drawn["image"].is_unique
    again = find_tracks(tmp_path / "drawn")
    assert again["track_id"].tolist() == drawn["track_id"].tolist()
    assert again["artist_id"].tolist()[:3] == drawn["artist_id"].tolist()[:3]
    # What a person wrote comes before the folder's name.
    (tmp_path / "tracks.csv").write_text(
        "track_id,artist_id,path\nJazz/Ella/Songs/a,Ella Fitzgerald,elsewhere\n"
    )
    tracks = find_tracks(tmp_path).set_index("track_id")
    assert tracks["artist_id"].tolist()[:2] == ["Ella Fitzgerald", "Miles"]
    assert tracks["path"].str.startswith(str(tmp_path)).all()


def test_a_collection_is_described_and_its_problems_are_warnings(tmp_path, write_song, capfd):
    write_clips(tmp_path / "mine", write_song, [name for name in NESTED if name.endswith("wav")])
    with pytest.warns(CollectionWarning) as warned:
        tracks = load_collection(tmp_path / "mine", data=tmp_path / "data")
    messages = [str(one.message) for one in warned]
    assert messages[0].endswith("in no genre's folder: 1 .wav.")
    assert messages[1].startswith("Fewer than 10 songs of Jazz (3), Rock (2)")
    assert all(one.filename == __file__ for one in warned)
    name, _, numbers = describe_collection(tracks).partition(": ")
    assert re.fullmatch("mine-[0-9a-f]{6}", name)
    assert re.match(r"5 tracks of 2 genres, 5 with sound, 0 with an image.\n", numbers)
    assert re.search(r"Jazz +3 +2 +0\nRock +2 +1 +1$", numbers)
    shutil.move(tmp_path / "mine", tmp_path / "all" / "mine")
    with pytest.warns(CollectionWarning, match="All songs are in one folder, 'mine'"):
        load_collection(tmp_path / "all", data=tmp_path / "data")
    assert capfd.readouterr() == ("", "")


def test_paths_are_absolute_and_messages_show_names_alone(tmp_path, write_song, monkeypatch):
    write_clips(tmp_path / "somebody" / "mine", write_song, ["rock/a.wav", "rock/b.mp3"])
    (tmp_path / "link").symlink_to("somebody")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tracks = find_tracks("../link/mine")
    made = extract_melspectrograms(tracks, "drawn", progress=False)
    folder = (tmp_path / "somebody" / "mine").resolve()
    assert made["path"].tolist() == [str(folder / "rock" / "a.wav"), str(folder / "rock" / "b.mp3")]
    assert made["image"].tolist() == [
        str(tmp_path.resolve() / "elsewhere" / "drawn" / "rock" / name)
        for name in ("a.png", "b.png")
    ]
    with pytest.warns(CollectionWarning) as warned:
        load_collection(folder, data=tmp_path / "data")
    for message in (*(str(one.message) for one in warned), describe_collection(tracks)):
        assert "somebody" not in message
    for folder in (tmp_path / "somebody", tmp_path / "somebody" / "none"):
        with pytest.raises(CollectionError) as raised, warnings.catch_warnings(action="ignore"):
            find_tracks(folder / "none")
        assert "/somebody" not in str(raised.value)


def test_a_users_own_columns_are_added(tmp_path, write_song):
    write_clips(tmp_path, write_song, ["rock/a.wav", "jazz/b.wav"])
    (tmp_path / "tracks.csv").write_text("track_id,artist_id,year\nrock/a,007,1999\n")
    tracks = find_tracks(tmp_path).set_index("track_id")
    assert tracks.loc["rock/a", ["artist_id", "year"]].tolist() == ["007", 1999]
    assert pd.isna(tracks.loc["jazz/b", "artist_id"])
    (tmp_path / "tracks.csv").write_text("name,artist\na,b\n")
    with pytest.raises(CollectionError, match="needs a column track_id"):
        find_tracks(tmp_path)


TABLE = "track_id{0}artist_id{0}year\nrock/a{0}Björk{0}1999\n{0}{0}\n\njazz/b{0}12{0}\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path, separator, encoding, ends):
    for name in ("rock/a", "jazz/b"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.wav").write_bytes(b"")
    text = TABLE.format(separator).replace("\n", ends)
    (tmp_path / "tracks.csv").write_bytes(text.encode(encoding))
    tracks = find_tracks(tmp_path).set_index("track_id")
    assert tracks["artist_id"].to_dict() == {"rock/a": "Björk", "jazz/b": "12"}
    assert tracks.loc["rock/a", "year"] == 1999


OURS = ("path", "image", "genre", "predicted", "collection", "split", "fold", "p_rock")


@pytest.mark.slow
@pytest.mark.parametrize("written", ["{}", " {} ", "{}\t", '"{}"', "upper", "title"])
def test_a_users_table_changes_no_column_of_ours(tmp_path, write_song, written):
    for genre in ("jazz", "rock"):
        for name in ("a", "b"):
            write_song(tmp_path / "music" / genre / f"{name}.wav")
    ours = [getattr(one, written)() if written.isalpha() else written.format(one) for one in OURS]
    columns = ["track_id", *ours, "tempo", "mfcc1", "year"]
    lines = [",".join([f"{genre}/{name}", *["jazz"] * len(ours), "1", "2", "1959"])
             for genre in ("jazz", "rock") for name in ("a", "b")]  # fmt: skip
    (tmp_path / "music" / "tracks.csv").write_text("\n".join([",".join(columns), *lines]))
    tracks = find_tracks(tmp_path / "music")
    assert set(tracks) == {"track_id", "genre", "artist_id", "path", "image", "collection",
                           "tempo", "mfcc1", "year"}  # fmt: skip
    assert tracks["genre"].tolist() == ["jazz", "jazz", "rock", "rock"]
    assert tracks["path"].map(os.path.exists).all() and tracks["image"].isna().all()
    # The steps that follow add their own columns, once.
    tracks = extract_melspectrograms(tracks, tmp_path / "images", progress=False)
    split = random_split(compute_descriptors(tracks, progress=False))
    assert split.columns.is_unique and set(DESCRIPTORS) < set(split)
    assert not split["tempo"].eq(1).any() and not split["split"].eq("jazz").any()
    assert probabilities(split).empty


@pytest.mark.parametrize("name", ["track_id ", " track_id", "track_id\t"])
def test_spaces_in_a_header_change_no_value(tmp_path, write_song, name):
    write_song(tmp_path / "90s" / "007.wav")
    write_song(tmp_path / "90s" / "8.wav")
    rows = "90s/007,1,007,1999\n90s/8,2,08,2000\n"
    (tmp_path / "tracks.csv").write_text(f"{name}, year,artist_id ,year \n{rows}")
    tracks = find_tracks(tmp_path)
    assert tracks["artist_id"].tolist() == ["007", "08"]
    assert tracks["year"].tolist() == [1, 2]  # the first of two columns of one name


def test_names_that_look_like_numbers_or_missing_values_stay_text(tmp_path):
    for name in ("90s/1", "90s/2", "90s/007"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.wav").write_bytes(b"")
    text = '"track_id", "artist_id"\n90s/1,NA\n90s/007,"O\'Hara, Miles"\n'
    (tmp_path / "tracks.csv").write_text(text)
    artists = find_tracks(tmp_path).set_index("track_id")["artist_id"]
    assert artists.dropna().to_dict() == {"90s/1": "NA", "90s/007": "O'Hara, Miles"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\0" * 5000, bytes(range(256)) * 99, b"PK\3\4" + bytes(99), b"a,b\n1,2,3,4,5\n",
     b'track_id,"artist_id\nrock/a,b\n', b"\xff\xfe\x00", b"track_id\na\na\n", b"\xef\xbb\xbf",
     b"track_id,artist_id\n" + b"x" * 5_000_000 + b",y," * 9],
    ids=lambda content: str(content[:20]),
)  # fmt: skip
def test_a_damaged_table_gets_a_sentence(tmp_path, content):
    (tmp_path / "rock").mkdir()
    (tmp_path / "rock" / "a.wav").write_bytes(b"")
    (tmp_path / "tracks.csv").write_bytes(content)
    with pytest.raises(CollectionError, match="tracks.csv") as raised:
        find_tracks(tmp_path)
    assert len(str(raised.value)) < 500


def test_two_folders_of_one_name_are_two_collections(tmp_path, monkeypatch):
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path))
    folders = ["data/mine", "data/unpacked/packed", "data/old/mine", "mine", "data"]
    for name in folders:
        (tmp_path / name / "rock").mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "rock" / "a.wav").write_bytes(b"")
    names = [find_tracks(tmp_path / name)["collection"].iloc[0] for name in folders]
    assert names[:2] == ["mine", "packed"]
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"(mine|data)-[0-9a-f]{6}", name) for name in names[2:])


def test_two_archives_of_one_name_are_two_collections(tmp_path, capsys):
    for place, genre in (("one", "jazz"), ("two", "rock")):
        (tmp_path / place).mkdir()
        with zipfile.ZipFile(tmp_path / place / "music.zip", "w") as archive:
            archive.writestr(f"{genre}/a.wav", b"")
    found = [
        load_collection(tmp_path / place / "music.zip", data=tmp_path / "data", progress=False)
        for place in ("one", "two", "one")
    ]
    assert [tracks["genre"].tolist() for tracks in found] == [["jazz"], ["rock"], ["jazz"]]


def test_an_archive_of_the_same_size_but_other_content_is_another_collection(tmp_path):
    for genre in ("jazz", "rock"):
        with zipfile.ZipFile(tmp_path / "music.zip", "w") as archive:
            archive.writestr(f"{genre}/a.wav", b"")
        tracks = load_collection(tmp_path / "music.zip", data=tmp_path / "data", progress=False)
        assert tracks["genre"].tolist() == [genre]


def test_unreadable_folders_and_broken_links_do_not_end_the_search(tmp_path, monkeypatch):
    (tmp_path / "rock").mkdir()
    (tmp_path / "rock" / "a.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "rock" / "b.png").symlink_to("b.png")  # round in a circle
    (tmp_path / "rock" / "c.png").symlink_to(tmp_path)
    (tmp_path / "archive").symlink_to("archive")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with (
        pytest.warns(CollectionWarning, match="images were skipped"),
        pytest.warns(MelgenreWarning, match=r"folder closed was skipped \(Permission denied\)"),
    ):
        assert find_tracks(tmp_path)["track_id"].tolist() == ["rock/a"]


def test_a_folder_that_may_not_be_listed_gets_a_sentence(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.warns(match="was skipped"), pytest.raises(CollectionError, match="No music in"):
        load_collection(tmp_path, data=tmp_path / "data", progress=False)


def test_images_made_earlier_are_tracks(tmp_path, write_song):
    write_song(tmp_path / "genres" / "blues" / "blues.00000.wav")
    for name in ("blues.00000", "blues.00001"):
        (tmp_path / "mels" / "blues").mkdir(parents=True, exist_ok=True)
        Image.new("L", (387, 128)).save(tmp_path / "mels" / "blues" / f"{name}.png")
    tracks = find_tracks(tmp_path)
    assert tracks["image"].notna().tolist() == [True, True]
    assert tracks["path"].notna().tolist() == [True, False]


def test_images_of_another_size_are_refused(tmp_path, write_song):
    (tmp_path / "images_original" / "blues").mkdir(parents=True)
    Image.new("RGBA", (432, 288)).save(tmp_path / "images_original" / "blues" / "blues00000.png")
    with pytest.raises(CollectionError, match="432 x 288 pixels of mode RGBA"):
        find_tracks(tmp_path)
    write_song(tmp_path / "genres_original" / "blues" / "blues.00000.wav")
    with pytest.warns(CollectionWarning, match="1 images were skipped"):
        assert find_tracks(tmp_path)["image"].isna().all()


def test_images_are_checked_against_the_settings_saved_beside_them(tmp_path):
    (tmp_path / "jazz").mkdir()
    Image.new("L", (387, 128)).save(tmp_path / "jazz" / "a.png")
    (tmp_path / "mel_settings.json").write_text(json.dumps({"top_db": 60.0}))
    assert find_tracks(tmp_path)["image"].notna().all()
    (tmp_path / "mel_settings.json").write_text(json.dumps({"n_mels": 64}))
    with pytest.raises(CollectionError, match="its settings give 387 x 64"):
        find_tracks(tmp_path)


def test_a_folder_without_music_gets_a_sentence(tmp_path):
    with pytest.raises(CollectionError, match="No music in 'void'.*one folder per genre"):
        (tmp_path / "void").mkdir()
        find_tracks(tmp_path / "void")
    with pytest.raises(CollectionError, match="No folder 'nowhere'"):
        find_tracks(tmp_path / "nowhere")


def test_a_symlink_loop_ends(tmp_path, write_song):
    write_song(tmp_path / "rock" / "a.wav")
    (tmp_path / "rock" / "up").symlink_to(tmp_path)
    assert len(find_tracks(tmp_path)) == 1


def test_the_metadata_of_gtzan():
    tracks = gtzan_metadata()
    assert len(tracks) == 1000
    assert tracks["track_id"].is_unique
    assert (tracks.groupby("genre").size() == 100).all()
    counts = tracks["fault_filtered_split"].value_counts()
    assert (counts["train"], counts["valid"], counts["test"]) == (443, 197, 290)
    named = tracks.dropna(subset="artist_id")
    assert len(named) == 948
    assert named["artist_id"].nunique() == 412
    assert (named.groupby("artist_id")["artist_fold"].nunique() == 1).all()


def test_the_metadata_is_the_published_one(gtzan):
    published = pd.read_csv(gtzan / "tracks.csv", dtype={"artist_id": str, "artist_fold": "Int64"})
    pd.testing.assert_frame_equal(gtzan_metadata()[published.columns], published, check_like=True)


@pytest.mark.slow
def test_real_clips_are_verified(gtzan, tmp_path):
    tracks = find_tracks(gtzan)
    problems = verify_gtzan(tracks)
    assert set(problems["problem"]) == {"missing"}
    assert len(problems) == 1000 - tracks["path"].notna().sum()
    copy = tmp_path / "blues.00000.wav"
    copy.write_bytes(Path(tracks["path"].dropna().iloc[0]).read_bytes()[:-1] + b"x")
    tracks.loc[0, "path"] = str(copy)
    found = verify_gtzan(tracks).set_index("track_id")["problem"]
    assert found["blues.00000"] == "changed"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def host(tmp_path, write_song):
    """A server on loopback with an archive of GTZAN's layout under both of its addresses."""
    write_clips(tmp_path / "packed" / "genres", write_song, NAMES)
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "genres.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "packed" / "genres", "genres")
    with zipfile.ZipFile(served / "main.zip", "w") as archive:
        for name in NAMES:
            archive.write(tmp_path / "packed" / "genres" / name, f"gtzan_mini-main/genres/{name}")
    handler = partial(Quiet, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("name, file", [("gtzan", "genres.tar.gz"), ("gtzan-mini", "main.zip")])
def test_a_known_collection_is_downloaded_once(tmp_path, host, monkeypatch, name, file, capfd):
    monkeypatch.setitem(collection.DOWNLOADS, name, f"{host}/{file}")
    data = tmp_path / "data"
    with pytest.warns(CollectionWarning, match="2 clips have other content .blues.00000, blues"):
        tracks = load_collection(name, data=data, progress=False)
    assert describe_collection(tracks) == (
        "gtzan: 3 tracks of 2 genres, 3 with sound, 0 with an image."
    )
    assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(collection.DOWNLOADS, name, f"http://127.0.0.1:9/{file}")
    assert len(load_collection(name, data=data, progress=False)) == 3
    # What was downloaded is found without its name, too.
    monkeypatch.delenv("MELGENRE_DATA", raising=False)
    assert len(load_collection("auto", data=data, progress=False)) == 3


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A function that packs clips whose md5 sums pass for the published ones."""

    def pack(track_ids, changed=()):
        contents = {name: name.encode() for name in track_ids}
        known = gtzan_metadata().copy()
        sums = known["track_id"].map(lambda name: hashlib.md5(name.encode()).hexdigest())
        monkeypatch.setattr(gtzan_module, "gtzan_metadata", lambda: known.assign(md5_wav=sums))
        contents |= {name: b"other" for name in changed}
        with zipfile.ZipFile(tmp_path / "GTZAN.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(
                    f"Data/genres_original/{name.partition('.')[0]}/{name}.wav", content
                )
        return tmp_path / "GTZAN.zip"

    return pack


ALL_CLIPS = gtzan_metadata()["track_id"].tolist()


def test_an_unpacked_gtzan_is_verified_once(published, tmp_path):
    archive = published(ALL_CLIPS[2:], changed=["jazz.00054"])
    with pytest.warns(CollectionWarning) as warned:
        load_collection(archive, data=tmp_path / "data", progress=False)
    assert [str(one.message) for one in warned] == [
        "This copy of GTZAN differs from the published one: 2 clips are missing (blues.00000, "
        "blues.00001); 1 clips have other content (jazz.00054); a common copy has a damaged "
        "jazz.00054.wav. Download another copy, or leave these clips out."
    ]
    with warnings.catch_warnings(action="error"):
        load_collection(archive, data=tmp_path / "data", progress=False)


@pytest.mark.parametrize("clips", [ALL_CLIPS, ALL_CLIPS[::10]], ids=["all", "a tenth"])
def test_a_complete_copy_and_a_part_of_gtzan_give_no_warning(published, tmp_path, clips):
    with warnings.catch_warnings(action="error"):
        load_collection(published(clips), data=tmp_path / "data", progress=False)


def test_an_archive_downloaded_by_hand_is_used(tmp_path, host, monkeypatch):
    monkeypatch.setitem(collection.DOWNLOADS, "gtzan", "http://127.0.0.1:9/genres.tar.gz")
    with pytest.raises(DownloadError, match="save it as .*data/gtzan/genres.tar.gz"):
        load_collection("gtzan", data=tmp_path / "data", progress=False)
    shutil.copy(tmp_path / "served" / "genres.tar.gz", tmp_path / "data" / "gtzan")
    assert len(load_collection("gtzan", data=tmp_path / "data", progress=False)) == 3


def test_without_a_collection_the_music_is_made_up_with_a_warning(tmp_path, monkeypatch, music):
    monkeypatch.delenv("MELGENRE_DATA", raising=False)
    # Clips that are there already are kept, so none is rendered again.
    monkeypatch.setattr(collection, "SYNTHETIC_CLIPS", 4)
    shutil.copytree(music, tmp_path / "synthetic")
    with pytest.warns(CollectionWarning, match="SYNTHETIC MUSIC"):
        tracks = load_collection("auto", data=tmp_path, progress=False)
    assert set(tracks["collection"]) == {"synthetic"}
    assert tracks["artist_id"].notna().all()
    assert describe_collection(tracks).startswith("synthetic: 40 tracks of 10 genres")


def test_melgenre_data_comes_before_all_else(tmp_path, monkeypatch, write_song):
    write_clips(tmp_path / "mine", write_song, ["rock/a.wav", "jazz/b.wav"])
    write_clips(tmp_path / "data" / "gtzan", write_song, NAMES)
    monkeypatch.setenv("MELGENRE_DATA", str(tmp_path / "mine"))
    assert len(load_collection(data=tmp_path / "data", progress=False)) == 2
    monkeypatch.delenv("MELGENRE_DATA")
    assert len(load_collection(data=tmp_path / "data", progress=False)) == 3


def test_the_project_can_lie_in_another_folder_than_what_is_unpacked(tmp_path, host, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(collection.DOWNLOADS, "gtzan-mini", f"{host}/main.zip")
    monkeypatch.setenv("MELGENRE_HOME", str(tmp_path / "kept"))
    monkeypatch.setenv("MELGENRE_UNPACKED", str(tmp_path / "unpacked"))
    tracks = load_collection("gtzan-mini", progress=False)
    kept = [f.relative_to(tmp_path / "kept") for f in (tmp_path / "kept").rglob("[!.]*.*")]
    assert kept == [Path("data/gtzan-mini/main.zip")]
    assert all(Path(path).is_relative_to(tmp_path / "unpacked") for path in tracks["path"])
