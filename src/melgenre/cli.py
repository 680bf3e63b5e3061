"""The commands `melgenre predict`, `embed`, `merge`, `extract`, `train` and `app`.

Exit codes: 0, success; 1, nothing could be done, and a sentence names the reason; 2, wrong usage;
3, some of the recordings could not be used.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from os.path import isdir
from pathlib import Path, PurePath
from typing import Annotated

import typer

from . import __version__, parallel
from .data.audio import AUDIO_SUFFIXES
from .errors import MelgenreError, MelgenreWarning, extra_packages
from .paths import is_url
from .shard import Shard
from .text import CONTROL, escape_control, listed, path_text
from .training.recipes import RECIPES, get_recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes the [app] of melgenre[app] for its own markup
)
SOME_FAILED = 3
MODEL_HELP = (
    "An exported model folder, or hf:owner/name[@revision] on the Hugging Face hub. By default the "
    "model in this package."
)
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
SHARD_HELP = "Only a share of the songs, such as 2/8; `melgenre merge` joins the outputs of all."
ShardOption = Annotated[str | None, typer.Option("--shard", metavar="I/N", help=SHARD_HELP)]
Cluster = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler, such as tcp://10.0.0.5:8786, to work there."),
]
Mel = Annotated[
    list[str] | None,
    typer.Option("--mel", metavar="NAME=VALUE", help="Image setting: n_mels=96, hop_length=512, …"),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"melgenre {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Music genre classification from mel-spectrograms."""
    # Silence deprecation warnings of torch and fastai.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")
    warnings.simplefilter("always", MelgenreWarning)
    # The message alone, without the line of code.
    warnings.formatwarning = lambda message, *_: f"{escape_control(str(message))}\n"


@app.command()
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
    from .inference.batch import predict_songs
    from .inference.classifier import GenreClassifier

    failed, predicted = [], 0
    with _errors_as_messages(), parallel.cluster(cluster):
        part, out = _shard(shard, csv)
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


def _shard(shard, file):
    """The shard of a text such as 2/8, or None, and its output in place of `file`."""
    part = None if shard is None else Shard.parse(shard)
    return part, file if part is None or file is None else part.file(file)


def _songs_of(recordings, failed):
    """The songs of files and folders; what is wrong with a folder is added to `failed`."""
    from .inference.songs import list_songs

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
    from .data.table import SEPARATOR, probability_columns
    from .inference.prediction import UNSURE

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


@app.command()
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
    from .inference.classifier import GenreClassifier
    from .inference.embeddings import embed_folder

    with _errors_as_messages(), parallel.cluster(cluster):
        part, out = _shard(shard, out)
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


@app.command()
def merge(
    out: Annotated[str, typer.Argument(help="The file that --csv or --out named.")],
) -> None:
    """Join what `predict --shard` or `embed --shard` wrote: genres.1-of-8.csv, … to genres.csv."""
    with _errors_as_messages():
        if out.endswith(".npz"):
            from .inference.embeddings import merge_embeddings as merged
        else:
            from .inference.song_table import merge_tables as merged
        count = merged(out)
    print(f"{count} songs in {escape_control(out)}.")


@app.command()
def extract(
    folder: Annotated[
        str, typer.Argument(help="Music in <genre>/<song>.mp3; also a URL such as s3://….")
    ],
    images: Annotated[str, typer.Argument(help="Folder for the mel-spectrograms, or a URL.")],
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Files of a thousand images each, not one PNG each.")
    ] = False,
    mel: Mel = None,
    shard: ShardOption = None,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Make one mel-spectrogram image (PNG) per song of a folder.

    Existing images are kept if their songs have not changed. The images of all shards are in one
    folder, and need no merge.
    """
    with _errors_as_messages(), parallel.cluster(cluster):
        with extra_packages("train", "Making images"):
            from .data.collection import find_tracks
            from .features.images import extract_melspectrograms
            from .features.shards import extract_shards
        settings = _mel_settings(mel or ())
        tracks = find_tracks(folder).assign(image=None)
        part, _ = _shard(shard, None)
        extract_all = extract_shards if parquet else extract_melspectrograms
        made = extract_all(tracks, images, settings=settings, shard=part, progress=not quiet)
    skipped = len(made.attrs["skipped"])
    print(f"{len(made)} of {len(made) + skipped} songs have an image in {escape_control(images)}.")
    if skipped:
        raise typer.Exit(SOME_FAILED)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Music in <genre>/<song>.mp3, or GTZAN.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("models/mine"),
    architecture: Annotated[
        str, typer.Option(help="A network of torchvision or timm, by name.")
    ] = "resnet34",
    recipe: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(RECIPES)}; or such as fine-tune@100; "
            "balanced-discriminant, … where some genres have far fewer songs than others."
        ),
    ] = "discriminant",
    seed: Annotated[int, typer.Option(help="Of the initial weights and the split.")] = 0,
    mel: Mel = None,
    quiet: Quiet = False,
) -> None:
    """Train a network on a folder of genres, evaluate it, and export it.

    Artists are separated if the folders are <genre>/<artist>/…, or if a tracks.csv in the folder
    names them. Songs have several genres if the tracks.csv has a column genres, as in rock;punk.
    `accelerate launch -m melgenre train …` trains on several GPUs.
    """
    with _errors_as_messages(), _printed_once():
        with extra_packages("train", "Training"):
            from fastai.vision.all import noop

            from .data.collection import describe_collection, load_collection
            from .data.genres import is_multi_label
            from .data.protocols import strictest_protocol
            from .evaluation.metrics import format_score
            from .experiments import train_and_evaluate
            from .features.images import extract_melspectrograms, images_folder
            from .inference.model_folder import check_replaceable
            from .training.export import export_learner
        get_recipe(recipe)
        check_replaceable(out)  # before hours of training
        settings = _mel_settings(mel or ())
        tracks = load_collection(folder, progress=not quiet)
        print(describe_collection(tracks))
        images = images_folder(tracks, settings)
        tracks = extract_melspectrograms(tracks, images, settings=settings, progress=not quiet)
        protocol = strictest_protocol(tracks)
        # fastai's own bar would fill a file that the output goes to.
        several = is_multi_label(tracks)
        metric = "average precision" if several else "accuracy"
        # `noop` also hides the bar of the features.
        log = noop if quiet else partial(_print_epoch, metric)
        run = train_and_evaluate(tracks, protocol, architecture, recipe, seed, log=log)
        export_learner(run, out)
        print(f"Genres:   {listed(run.learner.dls.vocab)}")
        print(f"Split:    {protocol}, {run.train_tracks} training tracks")
        print(f"{'Result:  ' if several else 'Accuracy:'} {format_score(run.result)}")
        print(_interpretation(protocol, "mean average precision" if several else "accuracy"))
        print(f"Exported to {out}: melgenre predict --model {out} SONG")


@contextmanager
def _printed_once() -> Iterator[None]:
    """Print from the first of several processes alone; errors are printed by all of them."""
    if os.environ.get("RANK", "0") == "0":  # set by `accelerate launch` and `torchrun`
        yield
        return
    warnings.simplefilter("ignore", MelgenreWarning)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _mel_settings(pairs):
    """The settings of texts such as `n_mels=96`."""
    from .data.mel_settings import BOUNDS, checked_settings

    values = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            values[name] = BOUNDS[name][0](value)
        except (KeyError, ValueError):
            raise MelgenreError(
                f"--mel {pair} is not an image setting. Use NAME=VALUE with one of the names "
                f"{', '.join(BOUNDS)}, such as --mel n_mels=96."
            ) from None
    return checked_settings(values)


def _print_epoch(name, record):
    """One line per epoch: its number, both losses, the metric and its time."""
    epoch, train, valid, metric, seconds = record
    print(
        f"epoch {epoch + 1:2}: training loss {train:.3f}, validation loss {valid:.3f}, "
        f"{name} {metric:.1%}, {seconds}",
        flush=True,
    )


def _interpretation(protocol, metric):
    """What a result under a protocol means, in a sentence."""
    if protocol == "random":
        return (
            f"The split is random: artists may be in both parts, and then the {metric} is "
            "optimistically biased. Put the songs into <genre>/<artist>/ to separate artists."
        )
    return f"No artist is in both parts: this is the {metric} on artists that are new to the model."


@app.command("app")
def page(
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind; 0.0.0.0 is the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name of this machine in the network. Can be repeated."),
    ] = None,
) -> None:
    """Serve a web page that predicts genres (needs melgenre[app])."""
    from .inference.model_folder import default_model

    with _errors_as_messages():
        with extra_packages("app", "The page"):
            from .app.page import serve
        named = default_model() if model is None else model
        serve(named, host=host, port=port, allow_hosts=allow_host or ())


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """Report the package's errors and those of files without a traceback, with exit code 1."""
    try:
        yield
    except (MelgenreError, OSError) as error:
        lines = str(error).splitlines()
        typer.echo("\n".join(map(escape_control, lines)), err=True)
        raise typer.Exit(1) from error
