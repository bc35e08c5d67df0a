"""The citation of erasebench, in BibTeX; ``CITATION.cff`` says the same, which a test holds it to."""

from __future__ import annotations

TITLE = "erasebench: a benchmark harness for concept erasure in text-to-image diffusion models"
AUTHORS = ("The erasebench authors",)
YEAR = 2026


def bibtex(version: str, note: str) -> str:
    """An entry for a version.

    Args:
        version: of erasebench.
        note: what of it is cited, such as a run; in letters and digits.
    """
    # In braces, so that the name of a group is not taken for first names and a last name.
    authors = " and ".join(f"{{{author}}}" for author in AUTHORS)
    fields = {"author": authors, "title": TITLE, "year": YEAR, "version": version, "note": note}
    lines = "".join(f"  {name:<7} = {{{value}}},\n" for name, value in fields.items())
    return f"@software{{erasebench,\n{lines}}}"
