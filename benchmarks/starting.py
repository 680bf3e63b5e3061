"""Start-up times: import, --help, the first prediction of a process.

python benchmarks/starting.py MODEL    (an exported folder, such as models/resnet34)
"""

import subprocess
import sys
from pathlib import Path

from bench import clips, in_a_process, keep, median, plot_bars, take_turns

COMMAND = Path(sys.executable).with_name("melgenre")
HEAVY = "import json, sys, melgenre; print(json.dumps([m for m in ('torch', 'fastai', 'matplotlib')"
HEAVY += " if m in sys.modules]))"
BY_TORCH = "import sys; from melgenre.inference.classifier import GenreClassifier as G\n"
BY_TORCH += "G.load(sys.argv[1], backend='torch').predict(sys.argv[2])"


def main():
    model, (song,) = sys.argv[1], clips(1)[0]

    def run(*command):
        return lambda: subprocess.run(command, check=True, capture_output=True)

    python = (sys.executable, "-W", "ignore", "-c")
    ways = {
        "python alone": run(*python, "pass"),
        "import melgenre": run(*python, "import melgenre"),
        "melgenre --help": run(COMMAND, "--help"),
        "melgenre predict, ONNX Runtime": run(COMMAND, "predict", "--model", model, song),
        "the same prediction by torch": run(*python, BY_TORCH, model, song),
    }
    seconds = take_turns(ways, rounds=5)
    rows = [{"way": name, "seconds": round(median(turns), 3)} for name, turns in seconds.items()]
    keep("starting", rows, imported_with_melgenre=in_a_process(HEAVY))
    plot_bars("starting", rows, "seconds", "seconds", log=True)


if __name__ == "__main__":
    main()
