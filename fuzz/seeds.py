"""The seed corpus: small valid files of every kind that a fuzz target reads, made by code."""

import io
import json
import struct
import tarfile
import zipfile
from functools import cache

import numpy as np
import soundfile

GENRES = ["jazz", "rock"]
MEL_SETTINGS = {"sample_rate": 8000, "n_fft": 256, "hop_length": 200, "n_mels": 8, "top_db": 80.0,
                "duration": 0.5}  # fmt: skip


@cache
def recordings():
    rng, found = np.random.default_rng(0), []
    rate = 16000
    y = np.sin(np.arange(int(2.2 * rate)) / 9) * 0.4 + rng.uniform(-0.05, 0.05, int(2.2 * rate))
    for format, subtype, channels in (
        ("WAV", "PCM_16", 1), ("WAV", "FLOAT", 2), ("WAV", "IMA_ADPCM", 1), ("FLAC", None, 2),
        ("OGG", "VORBIS", 1), ("OGG", "OPUS", 1), ("MP3", None, 1), ("AIFF", "PCM_16", 1),
        ("AU", "ULAW", 1), ("W64", "PCM_16", 1), ("RF64", "PCM_16", 1), ("CAF", "ALAC_16", 1),
    ):  # fmt: skip
        file = io.BytesIO()
        soundfile.write(file, np.tile(y, (channels, 1)).T, rate, format=format, subtype=subtype)
        found.append(file.getvalue())
    mp3 = found[6]
    found.append(mp3[mp3.index(mp3[:2], 4) :])  # without the frame that states its length
    flac = bytearray(found[3])
    flac[21] &= 0xF0
    flac[22:42] = bytes(20)  # a stream of unknown length
    found.append(bytes(flac))
    found.append(b"ID3\x03\0\0\0\0\0\x10" + bytes(16) + mp3)
    return found + [_by_pyav(y, rate, *kind) for kind in (
        ("mp4", "aac"), ("mp4", "alac"), ("adts", "aac"), ("asf", "wmav2"), ("matroska", "aac"),
        ("webm", "libopus"), ("avi", "mp2"), ("mpegts", "aac"),
    )]  # fmt: skip


def _by_pyav(y, rate, format, codec):
    import av

    file, rate = io.BytesIO(), 48000 if codec == "libopus" else rate
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 48_000
        frame = av.AudioFrame.from_ndarray(
            (y * 32767).astype(np.int16).reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


@cache
def archives():
    members = {"music/jazz/a.wav": b"la" * 400, "music/rock/b.mp3": bytes(500), "music/x.txt": b"x",
               "music/tracks.csv": b"track_id,artist_id\njazz/a,Miles\n",
               "music/rock/" + "n" * 120 + ".wav": b"li"}  # fmt: skip
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        found.append(file.getvalue())
    for mode, format in (
        ("w", tarfile.PAX_FORMAT), ("w", tarfile.GNU_FORMAT), ("w:gz", tarfile.PAX_FORMAT),
        ("w:bz2", tarfile.GNU_FORMAT), ("w:xz", tarfile.PAX_FORMAT),
    ):  # fmt: skip
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode, format=format) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(content), 1e9 + 0.5
                archive.addfile(member, io.BytesIO(content))
        found.append(file.getvalue())
    return found


@cache
def images():
    from PIL import Image, PngImagePlugin

    noise = np.random.default_rng(0).integers(0, 256, (128, 387), np.uint8)
    text = PngImagePlugin.PngInfo()
    text.add_text("key", "value" * 99, zip=True)
    text.add_itxt("key", "value", zip=True)
    found = []
    for mode, options in (("L", {}), ("L", {"pnginfo": text, "icc_profile": b"x" * 200}),
                          ("RGB", {"exif": b"Exif\0\0MM\0*"}), ("P", {}), ("1", {}), ("I;16", {}),
                          ("L", {"format": "JPEG"}), ("L", {"format": "TIFF"})):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, **{"format": "PNG"} | options)
        found.append(file.getvalue())
    return found


def _lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


@cache
def settings():
    return [json.dumps(MEL_SETTINGS, indent=2).encode(), b'{\n"n_mels": 64\n}']


@cache
def tiny_config():
    whole = {
        "format_version": 3, "architecture": "resnet18", "body": "whole", "genres": GENRES,
        "mel_settings": MEL_SETTINGS,
        "normalisation": {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]},
        "calibration": {"temperature": 1.2, "ood_threshold": 3.5, "tracks": 70},
        "training": {"recipe": "smoke-test", "collection": "gtzan", "weights": "ImageNet",
                     "seed": 0, "train_tracks": 700, "versions": {"torch": "2"}},
        "result": {"protocol": "artist-split", "accuracy": 0.8, "interval": [0.7, 0.9],
                   "tracks": 300},
    }  # fmt: skip
    return [json.dumps(whole, indent=2).encode()]


@cache
def configs():
    whole = json.loads(tiny_config()[0])
    first = ("architecture", "genres", "mel_settings", "normalisation")
    oldest = {"format_version": 1} | {name: whole[name] for name in first}
    newest = whole | {"format_version": 6, "sha256": {"config.json": "0" * 64}}
    return [json.dumps(one, indent=2).encode() for one in (whole, oldest, newest)]


@cache
def onnx():
    """A network of one matrix product, with the inputs and outputs of a real one."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(8 * 21, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["flat"], ["ood_score"], axes=[1], keepdims=0),
    ]
    ports = {"images": ["n", 8, 21], "probabilities": ["n", 2], "ood_score": ["n"]}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
             for name, shape in ports.items()}  # fmt: skip
    graph = helper.make_graph(
        nodes, "tiny", [infos.pop("images")], list(infos.values()),
        [numpy_helper.from_array(weights, "weights")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return [helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()]


def tiny_network(n_genres):
    """A body and a head of some hundred weights."""
    from torch import nn

    body = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(body, nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, n_genres)))


@cache
def safetensors():
    """The weights of `tiny_network`, without torch."""
    shapes = {"0.0.weight": (2, 3, 3, 3), "0.0.bias": (2,), "1.0.weight": (2,), "1.0.bias": (2,),
              "1.0.running_mean": (2,), "1.0.running_var": (2,), "1.1.weight": (2, 2),
              "1.1.bias": (2,)}  # fmt: skip
    header, content = {}, b""
    for name, shape in shapes.items():
        values = np.full(shape, 0.5, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(content), len(content) + len(values)]}  # fmt: skip
        content += values
    header["1.0.num_batches_tracked"] = {
        "dtype": "I64", "shape": [], "data_offsets": [len(content), len(content) + 8],
    }  # fmt: skip
    text = json.dumps(header).encode()
    return [struct.pack("<Q", len(text)) + text + content + bytes(8)]


@cache
def result_lines():
    run = {"date": "2026-01-01T00:00:00+00:00", "collection": "mine", "model": "resnet18",
           "seed": 0, "recipe": "smoke-test", "weights": "ImageNet", "protocol": "artist-split",
           "tracks": 3, "accuracy": 2 / 3, "macro_f1": 0.6, "interval": [0.1, 0.9], "commit": "abc",
           "predictions": "a.csv"}  # fmt: skip
    return [_lines(run, run | {"seed": 1, "predictions": "b.csv"})]


@cache
def predictions():
    return [b"track_id,genre,predicted,p_jazz,p_rock\njazz/a,jazz,jazz,0.9,0.1\n"
            b"jazz/b,jazz,rock,0.4,0.6\nrock/c,rock,rock,0.2,0.8\n"]  # fmt: skip


@cache
def annotations():
    return [b"track_id,genre,label,correct_genre,comment\nrock/a,rock,mislabelled,jazz,heard\n"
            b'jazz/b,jazz,fine,,"a, b"\n']  # fmt: skip


@cache
def songs():
    header = b"song,genre,p_jazz,p_rock,ood_score,error,modified,model\n"
    return [header + b"a.wav,,,,,a.wav: empty,1-0,0123456789ab\n"
            b"b.wav,jazz,0.9,0.1,1.2,,1-5,0123456789ab\n"]  # fmt: skip


@cache
def tracks():
    return [b"track_id,artist_id,year\nrock/a,Bj\xc3\xb6rk,1999\njazz/b,12,\n",
            b"track_id;artist_id\r\nrock/a;1\r\n"]  # fmt: skip
