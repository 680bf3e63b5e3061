"""Kill every operation that writes files at random moments, and check its files.

    python fuzz/kill.py --kills 25 --seed 0

Each operation runs once undisturbed. Then it is killed by SIGKILL after a random part of that time,
and run again. The second run must write the same bytes as the undisturbed one and leave no
temporary file. The files between the kill and the second run must be readable and correct. Every
second kill also ends the worker processes; the others leave them running.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from operations import OPERATIONS

ROOT = Path(__file__).resolve().parent.parent
MOST_SECONDS = 300
"""An operation that takes longer hangs."""


def start(prepare, folder):
    """Start an operation on a folder in a process of its own, which leads its group.

    Parameters
    ----------
    prepare : callable
        Called in the folder; returns a function that runs the operation.
    folder : Path

    Returns
    -------
    int
        Process id. The operation itself has begun.
    """
    ready, begun = os.pipe()
    process = os.fork()  # a forked process need not import everything again
    if process:
        os.close(begun)
        os.read(ready, 1)
        os.close(ready)
        return process
    status = 1
    try:
        os.setsid()
        with (folder.parent / "log.txt").open("a") as log:
            # Also of its workers: those that outlive it must not hold the output of this program.
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                os.chdir(folder)
                os.environ["MELGENRE_HOME"] = str(folder)
                run = prepare()
                os.write(begun, b"1")
                run()
                status = 0
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(status)


def finish(process):
    """Wait for a process; returns its exit code, or "hangs"."""
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "hangs"


def snapshot(operation, folder):
    """The files of an operation: relative path -> content that must be the same."""
    content = OPERATIONS[operation].content
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {path.relative_to(folder).as_posix(): content(path) for path in files}
    return {name: data for name, data in found.items() if data is not None}


def attack(operation, kills, rng):
    """Kill an operation `kills` times.

    Returns
    -------
    dict
        `kills` (how many came before the operation ended), `seconds` of the undisturbed run, and
        `findings`: a list of sentences.
    """
    with tempfile.TemporaryDirectory(prefix="melgenre-kill-") as scratch:
        scratch = Path(scratch)
        one, inputs = OPERATIONS[operation], scratch / "inputs" / "project"
        inputs.mkdir(parents=True)
        one.serve()
        # In a process of its own: a process that has started threads must not fork.
        if finish(start(lambda: lambda: one.make_inputs(inputs), inputs)) != 0:
            return _summary(0, 0, [f"the inputs cannot be made: {_log(inputs)}"])

        def fresh(name):
            shutil.rmtree(scratch / name, ignore_errors=True)
            # copytree keeps the modification times of the inputs, which operations record.
            return Path(shutil.copytree(inputs, scratch / name / "project"))

        undisturbed, started = fresh("undisturbed"), time.monotonic()
        process = start(one.prepare, undisturbed)
        started = time.monotonic()
        if finish(process) != 0:
            return _summary(0, 0, [f"the undisturbed run failed: {_log(undisturbed)}"])
        seconds = time.monotonic() - started
        expected, findings, killed = snapshot(operation, undisturbed), [], 0
        for number in range(4 * kills):  # some kills come after the operation has ended
            folder, moment = fresh("killed"), rng.uniform(0, seconds)
            process = start(one.prepare, folder)
            time.sleep(moment)
            os.killpg(process, signal.SIGKILL) if number % 2 else os.kill(process, signal.SIGKILL)
            killed += finish(process) == -signal.SIGKILL
            problem = _check_and_resume(operation, folder, expected)
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)  # workers that still run
            if problem:
                findings.append(f"killed after {moment:.3f} of {seconds:.3f} s: {problem}")
            if killed == kills:
                break
        return _summary(killed, seconds, findings)


def _check_and_resume(operation, folder, expected):
    """Check the files after a kill, and after a second run; returns a sentence, or None."""
    try:
        OPERATIONS[operation].check(folder)
    except Exception:  # any error of a check is a finding
        return f"the files after the kill are not correct: {traceback.format_exc(limit=-3)}"
    status = finish(start(OPERATIONS[operation].prepare, folder))
    if status != 0:
        return f"the second run ended with {status}: {_log(folder)}"
    left = [path.name for path in folder.rglob(".melgenre-*")]
    if left:
        return f"temporary files remain: {left}"
    found = snapshot(operation, folder)
    if found != expected:
        names = found.keys() | expected.keys()
        differing = [name for name in sorted(names) if found.get(name) != expected.get(name)]
        return f"{', '.join(differing[:5])} differ from the undisturbed run"
    return None


def _log(folder):
    return (folder.parent / "log.txt").read_text()[-2000:]


def _summary(kills, seconds, findings):
    return {"kills": kills, "seconds": round(seconds, 2), "findings": findings}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=OPERATIONS, nargs="*", default=list(OPERATIONS))
    parser.add_argument("--record", type=Path, help="write the table as JSON")
    options = parser.parse_args()
    results = {}
    for operation in options.only:
        rng = random.Random(f"{options.seed} {operation}")
        results[operation] = attack(operation, options.kills, rng)
        shown = results[operation]
        print(f"{operation:16} {shown['kills']:4} kills in a run of {shown['seconds']:7.2f} s, "
              f"{len(shown['findings'])} findings", flush=True)  # fmt: skip
        for finding in shown["findings"]:
            print(f"  {finding}")
    if options.record:
        from melgenre.evaluation.provenance import git_commit, package_versions

        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": git_commit(),
            "system": platform.system(), "versions": package_versions(), "seed": options.seed,
            "operations": results,
        }  # fmt: skip
        options.record.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(any(result["findings"] for result in results.values()))


if __name__ == "__main__":
    main()
