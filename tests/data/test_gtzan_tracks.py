"""The page about the table of GTZAN's tracks states what is in the table."""

import re
import subprocess

import pandas as pd
import pytest
from conftest import ROOT

import melgenre as mg

PAGE = (ROOT / "docs" / "gtzan_tracks.md").read_text()
CSV = ROOT / "src" / "melgenre" / "data" / "gtzan_tracks.csv"


@pytest.fixture(scope="module")
def tracks():
    """The table as the page loads it without melgenre."""
    code = re.search(r"```python\n(import pandas.*?)```", PAGE, re.S)[1]
    names = {}
    exec(code.replace("src/melgenre/data/gtzan_tracks.csv", str(CSV)), names)
    assert len(names["test"]) == 290
    pd.testing.assert_frame_equal(
        names["tracks"], mg.gtzan_metadata().drop(columns="genre"), check_dtype=False
    )
    return mg.gtzan_metadata()


def rows(heading):
    """The rows of the page's table whose first header is this."""
    table = re.search(rf"\| {heading} \|.*\n\| ---.*\n((?:\|.*\n)+)", PAGE)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_columns_and_what_they_lack(tracks):
    described = rows("column")
    assert [f"`{name}`" for name in tracks if name != "genre"] == [row[0] for row in described]
    missing = {row[0].strip("`"): int((re.findall(r"\d+", row[3]) or [0])[0]) for row in described}
    assert missing == tracks.drop(columns="genre").isna().sum().to_dict()
    assert tracks["artist_fold"].isna().equals(tracks["artist_id"].isna())
    assert set(tracks["artist_id"].dropna()) == {str(number) for number in range(412)}


def test_the_numbers(tracks):
    numbers = {row[0]: [int(n) for n in re.findall(r"\d+", row[1])] for row in rows("quantity")}
    clips = tracks["artist_id"].value_counts()
    assert numbers["artists"] == [len(clips), (clips == 1).sum(), clips.max()]
    assert numbers["clips by a known artist"] == [clips.sum()]
    folds = tracks["artist_fold"].value_counts()
    assert numbers["clips per fold"] == [n for fold in (1, 2, 3) for n in (folds[fold], fold)]
    parts = tracks["fault_filtered_split"].value_counts()
    assert numbers["clips per part of the fault-filtered split"] == [
        parts[part] for part in ("train", "valid", "test")
    ]
    files = tracks["md5_wav"].value_counts()
    assert numbers["different checksums"] == [len(files), (files == 2).sum()]
    assert files.max() == 2


def test_the_genres(tracks):
    genres = tracks.groupby("genre")["artist_id"]
    found = zip(genres.nunique().items(), genres.apply(lambda ids: ids.isna().sum()), strict=True)
    assert rows("genre") == [[genre, str(n), str(unknown)] for (genre, n), unknown in found]
    known = tracks.dropna(subset="artist_id").groupby("artist_id")
    assert (known[["genre", "artist_fold"]].nunique() == 1).all().all()


def test_the_known_doubts(tracks):
    row = tracks.set_index("track_id")
    assert list(row.loc[["reggae.00003", "reggae.00054"], "artist_id"]) == ["352", "374"]
    assert row.loc["metal.00058", "md5_wav"] == row.loc["rock.00016", "md5_wav"]
    parts = tracks.dropna(subset=["artist_id", "fault_filtered_split"])
    train_test = parts.groupby("artist_id")["fault_filtered_split"].nunique()
    assert list(train_test[train_test > 1].index) == ["138"]
    leaking = parts[parts["artist_id"] == "138"].set_index("track_id")["fault_filtered_split"]
    assert leaking.to_dict() == {
        "disco.00049": "train", "disco.00069": "test", "disco.00073": "train",
    }  # fmt: skip
    no_fold, no_part = tracks["artist_fold"].isna(), tracks["fault_filtered_split"].isna()
    assert ((no_fold & no_part).sum(), (no_fold & ~no_part).sum()) == (9, 43)


def test_the_checksums_can_be_verified_without_melgenre(tracks, tmp_path):
    command = re.search(r"```sh\n(.*?)cd genres", PAGE, re.S)[1].replace("src/melgenre/data/", "")
    (tmp_path / "gtzan_tracks.csv").write_bytes(CSV.read_bytes())
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    lines = (tmp_path / "gtzan.md5").read_text().splitlines()
    expected = [f"{t.md5_wav}  {t.genre}/{t.track_id}.wav" for t in tracks.itertuples()]
    assert lines == expected
