"""Write the README's table of results from results/runs.jsonl.

python scripts/results_table.py
"""

from pathlib import Path

from melgenre.evaluation.results import summarise_results

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"
PROTOCOLS = {
    "random": "random 70/30",
    "random-10-fold": "random 10-fold",
    "artist-3-fold": "artists apart, 3-fold",
    "fault-filtered": "fault-filtered test",
    "fault-filtered-train+valid": "the same, learned from train and valid",
}


def results_table(folder):
    """The table in Markdown: a row for each model, a column for each protocol."""
    figures = summarise_results(folder)
    rows = [
        "| GTZAN, accuracy in % | " + " | ".join(PROTOCOLS.values()) + " | starting weights |",
        "| --- |" + " --- |" * (len(PROTOCOLS) + 1),
    ]
    for model, of_model in figures.groupby("model", sort=False):
        cells = [cell(of_model[of_model["protocol"] == name]) for name in PROTOCOLS]
        weights = of_model["weights"].iloc[0]
        rows.append(f"| {model} | {' | '.join(cells)} | {weights} |")
    return "\n".join(rows)


def cell(figure):
    """One figure with its interval; a dash where there is none."""
    if figure.empty:
        return "–"
    one = figure.iloc[0]
    seeds = "" if one["seeds"] >= 3 else f"; {one['seeds']} of 3 seeds"
    interval = f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"
    return f"**{100 * one['accuracy']:.1f}** ({interval}{seeds})"


def with_table(readme, folder):
    """The README's text with the table between its two marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table(folder)}\n{END}{rest.split(END)[1]}"


def main():
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), ROOT / "results"))


if __name__ == "__main__":
    main()
