"""The citation is the one of CITATION.cff."""

from __future__ import annotations

import re

import yaml

import erasebench
from erasebench.report.citation import bibtex
from tests.pages import ROOT


def test_the_citation_is_of_this_version() -> None:
    """The keys that the Citation File Format 1.2.0 asks for, and those that are also said elsewhere."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "version", "license"} <= set(citation)
    assert citation["type"] == "software" and all("name" in author for author in citation["authors"])
    assert citation["version"] == erasebench.__version__
    preferred = citation["preferred-citation"]
    assert all(preferred[key] == citation[key] for key in ("type", "title", "authors", "version"))
    fields = dict(re.findall(r"^  (\w+) += \{(.*)\},$", bibtex(preferred["version"], "run 1"), re.MULTILINE))
    assert fields == {
        "author": " and ".join(f"{{{author['name']}}}" for author in preferred["authors"]),
        **{key: str(preferred[key]) for key in ("title", "year", "version")},
        "note": "run 1",
    }
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
