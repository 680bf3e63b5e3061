"""Run the notebooks top to bottom: what `make run` and `make notebooks` do.

Executed copies are written to `runs/`; each notebook prints one line of progress. With `--in-place`
the notebooks themselves are executed and their results are written to `results/`, to be committed.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
import papermill

from melgenre.data.collection import SYNTHETIC_WARNING, describe_collection, load_collection
from melgenre.errors import MelgenreError
from melgenre.evaluation.metrics import format_score
from melgenre.notebook import show_warnings_as_sentences

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, RUNS, MODELS = ROOT / "notebooks", ROOT / "runs", ROOT / "models"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="auto", help="as for load_collection")
    parser.add_argument("--in-place", action="store_true", help="execute the notebooks themselves")
    parser.add_argument("notebooks", nargs="*", help="file names; by default all notebooks")
    options = parser.parse_args()
    show_warnings_as_sentences()

    # The notebooks run in their own folder, so a relative path would not be valid there.
    if os.environ.get("MELGENRE_DATA"):
        os.environ["MELGENRE_DATA"] = os.path.abspath(os.environ["MELGENRE_DATA"])
    try:
        tracks = load_collection(options.collection)
    except (MelgenreError, OSError) as error:
        sys.exit(str(error))
    print(describe_collection(tracks))
    synthetic = tracks["collection"].iloc[0] == "synthetic"
    settings = {"COLLECTION": options.collection}
    if options.in_place:
        os.environ["MELGENRE_RESULTS"] = "../results"  # relative to the notebooks' folder
    else:
        settings["RESULTS"] = "../runs/results"
        if not options.notebooks:  # a single notebook may read the results of others
            shutil.rmtree(RUNS / "results", ignore_errors=True)

    earlier = read_lines(results_file(options.in_place))
    files = [NOTEBOOKS / name for name in options.notebooks] or sorted(NOTEBOOKS.glob("*.ipynb"))
    started = time.time()
    for number, file in enumerate(files, start=1):
        print(f"[{number}/{len(files)}] {file.stem} ...", end=" ", flush=True)
        seconds = run(file, settings, in_place=options.in_place)
        print(f"done in {seconds:.0f} s", flush=True)
    report(time.time() - started, synthetic, earlier, in_place=options.in_place)


def run(file, settings, *, in_place):
    """Execute one notebook and return its seconds; exit the program if a cell fails."""
    target = file if in_place else RUNS / file.name
    target.parent.mkdir(exist_ok=True)
    parameters = papermill.inspect_notebook(str(file))
    # In place, the notebook's own settings are used: they are the ones that a reader sees.
    changed = {} if in_place else {name: settings[name] for name in parameters if name in settings}
    started = time.time()
    try:
        papermill.execute_notebook(
            str(file), str(target), changed, cwd=str(NOTEBOOKS), kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--Application.log_level=40"],  # only errors of Jupyter itself
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        sys.exit(f"failed in cell {error.exec_count}: {error.ename}: {error.evalue}\nSee {target}")
    except RuntimeError as error:  # the kernel died, most often for lack of memory
        sys.exit(f"stopped: {error}\nSee {target}")
    if in_place:
        strip_run_details(target)
    return time.time() - started


def strip_run_details(file):
    """Remove what is of no use to a reader: papermill's paths and times, and dead controls."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = join_lines(o for o in cell.outputs if not is_dead_control(o))
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, file)


def is_dead_control(output):
    """Whether an output is a progress bar, which a page shows at 0 %, or a set of sliders."""
    text = output.get("data", {}).get("text/plain", "")
    return bool(re.match(r"[^|]*\d+%\|", text)) or text.startswith("VBox(")


def join_lines(outputs):
    """Outputs with the lines that follow each other as one: a page puts a gap between outputs."""
    joined = []
    for output in outputs:
        before = joined[-1] if joined else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before["text"] += output.text
        else:
            joined.append(output)
    return joined


def results_file(in_place):
    """The file that the notebooks write their results to."""
    return (ROOT if in_place else RUNS) / "results" / "runs.jsonl"


def read_lines(file):
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def report(seconds, synthetic, earlier, *, in_place):
    """Print the folders that were written, and the accuracies of results that are not `earlier`."""
    print(f"\nAll notebooks ran in {seconds / 60:.1f} minutes.")
    print(f"Executed notebooks: {'notebooks' if in_place else 'runs'}/")
    exported = ", ".join(sorted(file.parent.name for file in MODELS.glob("*/config.json")))
    print(f"Exported learners:  {MODELS.relative_to(ROOT)}/ ({exported or 'none yet'})")
    for run in map(json.loads, set(read_lines(results_file(in_place))) - set(earlier)):
        print(f"Accuracy of {run['architecture']}, {run['recipe']}: {format_score(run)}")
    if synthetic:
        print(f"\n{SYNTHETIC_WARNING}")


if __name__ == "__main__":
    main()
