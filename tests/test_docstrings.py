from __future__ import annotations

from erasebench.docstrings import attributes, first_line, paragraphs, plain

DOCSTRING = """The first line.

    A paragraph of
    two lines, see :func:`~a.b.c`.

    Attributes:
        steps: gradient steps.
        learning_rate: of Adam; ``None``:
            the variant's.
        last: one.

    Raises:
        ValueError: never.
    """


def test_what_a_docstring_says() -> None:
    assert first_line(DOCSTRING) == "The first line."
    assert paragraphs(DOCSTRING) == ["The first line.", "A paragraph of two lines, see c."]
    assert attributes(DOCSTRING) == {
        "steps": "gradient steps.",
        "learning_rate": "of Adam; None: the variant's.",
        "last": "one.",
    }


def test_no_docstring() -> None:
    assert (first_line(None), paragraphs(None), attributes(None)) == ("", [], {})


def test_markup() -> None:
    assert plain("``a`` of :class:`~x.y.Z`, :data:`VARIANTS`") == "a of Z, VARIANTS"
