"""The format of a model folder: its files, and the checks before a network is rebuilt.

`melgenre.training.export` writes such a folder and `classifier` reads it; this module is all that
they share.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from importlib.resources import files
from pathlib import Path

from ..data.mel_settings import checked_settings
from ..errors import MelgenreError, MelgenreWarning
from ..files import read_json, restore
from ..text import printable, short

FORMAT_VERSION, MULTI_LABEL_VERSION = 6, 7
"""Of a model of one genre per song, and of a model of several."""

LEARNER, WEIGHTS, ONNX = "learner.pkl", "model.safetensors", "model.onnx"
CONFIG, CARD = "config.json", "README.md"
SPLIT = "split.csv"
"""The part of each track: `train`, `valid` or `test`."""
CHECKED = (LEARNER, WEIGHTS, ONNX, SPLIT)
"""Files whose SHA-256 is in `config.json` and is checked when they are read."""
PRIVATE = (LEARNER, SPLIT)
"""Files that are never published: a pickle can run code, and a split names a user's tracks."""

MOST_GENRES = 10_000
RENAMED_RECIPES = {
    "first-project": "frozen-head",
    "quick": "smoke-test",
    "linear": "discriminant",
}
"""Names of recipes up to format 4, and their names today."""

UNKNOWN = {
    "calibration": {"temperature": 1.0, "ood_threshold": None},
    "training": {
        "collection": "unknown music",
        "train_tracks": "?",
        "weights": "unknown",
        "recipe": None,
        "seed": None,
        "versions": {},
    },
    "result": dict.fromkeys(("accuracy", "interval", "tracks", "protocol", "macro_f1")),
}
"""Values for what a config leaves out."""

LONGEST_NAME = 1020
"""Characters of a genre: the name of a folder has up to 255 bytes, each escaped as `\\x..`."""

FEWEST_CLIPS = 50
"""Validation clips that the out-of-distribution threshold, their 99th percentile, needs."""


def built_in_model() -> Path:
    """The folder of the model in this package: its `README.md` names what it was trained on."""
    return Path(str(files("melgenre") / "models" / "gtzan"))


class ModelError(MelgenreError, ValueError):
    """An exported model that is missing, damaged or too new; the message explains what to do."""


def default_model() -> Path:
    """The folder of the model in this package; a warning names it with its accuracy.

    Raises
    ------
    ModelError
        If one of its files is missing or damaged.
    """
    folder = built_in_model()
    try:
        config = read_config(folder)
        for name in (WEIGHTS, ONNX):
            read_checked(folder, config, name)
    except ModelError as error:
        raise ModelError(
            "The built-in model is damaged: install melgenre again "
            "(pip install --force-reinstall --no-deps melgenre)."
        ) from error
    sentence = f"The built-in model: {_description(config)}"
    warnings.warn(sentence, MelgenreWarning, stacklevel=3)
    return folder


def _description(config):
    """Which network a model is, what it was trained on, and its accuracy on what."""
    training, result = config["training"], config["result"]
    return (
        f"{config['architecture']}, trained on {training['train_tracks']} tracks of "
        f"{training['collection']}; accuracy {result['accuracy']:.1%} on {result['tracks']} others "
        f"({result['protocol']})."
    )


def read_config(folder: str | Path) -> dict:
    """Read and validate the `config.json` of a model folder.

    Returns
    -------
    `architecture`, `body`, `genres`, `multi_label`, `mel_settings`, `normalisation`, `calibration`,
    `training`, `result`, and `sha256` of the folder's files and of the config itself. A config of
    an earlier format is returned with the names of the current one.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or written by a newer melgenre.
    """
    folder = Path(folder)
    restore(folder)
    file = folder / CONFIG
    if not file.exists():
        found = "it has no config.json" if folder.is_dir() else "there is no such folder"
        raise ModelError(
            f"No exported model in {printable(folder)}: {found}. `make run` (notebook 04) and "
            "`melgenre train` export one; or name another folder (in the shell with --model). A "
            "model on the Hugging Face hub is named hf:owner/name."
        )
    try:
        config = read_json(file)
        version = _version(config)
        if version <= MULTI_LABEL_VERSION:
            _check_config(config)
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(
            f"{printable(folder.name)}/config.json is damaged ({short(error)}). Export the learner "
            "again."
        ) from error
    if version > MULTI_LABEL_VERSION:
        raise ModelError(
            f"{folder.name} is of format {version}, and this melgenre reads up to "
            f"{MULTI_LABEL_VERSION}. Update melgenre."
        )
    if version >= 4 and config.get("sha256", {}).get(CONFIG) != _digest(config):
        raise ModelError(
            f"{folder.name}/config.json is damaged: it was changed after the export. Copy the "
            "whole folder again, or export the learner again."
        )
    # Format 1 has no other body, formats 1 and 2 no calibration, 1 to 3 no checksums, 1 to 6 no
    # models of several genres per song.
    config = {"body": "whole", "multi_label": False, **config}
    config |= {name: values | config.get(name, {}) for name, values in UNKNOWN.items()}
    calibration, training = config["calibration"], config["training"]
    if "strangest" in calibration:  # the name of the threshold up to format 4
        calibration["ood_threshold"] = calibration.pop("strangest")
    training["recipe"] = RENAMED_RECIPES.get(training["recipe"], training["recipe"])
    return config


def _version(config):
    _check(isinstance(config, dict), "it", "an object")
    version = config.get("format_version")
    _check(type(version) is int and version >= 1, "format_version", "a whole number from 1 on")
    return version


def _check_config(config):
    """Raise `ValueError` unless every value is one that a network can be rebuilt with."""
    _check(_is_text(config.get("architecture")), "architecture", "a name")
    _check(_is_text(config.get("body", "whole")), "body", "a name")
    genres = config.get("genres")
    few = isinstance(genres, list) and 1 <= len(genres) <= MOST_GENRES
    _check(few, "genres", f"a list of 1 to {MOST_GENRES:,} names")
    expected = f"a name of at most {LONGEST_NAME} characters"
    _check(all(map(_is_text, genres)), "each of genres", expected)
    _check(len({*genres}) == len(genres), "genres", "distinct")
    settings = config.get("mel_settings")
    _check(isinstance(settings, dict), "mel_settings", "an object")
    checked_settings(settings)
    scale = config.get("normalisation")
    _check(isinstance(scale, dict) and {*scale} == {"mean", "std"}, "normalisation", "mean and std")
    for name, least in (("mean", -1e6), ("std", 1e-6)):
        numbers = scale[name]
        three = isinstance(numbers, list) and len(numbers) == 3
        _check(three and all(_is_number(x, least) for x in numbers), name, "three numbers")
    for name in ("calibration", "training", "result", "sha256"):
        _check(isinstance(config.get(name, {}), dict), name, "an object")
    calibration, training = config.get("calibration", {}), config.get("training", {})
    _check(_is_number(calibration.get("temperature", 1), 1e-6), "temperature", "a number above 0")
    for name in ("ood_threshold", "strangest"):  # the second is its name up to format 4
        threshold = calibration.get(name)
        _check(threshold is None or _is_number(threshold), name, "a number")
    _check(isinstance(config.get("multi_label", False), bool), "multi_label", "true or false")
    if config.get("multi_label"):
        thresholds = calibration.get("thresholds")
        whole = isinstance(thresholds, dict) and {*thresholds} == {*genres}
        _check(whole and all(map(_is_share, thresholds.values())), "thresholds", "one per genre")
    _check(isinstance(training.get("recipe"), (str, type(None))), "recipe", "a name")
    _check(isinstance(training.get("versions", {}), dict), "versions", "an object")


def _check(holds, name, expected):
    if not holds:
        raise ValueError(f"{name} must be {expected}")


def _is_number(value, least=-1e6):
    return type(value) in (int, float) and least <= value <= 1e6


def _is_share(value):
    return _is_number(value, 0) and value <= 1


def _is_text(value):
    """Whether a value is text that is neither empty nor too long, and can be written to a file."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def write_config(folder: str | Path, config: dict):
    """Write `config.json`, with the checksums of the other files in the folder and its own.

    Parameters
    ----------
    folder
        With the other files of the model.
    config
        As `read_config` returns it; `sha256` is computed here.
    """
    files = {name: Path(folder, name) for name in CHECKED}
    sums = {name: _sha256(file.read_bytes()) for name, file in files.items() if file.exists()}
    config = {**config, "sha256": sums}
    config["sha256"] |= {CONFIG: _digest(config)}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    Path(folder, CONFIG).write_text(text, encoding="utf-8")


def read_checked(folder: str | Path, config: dict, name: str) -> bytes:
    """Read a file of a model folder, and compare it with its checksum.

    Parameters
    ----------
    config
        Of `read_config`.
    name
        One of `CHECKED`.

    Raises
    ------
    ModelError
        If the file is missing, or does not have its checksum.
    """
    file = Path(folder, name)
    if not file.exists():
        raise ModelError(f"{file.parent.name} has no {name}. Export the learner again.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise damaged_model(file.parent, f"{name} cannot be read ({error.strerror})") from error
    # Models of formats 1 to 3 have no checksums.
    if "sha256" in config and config["sha256"].get(name) != _sha256(content):
        raise damaged_model(
            file.parent, f"{name} is not the file that was exported with this config.json"
        )
    return content


def fingerprint(folder: str | Path, config: dict) -> str:
    """Twelve characters that differ for any two models.

    Parameters
    ----------
    config
        Of `read_config`.
    """
    if "sha256" in config:
        return config["sha256"][CONFIG][:12]
    files = [Path(folder, name) for name in (CONFIG, WEIGHTS, ONNX)]
    return _sha256(b"".join(file.read_bytes() for file in files if file.exists()))[:12]


def check_replaceable(folder: str | Path):
    """Raise `ModelError` if a model must not be written to a folder, because it has other files."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and _is_model_or_empty(folder)):
        raise ModelError(
            f"{printable(folder)} exists and is not a model's folder. Name a new folder for the "
            "model."
        )


def _is_model_or_empty(folder):
    return (folder / CONFIG).exists() or not any(folder.iterdir())


def copy_others(folder: str | Path, target: str | Path):
    """Copy the files that a user added to a model folder into the folder that will replace it."""
    if Path(folder).exists():
        ours = shutil.ignore_patterns(*CHECKED, CONFIG, CARD)
        shutil.copytree(folder, target, ignore=ours, dirs_exist_ok=True)


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _digest(config):
    """Checksum of a config, in which that of the config itself is left out."""
    sums = {name: digest for name, digest in config.get("sha256", {}).items() if name != CONFIG}
    return _sha256(json.dumps({**config, "sha256": sums}, sort_keys=True).encode())


def damaged_model(folder: Path, error: Exception | str) -> ModelError:
    """The `ModelError` for a network that cannot be rebuilt from the files of its folder."""
    return ModelError(
        f"The model in {folder.name} is damaged: {str(error).splitlines()[0]}. Export the "
        "learner again, or copy the whole folder again."
    )
