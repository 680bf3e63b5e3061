"""FMA-full and a million songs on rented machines: hours, price, network and requests.

python benchmarks/reckon.py

Nothing is measured here: the numbers come from the results of `scaling.py`.
"""

import json

from bench import RESULTS

from melgenre.inference.song_table import SECONDS_BETWEEN_UPLOADS

COLLECTIONS = {"FMA-full": (106_574, 64), "a million songs": (1_000_000, 256)}
"""Songs, and cores to rent."""

SONG_BYTES = 917 * 2**30 / 106_574
"""Of a track of FMA-full, which has 917 GiB (Defferrard et al., 2017)."""

USD_PER_CORE_HOUR, USD_PER_1000_READ, USD_PER_1000_WRITTEN = 0.0425, 0.0004, 0.005
"""Of Amazon: see `docs/scale.md`."""


def main():
    song = result("whole_song")[0]
    efficiency = min(row["efficiency"] for row in result("scaling") if row["workers"] == 2)
    print("efficiency:", efficiency)
    ways = {"images": "image", "genres or embeddings": "genre"}
    for name, (songs, cores) in COLLECTIONS.items():
        for what, one in ways.items():
            seconds = song[f"seconds for the {one}"] / efficiency
            cells = [name + ", " + what, *cells_of(songs, cores, seconds, one == "image")]
            print("|", " | ".join(cells), "|")


def cells_of(songs, cores, seconds, images):
    """One row of the table: `seconds` are those of a core per song."""
    hours = songs * seconds / 3600
    minutes = 60 * hours / cores
    listed, written = -(-songs // 1000), songs
    if not images:
        written = round(60 * minutes / SECONDS_BETWEEN_UPLOADS)
    usd = (songs * USD_PER_1000_READ + (listed + written) * USD_PER_1000_WRITTEN) / 1000
    return [
        f"{hours:.0f}",
        f"{cores} cores: " + (f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"),
        f"{hours * USD_PER_CORE_HOUR:.2f} USD",
        f"{songs * SONG_BYTES / 1e12:.2f} TB, {cores * SONG_BYTES / 1e6 / seconds:,.0f} MB/s",
        f"{songs:,} read, {listed:,} list, {written:,} written: {usd:.2f} USD",
    ]


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


if __name__ == "__main__":
    main()
