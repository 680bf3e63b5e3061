"""The config of a model folder: every value is checked before a network is rebuilt."""

import json

import pytest

from melgenre.data.mel_settings import MelSettings
from melgenre.inference.model_folder import ModelError, read_config

WHOLE = {
    "format_version": 3, "architecture": "resnet18", "body": "whole", "genres": ["jazz", "רוק"],
    "mel_settings": {"n_mels": 64}, "normalisation": {"mean": [0.4, 0.4, 0.4], "std": [1, 1, 1]},
    "calibration": {"temperature": 1.2, "strangest": 3.5, "tracks": 70},
    "training": {"recipe": "quick", "collection": "gtzan"}, "result": {"accuracy": 0.8},
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    def write(config):
        text = config if isinstance(config, (str, bytes)) else json.dumps(config)
        (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def test_missing_values_are_filled_in(model):
    config = read_config(model(WHOLE))
    assert config["training"]["collection"] == "gtzan"
    assert (config["training"]["weights"], config["result"]["protocol"]) == ("unknown", None)
    first = {name: WHOLE[name] for name in
             ("architecture", "genres", "mel_settings", "normalisation")}  # fmt: skip
    config = read_config(model({"format_version": 1, **first}))
    assert (config["body"], config["calibration"]["ood_threshold"]) == ("whole", None)
    assert config["training"]["train_tracks"] == "?"
    assert config["result"]["accuracy"] is None
    assert MelSettings(**config["mel_settings"]).n_mels == 64


@pytest.mark.parametrize("old, new", [("first-project", "frozen-head"), ("quick", "smoke-test"),
                                      ("texture", "texture"), (None, None)])  # fmt: skip
def test_names_of_earlier_formats_are_replaced(model, old, new):
    changes = {"calibration": {"strangest": 3.5}, "training": {"recipe": old}}
    config = read_config(model(WHOLE | changes))
    assert config["calibration"] == {"temperature": 1.0, "ood_threshold": 3.5}
    assert config["training"]["recipe"] == new


CHANGES = [
    ("format_version", ["1", 0, -1, True, None, 1.0, [], 10**400 * -1]),
    ("architecture", ["", None, 3, "x" * 1021, "\ud800", ["resnet18"]]),
    ("body", ["", None, 3, {}]),
    ("genres", [[], "jazz", None, {}, ["jazz", "jazz"], ["jazz", ""], ["jazz", 1], ["x" * 1021],
                ["\udfff"], [["jazz"]], [str(n) for n in range(10_001)]]),
    ("mel_settings", [None, [], "text", {"n_mels": 0}, {"n_fft": 1e300}, {"odd": 1},
                      {"\ud800": 1}]),
    ("normalisation", [None, [], {}, {"mean": [0] * 3}, {"mean": [0] * 3, "std": [1, 1, 0]},
                       {"mean": [0] * 3, "std": [1, 1, -1]}, {"mean": [0] * 2, "std": [1] * 3},
                       {"mean": [float("nan")] * 3, "std": [1] * 3},
                       {"mean": "abc", "std": [1] * 3},
                       {"mean": [10**400] * 3, "std": [1] * 3}, {"mean": 1, "std": 1},
                       {"mean": [0] * 3, "std": [float("inf")] * 3}]),
    ("calibration", [None, 1, [], {"temperature": 0}, {"temperature": "1"}, {"ood_threshold": "3"},
                     {"temperature": float("nan")}, {"ood_threshold": float("-inf")},
                     {"strangest": "3"}, {"temperature": None}]),
    ("training", [None, [], "text", {"recipe": ["smoke-test"]}, {"versions": 1},
                  {"versions": None}]),
    ("result", [None, [], "text"]),
    ("sha256", [None, [], "text"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, value",
    [(name, value) for name, values in CHANGES for value in values],
    ids=lambda value: ascii(value)[:40],
)
def test_an_impossible_value_raises_a_model_error(model, name, value):
    with pytest.raises(ModelError, match="config.json is damaged") as raised:
        read_config(model(WHOLE | {name: value}))
    assert str(raised.value).encode("utf-8")
    assert len(str(raised.value)) < 500


def test_a_missing_value_without_a_default_raises_a_model_error(model):
    for name in ("format_version", "architecture", "genres", "mel_settings", "normalisation"):
        with pytest.raises(ModelError, match=name):
            read_config(model({key: value for key, value in WHOLE.items() if key != name}))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[1]", b'"text"', b"1", b"\xff\xfe{}", "[" * 100_000, '{"a":' * 100_000,
     b'{"format_version": ' + b"9" * 5000 + b"}", b" " * 10_000_001],
    ids=lambda content: str(content[:12]),
)  # fmt: skip
def test_a_file_that_is_no_config_raises_a_model_error(model, content):
    with pytest.raises(ModelError, match="config.json is damaged"):
        read_config(model(content))


def test_a_config_that_is_a_folder_raises_a_model_error(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match="config.json is damaged"):
        read_config(tmp_path)


def test_a_newer_model_is_not_reported_as_damaged(model):
    with pytest.raises(ModelError, match="is of format 99.*Update melgenre"):
        read_config(model({"format_version": 99, "new": "everything is different"}))
