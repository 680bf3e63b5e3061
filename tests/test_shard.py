"""Shares of the files for batch queues: each has its output, and all are merged."""

import pytest

from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import GenreClassifier
from melgenre.inference.embeddings import embed_folder, merge_embeddings
from melgenre.inference.song_table import merge_tables
from melgenre.shard import Shard, ShardError, shard_files


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b"])
def test_what_is_no_shard_is_a_sentence(text):
    with pytest.raises(ShardError, match="is no shard. The second of eight is --shard 2/8"):
        Shard.parse(text)


def test_a_missing_shard_and_two_partitions_are_sentences(tmp_path):
    whole = tmp_path / "genres.csv"
    with pytest.raises(ShardError, match="has no shard of genres.csv"):
        shard_files(whole)
    Shard(1, 2).file(whole).touch()
    with pytest.raises(ShardError, match="1 of 2 shards are missing: genres.2-of-2.csv"):
        shard_files(whole)
    Shard(1, 3).file(whole).touch()
    with pytest.raises(ShardError, match="has shards of 2 and of 3"):
        shard_files(whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_merged_shards_are_the_file_of_a_single_run(tmp_path, write_song):
    for name in ("b.wav", "x/a.wav", "x/c.wav", "x/y/d.wav", "z/e.wav"):
        write_song(tmp_path / "songs" / name)
    (tmp_path / "songs" / "x" / "broken.mp3").write_text("no song" * 99)
    classifier, songs = GenreClassifier.load(), tmp_path / "songs"
    genres, vectors = tmp_path / "genres.csv", tmp_path / "embeddings.npz"
    for number in (1, 2, 3):
        shard = Shard(number, 3)
        classify_folder(classifier, songs, shard.file(genres), shard=shard, progress=False)
        embed_folder(classifier, songs, shard.file(vectors), shard=shard, progress=False)
    assert (merge_tables(genres), merge_embeddings(vectors)) == (6, 5)
    merged = genres.read_bytes(), vectors.read_bytes()
    genres.unlink(), vectors.unlink()
    classify_folder(classifier, songs, genres, progress=False)
    embed_folder(classifier, songs, vectors, progress=False)
    assert (genres.read_bytes(), vectors.read_bytes()) == merged
