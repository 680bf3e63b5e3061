"""Recordings per second, compared with a loop of fastai and with the network alone.

python benchmarks/classifying.py MODEL    (an exported folder, such as models/resnet34)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import torch
from bench import clips, keep, librosa_and_pillow, median, plot_bars, take_turns
from onnxruntime.quantization import QuantType, quantize_dynamic

from melgenre.data.audio import SAMPLE_RATE, iter_windows, load_audio
from melgenre.features.images import load_center
from melgenre.features.melspectrogram import melspectrogram_image
from melgenre.inference.batch import classify_folder
from melgenre.inference.classifier import CPU_BATCH, GenreClassifier
from melgenre.training.exported import load_exported
from melgenre.training.precision import cpu_has_bf16

CLIPS = 24


def main():
    model = Path(sys.argv[1])
    paths, collection = clips(CLIPS)
    by_onnx, by_torch = (GenreClassifier.load(model, backend=b) for b in ("onnx", "torch"))
    learn, _ = load_exported(model)
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])

    def loop_of_learn_predict():
        with tempfile.TemporaryDirectory() as folder, learn.no_bar():
            for path in paths:
                librosa_and_pillow(path, Path(folder, "clip.png"))
                learn.predict(Path(folder, "clip.png"))

    def floor(images):
        images = list(images)
        for start in range(0, len(images), CPU_BATCH):
            batch = np.stack(images[start : start + CPU_BATCH]).astype(np.float32) / 255
            session.run(None, {"images": batch})

    with tempfile.TemporaryDirectory() as folder:
        hour = Path(folder, "hour.wav")
        with soundfile.SoundFile(hour, "w", SAMPLE_RATE, 1) as file:
            for path in clips(120)[0]:
                file.write(load_audio(path, duration=30))

        folder_ways = {
            "a loop of learn.predict": loop_of_learn_predict,
            "classify_folder, torch": lambda: classify_folder(by_torch, paths, progress=False),
            "classify_folder, ONNX Runtime": lambda: classify_folder(
                by_onnx, paths, progress=False
            ),
            "floor": lambda: floor(melspectrogram_image(load_center(path)) for path in paths),
        }
        hour_ways = {
            "an hour, torch": lambda: by_torch.predict(hour),
            "an hour, ONNX Runtime": lambda: by_onnx.predict(hour),
            "an hour, floor": lambda: floor(
                melspectrogram_image(y) for _, _, y in iter_windows(hour, 30)
            ),
        }
        seconds = take_turns(folder_ways, rounds=3) | take_turns(hour_ways, rounds=1)
    loop = median(seconds["a loop of learn.predict"]) / CLIPS
    rows = []
    for name, turns in seconds.items():
        an_hour = "hour" in name
        one = median(turns) / (120 if an_hour else CLIPS)
        floor_time = median(seconds["an hour, floor" if an_hour else "floor"])
        floor_time /= 120 if an_hour else CLIPS
        rows.append({"way": name, "clips of 30 s per second": round(1 / one, 2),
                     "times the loop": round(loop / one, 2),
                     "share of the floor": round(floor_time / one, 2)})  # fmt: skip
    keep("classifying", rows, collection=collection, precision=reduced_precision(model, by_torch))
    plot_bars(
        "classifying", rows, "clips of 30 s per second", "clips of 30 s per second, with decoding"
    )


def reduced_precision(model, by_torch):
    """Agreement and speed of 8-bit weights and bf16, compared with float32."""
    paths = dict.fromkeys(clips(40)[0])
    images = [melspectrogram_image(load_center(path)) for path in paths]
    found = {}

    def predict(name, classifier, bf16=False):
        def run():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                single = (classifier.predict_images([image])[0] for image in images)
                found[name] = np.concatenate(list(single))

        return run

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small")
        by_torch.save(small)
        quantize_dynamic(model / "model.onnx", small / "model.onnx", weight_type=QuantType.QUInt8)
        ways = {
            "torch, fp32": predict("torch, fp32", by_torch),
            "ONNX Runtime, fp32": predict(
                "ONNX Runtime, fp32", GenreClassifier.load(model, backend="onnx")
            ),
            "ONNX Runtime, int8 weights": predict(
                "ONNX Runtime, int8 weights", GenreClassifier.load(small, backend="onnx")
            ),
        }
        if cpu_has_bf16():  # other CPUs emulate it, which takes minutes
            ways["torch, bf16"] = predict("torch, bf16", by_torch, bf16=True)
        seconds = take_turns(ways, rounds=1)
    reference = found["torch, fp32"]
    made = [
        {
            "precision": name,
            "clips per second": round(len(images) / median(seconds[name]), 1),
            "same genre": round(float((p.argmax(1) == reference.argmax(1)).mean()), 3),
            "largest difference": float(np.abs(p - reference).max().round(6)),
        }
        for name, p in found.items()
    ]
    print(*made, sep="\n")
    return made


if __name__ == "__main__":
    main()
