"""Articles."""

from __future__ import annotations

import pytest

from erasebench.grammar import with_article


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("church", "a church"),
        ("English springer", "an English springer"),
        ("old dog", "an old dog"),
        ("a dog", "a dog"),
        ("An orange", "An orange"),
        ("the sea", "the sea"),
        ("anchor", "an anchor"),
        ("theatre", "a theatre"),
    ],
)
def test_words_have_one_article(words: str, expected: str) -> None:
    assert with_article(words) == expected
