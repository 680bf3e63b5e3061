"""The references: well-formed, complete, and the same in every place."""

import re
import tomllib

import pytest
from conftest import ROOT

import melgenre as mg

BIB = (ROOT / "src" / "melgenre" / "references.bib").read_text()
FIELD = re.compile(r"  (\w+) = \{((?:[^{}]|\{[^{}]*\})+)\},\n")


def entries():
    """The fields of each entry."""
    found = {}
    for entry in BIB.strip().split("\n\n"):
        key, fields = re.fullmatch(r"@[a-z]+\{(\w+),\n(.*)\}", entry, re.S).groups()
        assert FIELD.sub("", fields) == "", f"{key}: a line that is no field"
        assert key not in found, f"{key} occurs twice"
        found[key] = dict(FIELD.findall(fields))
    return found


def test_every_entry_is_complete():
    for key, fields in entries().items():
        assert {"title", "author", "year"} <= set(fields), key
        assert re.match(r"[a-z]+\d{4}", key)[0].endswith(fields["year"]), key
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields.get("doi", "10.1000/1")), key
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "1000.0000")), key
        assert ("eprint" in fields) == (fields.get("archiveprefix") == "arXiv"), key


def texts():
    """The files that refer to papers."""
    for pattern in ("notebooks/*.ipynb", "README.md", "docs/*.md", "results/*.md", "results/*.csv",
                    "src/melgenre/**/*.py"):  # fmt: skip
        yield from ROOT.glob(pattern)


def test_every_paper_that_is_linked_is_an_entry():
    known = {fields.get(name) for fields in entries().values() for name in ("doi", "eprint")}
    links = r"arxiv\.org/\w+/(\d{4}\.\d+)|arXiv[: ]+(\d{4}\.\d+)|doi\.org/(10\.[^\s\"')>\\]+)"
    linked = [
        (file.name, *filter(None, found))
        for file in texts()
        for found in re.findall(links, file.read_text())
    ]
    assert len(linked) > 5
    assert [link for link in linked if link[1] not in known] == []


def test_citations():
    text = mg.cite()
    assert text.count("@") == 5 and "Tzanetakis" in text and "Foleis" in text
    assert mg.cite("guo2017", "park2019").startswith("@inproceedings{guo2017,")
    with pytest.raises(mg.CitationError, match="no reference 'who2020'. Choose from: alain2016, "):
        mg.cite("guo2017", "who2020")


def test_the_citation_file_agrees():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"(?m)^version: (.+)$", text)[1] == mg.__version__
    cited = set(re.findall(r"doi: (\S+)", text))
    assert cited == {doi for doi in re.findall(r"doi = \{(.+)\}", mg.cite())}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "references.bib" in project["tool"]["setuptools"]["package-data"]["melgenre"]
