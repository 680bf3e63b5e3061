"""What to cite, as BibTeX."""

from __future__ import annotations

import re
from importlib.resources import files

from ..errors import MelgenreError

GTZAN = ("tzanetakis2002", "sturm2013", "sturm2014", "kereliuk2015", "foleis2020")
"""The data set, its faults, the fault-filtered split, the artists and their folds."""


class CitationError(MelgenreError, ValueError):
    """A name that `cite` does not know; the message lists those that it knows."""


def cite(*names: str) -> str:
    """BibTeX entries of the papers that this package uses.

    Parameters
    ----------
    names
        Keys of entries, such as "kereliuk2015". Without a name: those that a result on GTZAN has
        to cite, which are the data set, its faults, its fault-filtered split, and the artists of
        its clips with their folds.

    Raises
    ------
    CitationError
        If there is no entry of a name.

    Examples
    --------
    >>> import melgenre as mg
    >>> print(mg.cite("sturm2013"))
    @misc{sturm2013,
      title = {The {GTZAN} dataset: Its contents, its faults, their effects on evaluation, and its future use},
      author = {Sturm, Bob L.},
      year = {2013},
      eprint = {1306.1461},
      archiveprefix = {arXiv},
    }
    """  # noqa: E501
    text = (files("melgenre") / "references.bib").read_text(encoding="utf-8")
    entries = {re.search(r"{(\w+),", entry)[1]: entry for entry in text.strip().split("\n\n")}
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise CitationError(
            f"There is no reference {', '.join(map(repr, unknown))}. Choose from: "
            f"{', '.join(sorted(entries))}."
        )
    return "\n\n".join(entries[name] for name in names or GTZAN)
