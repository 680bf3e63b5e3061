"""Fuzz everything that reads files: thousands of damaged files of each kind per minute.

    python fuzz/fuzz.py --seconds 60 --seed 0

Each input must be accepted or raise one of the package's named errors. Any other outcome is a
finding: another exception, a crash, more than 10 s of CPU, 2 GB more memory than at the start, or a
file written outside the scratch folder. The input of a finding is kept in `runs/fuzz`. A table
counts the outcomes of each target. The same seed gives the same inputs.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from targets import TARGETS, WITH_TORCH, run_target

ROOT = Path(__file__).resolve().parent.parent
MORE_MEMORY = 2 * 2**30
CPU_SECONDS, WALL_SECONDS = 10, 300  # per input; the second ends what hangs without computing
RECYCLED_AFTER = 5000
PACKAGES = ("av", "numpy", "onnxruntime", "pandas", "pillow", "soundfile", "torch")


def work(pipe, folder, examples):
    """Run the inputs that are received from a pipe, in the process of a worker.

    Parameters
    ----------
    pipe : multiprocessing.Connection
        Receives target, content and choice; sends the outcome.
    folder : Path
        The scratch folder.
    examples : list of (target, content)
        Valid files. The memory that reading them takes counts as the start.
    """
    with open(os.devnull, "w") as nowhere:  # for progress bars and messages of decoders
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    beside = folder.parent / "beside"
    for target, content in examples:
        run_target(target, folder, content, 1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for target, content, choice in iter(pipe.recv, None):
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process
        try:
            outcome = run_target(target, folder, content, choice)
        except BaseException:  # it is the finding
            outcome = f"another error: {traceback.format_exc()}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if sorted(os.listdir(folder.parent)) != ["beside", "scratch"] or _read(beside) != ["kept"]:
            outcome = "written outside the scratch folder"
        pipe.send(outcome)


def _read(beside):
    return [(beside / name).read_text() for name in sorted(os.listdir(beside))]


class Worker:
    """A process that runs one input after another. It is replaced when it dies."""

    def __init__(self, folder, examples):
        self.folder, self.examples, self.process, self.inputs = folder, examples, None, 0

    def run(self, target, content, choice):
        """The outcome of an input: "accepted", the name of an error, or a text about a finding."""
        if self.process is None or self.inputs >= RECYCLED_AFTER:
            self.stop()
            self._start()
        self.inputs += 1
        self.pipe.send((target, content, choice))
        try:
            if self.pipe.poll(WALL_SECONDS):
                return self.pipe.recv()
            outcome = f"hangs: over {WALL_SECONDS} s"
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            outcome = f"the process died (exit code {code})"
            if code == -signal.SIGPROF:
                outcome = f"over {CPU_SECONDS} s of CPU"
        self.process.kill()
        self.stop()
        return outcome

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (other, self.folder, self.examples)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        other.close()
        self.inputs = 0

    def stop(self):
        if self.process is not None:
            with suppress(OSError):  # it may be dead
                self.pipe.send(None)
            self.process.join()
            self.pipe.close()
            self.process = None


def inputs(seed):
    """Round, target, content and choice of one input after another, without end.

    The first round has valid files, the others damaged ones.
    """
    number = 0
    while True:
        for name, (_, seeds, mutate) in TARGETS.items():
            rng = random.Random(f"{seed} {number} {name}")
            valid = rng.choice(seeds())
            content = mutate(rng, valid, seeds()) if number else valid
            yield number, name, content, rng.randrange(10**6)
        number += 1


def fuzz(seed, seconds, most, kept):
    """Run inputs for some seconds, or at most so many; returns the counts of each target."""
    counts = {name: {"inputs": 0, "accepted": 0, "errors": 0, "findings": 0} for name in TARGETS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "scratch")
        Path(place, "beside").mkdir()
        Path(place, "beside", "kept").write_text("kept")
        kinds = [[t for t in TARGETS if (t in WITH_TORCH) is torch] for torch in (False, True)]
        workers = {}
        for names in kinds:
            examples = [(TARGETS[name][0], valid) for name in names for valid in TARGETS[name][1]()]
            workers |= dict.fromkeys(names, Worker(folder, examples))
        end = time.monotonic() + seconds
        for done, (number, name, content, choice) in enumerate(inputs(seed)):
            if done >= most or time.monotonic() > end:
                break
            outcome = workers[name].run(TARGETS[name][0], content, choice)
            count = counts[name]
            count["inputs"] += 1
            if outcome == "accepted":
                count["accepted"] += 1
            elif outcome.endswith("Error"):
                count["errors"] += 1
            else:
                count["findings"] += 1
                _keep(kept / f"{name}-{zlib.crc32(content):08x}", content, choice, outcome)
                cause = outcome.strip().splitlines()[-1]
                print(f"FINDING of {name}, round {number}: {cause}", flush=True)
        for worker in workers.values():
            worker.stop()
    return counts


def _keep(file, content, choice, outcome):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.with_suffix(".txt").write_text(f"choice {choice}\n{outcome}\n")


def print_table(counts):
    columns = ("inputs", "accepted", "errors", "findings")
    total = {column: sum(count[column] for count in counts.values()) for column in columns}
    print(f"{'target':12}" + "".join(f"{column:>10}" for column in columns))
    for name, count in [*counts.items(), ("all", total)]:
        print(f"{name:12}" + "".join(f"{count[column]:>10,}" for column in columns))
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument(
        "--inputs", type=int, default=sys.maxsize, help="stop after this many inputs"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="a JSON file for the counts")
    chosen = parser.parse_args()
    start = time.monotonic()
    counts = fuzz(chosen.seed, chosen.seconds, chosen.inputs, ROOT / "runs" / "fuzz")
    total = print_table(counts)
    if chosen.record:
        git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit,
            "seed": chosen.seed, "seconds": round(time.monotonic() - start),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in PACKAGES},
            "all": total, "targets": counts,
        }  # fmt: skip
        chosen.record.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(total["findings"] > 0)


if __name__ == "__main__":
    main()
