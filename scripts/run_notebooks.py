"""Run the notebooks top to bottom: what `make run` and `make notebooks` do.

Executed copies go to `runs/` with a line of progress for each. With `--in-place` the notebooks
themselves are executed, and their figures go to `results/`: that is how they are committed.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
import papermill

from melgenre.data.collection import SYNTHETIC_WARNING, describe_collection, load_collection
from melgenre.evaluation.metrics import format_score

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, RUNS, MODELS = ROOT / "notebooks", ROOT / "runs", ROOT / "models"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="auto", help="as for load_collection")
    parser.add_argument("--in-place", action="store_true", help="execute the notebooks themselves")
    parser.add_argument("notebooks", nargs="*", help="file names; all of them if none is named")
    options = parser.parse_args()

    # The notebooks run in their own folder, so what is named from here is named in full.
    if os.environ.get("MELGENRE_DATA"):
        os.environ["MELGENRE_DATA"] = os.path.abspath(os.environ["MELGENRE_DATA"])
    try:
        tracks = load_collection(options.collection)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(describe_collection(tracks))
    synthetic = tracks["collection"].iloc[0] == "synthetic"
    given = {"COLLECTION": options.collection}
    if synthetic:
        given["RECIPE"] = "smoke-test"
    if options.in_place:
        os.environ["MELGENRE_RESULTS"] = "../results"  # as seen from the notebooks' folder
    else:
        given["RESULTS"] = "../runs/results"
        if not options.notebooks:  # a single notebook may read what others have written
            shutil.rmtree(RUNS / "results", ignore_errors=True)

    known = read_lines(results_file(options.in_place))
    files = [NOTEBOOKS / name for name in options.notebooks] or sorted(NOTEBOOKS.glob("*.ipynb"))
    started = time.time()
    for number, file in enumerate(files, start=1):
        print(f"[{number}/{len(files)}] {file.stem} ...", end=" ", flush=True)
        seconds = run(file, given, in_place=options.in_place)
        print(f"done in {seconds:.0f} s", flush=True)
    report(time.time() - started, synthetic, known, in_place=options.in_place)


def run(file, given, *, in_place):
    """Execute one notebook; returns the seconds it took, and leaves the program if a cell fails."""
    target = file if in_place else RUNS / file.name
    target.parent.mkdir(exist_ok=True)
    known = papermill.inspect_notebook(str(file))
    # In place the notebook's own settings are what is shown and run.
    parameters = {} if in_place else {name: given[name] for name in known if name in given}
    started = time.time()
    try:
        papermill.execute_notebook(
            str(file), str(target), parameters, cwd=str(NOTEBOOKS), kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--Application.log_level=40"],  # no word of how the kernel is wired
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        sys.exit(f"failed in cell {error.exec_count}: {error.ename}: {error.evalue}\nSee {target}")
    except RuntimeError as error:  # the kernel itself is gone: out of memory, most often
        sys.exit(f"stopped: {error}\nSee {target}")
    if in_place:
        strip_run_details(target)
    return time.time() - started


def strip_run_details(file):
    """Drop what papermill noted of this run (paths, times): it says nothing to a reader."""
    notebook = nbformat.read(file, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, file)


def results_file(in_place):
    """Where the notebooks write their figures down."""
    return (ROOT if in_place else RUNS) / "results" / "runs.jsonl"


def read_lines(file):
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def report(seconds, synthetic, known, *, in_place):
    """Name what was made, and the accuracies of the results' lines that are not `known`."""
    print(f"\nAll notebooks ran in {seconds / 60:.1f} minutes.")
    print(f"Executed notebooks: {'notebooks' if in_place else 'runs'}/")
    exported = ", ".join(sorted(file.parent.name for file in MODELS.glob("*/config.json")))
    print(f"Exported learners:  {MODELS.relative_to(ROOT)}/ ({exported or 'none yet'})")
    for run in map(json.loads, set(read_lines(results_file(in_place))) - set(known)):
        print(f"Accuracy of {run['architecture']}, {run['recipe']}: {format_score(run)}")
    if synthetic:
        print(f"\n{SYNTHETIC_WARNING}")


if __name__ == "__main__":
    main()
