"""Write the README's table of results from results/results.jsonl: the last run of each kind.

python scripts/results_table.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"


def results_table(lines):
    """The table in Markdown, a row for each model, recipe, split and seed."""
    latest = {}
    for line in lines:
        run = json.loads(line)
        kind = ("collection", "architecture", "recipe", "protocol", "seed")
        latest[tuple(run[name] for name in kind)] = run
    rows = [
        "| network | recipe | split | learned from | judged by | accuracy | 95 % interval |"
        " artists on both sides | starting weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in latest.values():
        low, high = (100 * bound for bound in run["interval"])
        rows.append(
            f"| {run['architecture']} | {run['recipe']} | {run['protocol']} "
            f"| {run['train_tracks']} clips | {run['tracks']} clips "
            f"| **{100 * run['accuracy']:.1f} %** | {low:.1f} to {high:.1f} % "
            f"| {run['shared_artists']} | {run['weights']} |"
        )
    return "\n".join(rows)


def with_table(readme, lines):
    """The README's text with the table between its two marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table(lines)}\n{END}{rest.split(END)[1]}"


def main():
    lines = (ROOT / "results" / "results.jsonl").read_text().splitlines()
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), lines))


if __name__ == "__main__":
    main()
