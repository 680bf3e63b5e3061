"""The commands `melgenre predict`, `extract`, `train` and `app`.

Exit codes: 0, all went well; 1, nothing could be done, and a sentence says why; 2, the command was
misspelt; 3, some of the recordings could not be used.
"""

import json
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .errors import MelgenreError
from .files import CONTROL, escape_control

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes the [app] of melgenre[app] for its own markup
)
SOME_FAILED = 3
MODEL_HELP = "A folder that was exported, or hf:owner/name[@revision] on the Hugging Face hub."
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def _print_version(wanted: bool):
    if wanted:
        print(f"melgenre {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
):
    """Music genres from pictures of music."""
    # Warnings to developers, which torch and fastai give from the moment they are imported.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", module=r"(torch|fastai)\.")
    # The sentence alone, without the line of the program that it comes from.
    warnings.formatwarning = lambda message, *_: f"{escape_control(str(message))}\n"


@app.command()
def predict(
    recordings: Annotated[list[Path], typer.Argument(help="Songs, or folders of songs.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "models/resnet34",
    csv: Annotated[
        Path | None,
        typer.Option(help="Write a CSV as well; a run that was broken off goes on with it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a song.")] = False,
    quiet: Quiet = False,
):
    """Name the genre of songs.

    Prints a line a song: genre, probability, file. A genre "unsure" means that the recording is
    unlike anything the model learned from. Ends with 3 if some recordings could not be used.
    """
    from .inference.batch import classify_folder, find_audio_files
    from .inference.classifier import UNSURE, GenreClassifier

    with _sentences():
        songs, failed = [], []
        for one in recordings:
            try:
                songs += find_audio_files(one) if one.is_dir() else [one]
            except FileNotFoundError as error:
                failed.append(str(error))
        classifier = GenreClassifier.load(model)
        table = classify_folder(classifier, songs, csv, progress=not quiet and sys.stderr.isatty())
    broken = table["error"] != ""
    for row in table[~broken].to_dict("records"):
        probabilities = {genre: row[f"p_{genre}"] for genre in classifier.genres}
        if as_json:
            line = {"song": row["song"], "genre": row["genre"], "probabilities": probabilities,
                    "caveats": classifier.caveats}  # fmt: skip
            text = json.dumps(line, ensure_ascii=False)
            print(CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        else:
            chance = "" if row["genre"] == UNSURE else f"{max(probabilities.values()):.0%}"
            print(escape_control(f"{row['genre']:12} {chance:>5}  {row['song']}"))
    failed += table.loc[broken, "error"].tolist()
    for sentence in [*failed, *classifier.caveats]:
        typer.echo(escape_control(sentence), err=True)
    if broken.all():  # of no song as well
        raise typer.Exit(1)
    if failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
def extract(
    folder: Annotated[Path, typer.Argument(help="Music in <genre>/<song>.mp3.")],
    images: Annotated[Path, typer.Argument(help="Where the mel-spectrograms go.")],
    quiet: Quiet = False,
):
    """Turn a folder of music into mel-spectrograms, one PNG a song.

    A PNG is kept if its song has not changed since.
    """
    from .data.collection import find_tracks
    from .features.images import extract_melspectrograms

    with _sentences():
        tracks = find_tracks(folder)
        made = extract_melspectrograms(tracks.assign(image=None), images, progress=not quiet)
    print(f"{len(made)} of {len(tracks)} songs have an image in {images}.")
    if len(made) < len(tracks):
        raise typer.Exit(SOME_FAILED)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Music in <genre>/<song>.mp3, or GTZAN.")],
    out: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("models/mine"),
    architecture: Annotated[str, typer.Option(help="As torchvision names it.")] = "resnet34",
    recipe: Annotated[
        str, typer.Option(help="texture, frozen-head, fine-tune or smoke-test.")
    ] = "texture",
    seed: Annotated[int, typer.Option(help="Of the head and the split.")] = 0,
    quiet: Quiet = False,
):
    """Train a network on a folder of genres, test it honestly, and export it.

    Artists are kept apart where the folders are <genre>/<artist>/…, or where a tracks.csv in the
    folder names them.
    """
    from fastai.vision.all import noop, replacing_yield

    from .data.collection import load_collection
    from .data.splits import held_out, protocols_for
    from .evaluation.metrics import evaluate, format_score
    from .experiments import apply_protocol
    from .features.images import extract_melspectrograms
    from .files import project_folder
    from .inference.model_folder import check_replaceable
    from .training.export import export_learner
    from .training.learner import (
        RECIPES,
        describe_training,
        fit,
        genre_learner,
        image_dataloaders,
        predict_tracks,
    )

    with _sentences():
        if recipe not in RECIPES:
            raise MelgenreError(f"No recipe {recipe!r}. Choose one of {', '.join(RECIPES)}.")
        check_replaceable(out)  # before hours of training
        tracks = load_collection(folder, progress=not quiet)
        images = project_folder() / "data" / "images" / tracks["collection"].iloc[0]
        tracks = extract_melspectrograms(tracks, images, progress=not quiet)
        protocol = protocols_for(tracks)[-1]
        split = apply_protocol(tracks, protocol, seed)
        learn = genre_learner(image_dataloaders(split), architecture, recipe, seed=seed)
        # fastai's own bar would fill the file that the output may go to.
        logging = contextmanager(replacing_yield)
        with learn.no_bar(), logging(learn, "logger", noop if quiet else _print_epoch):
            fit(learn)
            predictions = predict_tracks(learn, held_out(split))
        result = evaluate(predictions, protocol, split=split)
        export_learner(learn, out, describe_training(learn, split), result, predictions)
    print(f"Genres:   {', '.join(learn.dls.vocab)}")
    print(f"Split:    {protocol}, {len(learn.dls.train_ds)} tracks to learn from")
    print(f"Accuracy: {format_score(result)}")
    print(_worth(result))
    print(f"Exported to {out}: melgenre predict --model {out} SONG")


def _print_epoch(log):
    """A line for an epoch of fastai's: its number, both losses, the accuracy and its time."""
    epoch, train, valid, accuracy, seconds = log
    print(
        f"epoch {epoch + 1:2}: loss {train:.3f}, of valid {valid:.3f}, "
        f"accuracy of valid {accuracy:.1%}, {seconds}",
        flush=True,
    )


def _worth(result):
    """What a figure is worth, in a sentence."""
    if result["protocol"] == "random":
        return (
            "The split is random: artists may be on both sides, and then the figure flatters. "
            "Put the songs into <genre>/<artist>/ to keep artists apart."
        )
    return "No artist is on both sides: so it does with artists that it has never heard."


@app.command("app")
def page(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "models/resnet34",
    host: Annotated[
        str, typer.Option(help="0.0.0.0 shows the page to the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the page.")] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name of this machine in the network. Can be repeated."),
    ] = None,
):
    """Show a web page that names genres (needs melgenre[app])."""
    from .app.page import serve

    with _sentences():
        serve(model, host=host, port=port, allow_hosts=allow_host or ())


@contextmanager
def _sentences():
    """Turns the errors that have a sentence into that sentence and exit code 1."""
    try:
        yield
    except (MelgenreError, OSError) as error:
        lines = str(error).splitlines()
        typer.echo("\n".join(map(escape_control, lines)), err=True)
        raise typer.Exit(1) from error
