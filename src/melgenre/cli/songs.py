"""The commands for songs: `predict`, `embed` and `merge`."""

import json
import os
import sys
from os.path import isdir
from pathlib import PurePath
from typing import Annotated

import typer

from .. import parallel
from ..data.audio import AUDIO_SUFFIXES
from ..paths import is_url
from ..text import CONTROL, escape_control, path_text
from .options import (
    MODEL_HELP,
    SOME_FAILED,
    Cluster,
    Quiet,
    ShardOption,
    errors_as_messages,
    shard_and_output,
)


def predict(
    recordings: Annotated[
        list[str], typer.Argument(help="Songs, or folders of songs; also URLs such as s3://….")
    ],
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    csv: Annotated[
        str | None, typer.Option(help="Also write a CSV; an interrupted run resumes from it.")
    ] = None,
    shard: ShardOption = None,
    cluster: Cluster = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per song.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Predict the genre of songs, or their genres.

    Prints one line per song: genre, probability, file. A multi-label model predicts several genres,
    and the probability is that of the first. The genre "unsure" means that the recording
    is out of distribution: unlike the training data. Exits with 3 if some recordings could not be
    used.
    """
    from ..inference.batch import predict_songs
    from ..inference.classifier import GenreClassifier

    failed, predicted = [], 0
    with errors_as_messages(), parallel.cluster(cluster):
        part, out = shard_and_output(shard, csv)
        classifier = GenreClassifier.load(model)
        songs = _songs_of(recordings, failed)
        songs = songs if part is None else part.of(songs)
        progress = not quiet and sys.stderr.isatty()
        for row in predict_songs(classifier, songs, out, progress=progress):
            if row["error"]:
                failed.append(row["error"])
            else:
                predicted += 1
                print(_line_of(row, classifier, as_json))
    for sentence in [*failed, *classifier.caveats]:
        typer.echo(escape_control(sentence), err=True)
    if not predicted:
        raise typer.Exit(1)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _songs_of(recordings, failed):
    """The songs of files and folders; what is wrong with a folder is added to `failed`."""
    from ..inference.songs import list_songs

    for one in recordings:
        folder = PurePath(one).suffix.lower() not in AUDIO_SUFFIXES if is_url(one) else isdir(one)
        try:
            for song in list_songs(one if folder else [one]):
                name = os.path.join(path_text(one), song.name) if folder else song.name
                yield song._replace(name=name)
        except FileNotFoundError as error:
            failed.append(str(error))


def _line_of(row, classifier, as_json):
    """What is printed of one song."""
    from ..data.table import SEPARATOR, probability_columns
    from ..inference.prediction import UNSURE

    columns = probability_columns(classifier.genres)
    probabilities = {
        genre: row[column] for genre, column in zip(classifier.genres, columns, strict=True)
    }
    several = classifier.thresholds is not None
    genres = row["genre"].split(SEPARATOR) if several else [row["genre"]]
    if as_json:
        named = {"genre": genres[0]}
        if several:
            named["genres"] = [] if genres == [UNSURE] else genres
        return _json_line(row["song"], named, probabilities, classifier.caveats)
    highest = "" if genres == [UNSURE] else f"{probabilities[genres[0]]:.0%}"
    return escape_control(f"{', '.join(genres):12} {highest:>5}  {row['song']}")


def _json_line(song, genres, probabilities, caveats):
    """One song as JSON, with control characters escaped."""
    line = {"song": song, **genres, "probabilities": probabilities, "caveats": caveats}
    text = json.dumps(line, ensure_ascii=False)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def embed(
    folder: Annotated[str, typer.Argument(help="A folder of songs; also a URL such as s3://….")],
    out: Annotated[
        str, typer.Option(help="The file; an interrupted run resumes from it.")
    ] = "embeddings.npz",
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    shard: ShardOption = None,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Compute an embedding of each song: similar songs have embeddings of a similar direction.

    Writes an archive of NumPy with songs, vectors, modified and model. Exits with 3 if some songs
    could not be used.
    """
    from ..inference.classifier import GenreClassifier
    from ..inference.embeddings import embed_folder

    with errors_as_messages(), parallel.cluster(cluster):
        part, out = shard_and_output(shard, out)
        classifier = GenreClassifier.load(model)
        progress = not quiet and sys.stderr.isatty()
        embeddings = embed_folder(classifier, folder, out, shard=part, progress=progress)
    count, errors = len(embeddings.songs), embeddings.errors.values()
    if count:
        songs = f"{count} of {count + len(errors)} songs"
        print(f"{songs} have an embedding in {escape_control(str(out))}.")
    for sentence in [*errors, *classifier.caveats]:
        typer.echo(escape_control(sentence), err=True)
    if errors:
        raise typer.Exit(SOME_FAILED if count else 1)


def merge(
    out: Annotated[str, typer.Argument(help="The file that --csv or --out named.")],
) -> None:
    """Join what `predict --shard` or `embed --shard` wrote: genres.1-of-8.csv, … to genres.csv."""
    with errors_as_messages():
        if out.endswith(".npz"):
            from ..inference.embeddings import merge_embeddings as merged
        else:
            from ..inference.song_table import merge_tables as merged
        count = merged(out)
    print(f"{count} songs in {escape_control(out)}.")
