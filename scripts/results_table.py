"""Write the tables of results from results/runs.jsonl: a short one into README.md, and the full one
into results/README.md.

python scripts/results_table.py
"""

from pathlib import Path

from melgenre.evaluation.report import results_table

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"

COLUMNS = {
    "random 10-fold": "usual random split",
    "3-fold, artist-filtered": "no artist on both sides",
}
ROWS = {
    "descriptors + neural network": "28 descriptors, neural network",
    "resnet34, frozen-head": "ResNet34, new head (the original recipe)",
    "resnet34, texture": "ResNet34, textures",
    "resnet50, discriminant": "ResNet50, textures, linear discriminant",
}
"""What the README shows of the table, and the titles there: it fits a screen."""


def short(table):
    """The rows and columns of the README."""
    shown = table.loc[[name for name in ROWS if name in table.index]]
    shown = shown[[title for title in COLUMNS if title in shown]]
    return shown.rename(index=ROWS, columns=COLUMNS)


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
