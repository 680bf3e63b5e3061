"""Damaged files of every kind, thousands a minute, for all that reads files from elsewhere.

    python fuzz/fuzz.py --seconds 60 --seed 0

Every input must end in an answer or in one of the package's named errors. Anything else is a
finding: another exception, a crash, over 10 s of CPU, over 2 GB more memory than at the start, or
something written outside the scratch folder. The input of a finding is kept in `runs/fuzz`, and a
table counts all by door. The same seed gives the same inputs.
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

from doors import DOORS, WITH_TORCH, enter

ROOT = Path(__file__).resolve().parent.parent
MORE_MEMORY = 2 * 2**30
CPU_SECONDS, WALL_SECONDS = 10, 300  # of one input; the second for what hangs without computing
RECYCLED_AFTER = 5000
PACKAGES = ("av", "numpy", "onnxruntime", "pandas", "pillow", "soundfile", "torch")


def work(pipe, folder, doors):
    """Run the inputs that come through a pipe; the process of a worker."""
    with open(os.devnull, "w") as nowhere:  # progress bars, and what decoders write
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    beside = folder.parent / "beside"
    for door, whole in doors:  # what is loaded for a whole file counts as the start
        enter(door, folder, whole, 1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for door, content, choice in iter(pipe.recv, None):
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process
        try:
            end = enter(door, folder, content, choice)
        except BaseException:
            end = f"another error: {traceback.format_exc()}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if sorted(os.listdir(folder.parent)) != ["beside", "scratch"] or _read(beside) != ["kept"]:
            end = "written outside the scratch folder"
        pipe.send(end)


def _read(beside):
    return [(beside / name).read_text() for name in sorted(os.listdir(beside))]


class Worker:
    """A process that runs one input after another, and is replaced when it dies."""

    def __init__(self, folder, doors):
        self.folder, self.doors, self.process, self.inputs = folder, doors, None, 0

    def run(self, door, content, choice):
        """How an input ended: "answer", the name of an error, or a text on what went wrong."""
        if self.process is None or self.inputs >= RECYCLED_AFTER:
            self.stop()
            self._start()
        self.inputs += 1
        self.pipe.send((door, content, choice))
        try:
            if self.pipe.poll(WALL_SECONDS):
                return self.pipe.recv()
            end = f"hangs: over {WALL_SECONDS} s"
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            end = f"the process died (exit code {code})"
            if code == -signal.SIGPROF:
                end = f"over {CPU_SECONDS} s of CPU"
        self.process.kill()
        self.stop()
        return end

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (other, self.folder, self.doors)
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
    """Door, content and choice of one input after another, for ever."""
    number = 0
    while True:
        for door, (_, seeds, mutate) in DOORS.items():
            rng = random.Random(f"{seed} {number} {door}")
            whole = rng.choice(seeds())
            content = mutate(rng, whole, seeds()) if number else whole
            yield number, door, content, rng.randrange(10**6)
        number += 1


def fuzz(seed, seconds, most, kept):
    """Run inputs for so many seconds, or so many of them; returns the counts of each door."""
    counts = {door: {"inputs": 0, "answers": 0, "errors": 0, "findings": 0} for door in DOORS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "scratch")
        Path(place, "beside").mkdir()
        Path(place, "beside", "kept").write_text("kept")
        kinds = [[d for d in DOORS if (d in WITH_TORCH) is torch] for torch in (False, True)]
        workers = {}
        for doors in kinds:
            whole = [(DOORS[door][0], content) for door in doors for content in DOORS[door][1]()]
            workers |= dict.fromkeys(doors, Worker(folder, whole))
        end = time.monotonic() + seconds
        for done, (number, door, content, choice) in enumerate(inputs(seed)):
            if done >= most or time.monotonic() > end:
                break
            result = workers[door].run(DOORS[door][0], content, choice)
            count = counts[door]
            count["inputs"] += 1
            if result == "answer":
                count["answers"] += 1
            elif result.endswith("Error"):
                count["errors"] += 1
            else:
                count["findings"] += 1
                _keep(kept / f"{door}-{zlib.crc32(content):08x}", content, choice, result)
                cause = result.strip().splitlines()[-1]
                print(f"FINDING at the door {door}, input {number}: {cause}", flush=True)
        for worker in workers.values():
            worker.stop()
    return counts


def _keep(file, content, choice, result):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.with_suffix(".txt").write_text(f"choice {choice}\n{result}\n")


def print_table(counts):
    columns = ("inputs", "answers", "errors", "findings")
    total = {column: sum(count[column] for count in counts.values()) for column in columns}
    print(f"{'door':12}" + "".join(f"{column:>10}" for column in columns))
    for door, count in [*counts.items(), ("all", total)]:
        print(f"{door:12}" + "".join(f"{count[column]:>10,}" for column in columns))
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="stop after so many")
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
            "all": total, "doors": counts,
        }  # fmt: skip
        chosen.record.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(total["findings"] > 0)


if __name__ == "__main__":
    main()
