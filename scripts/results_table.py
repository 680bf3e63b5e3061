"""Write the tables of results from results/runs.jsonl: a short one into README.md, and the full one
into results/README.md.

python scripts/results_table.py
"""

from pathlib import Path

from melgenre.evaluation.report import results_table

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"

SHORT = {
    "random 10-fold": "random 10-fold",
    "3-fold, artist-filtered": "artist folds",
    "fault-filtered": "fault-filtered (443)",
    "fault-filtered, train+valid": "fault-filtered (640)",
}
"""The columns of the README and their titles there, which fit a screen."""


def short(table):
    """The columns of the README."""
    return table[[title for title in SHORT if title in table]].rename(columns=SHORT)


def in_markdown(table):
    """A table of results in Markdown."""
    names = ["accuracy in % [95 % interval]", *table.columns]
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    rows += [f"| {' | '.join(row)} |" for row in table.reset_index().itertuples(index=False)]
    return "\n".join(rows)


def with_table(text, table):
    """Replace the table between its two marks in a text."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{in_markdown(table)}\n{END}{rest.split(END)[1]}"


def main():
    table = results_table(ROOT / "results")
    for file, shown in ("README.md", short(table)), ("results/README.md", table):
        readme = ROOT / file
        readme.write_text(with_table(readme.read_text(), shown))


if __name__ == "__main__":
    main()
