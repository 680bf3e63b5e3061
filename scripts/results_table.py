"""Write the README's table of results from results/runs.jsonl.

python scripts/results_table.py
"""

from pathlib import Path

from melgenre.evaluation.report import results_table

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"


def in_markdown(table):
    """The table of results in Markdown."""
    names = ["GTZAN, accuracy in % [95 % interval]", *table.columns]
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    rows += [f"| {' | '.join(row)} |" for row in table.reset_index().itertuples(index=False)]
    return "\n".join(rows)


def with_table(readme, folder):
    """Replace the table between its two marks in the text of the README."""
    before, rest = readme.split(BEGIN)
    table = in_markdown(results_table(folder))
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main():
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), ROOT / "results"))


if __name__ == "__main__":
    main()
