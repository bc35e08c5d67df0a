"""English as prompts need it.

The world's captions have an article of their own: their source is part of the identity of the world's images.
"""

from __future__ import annotations

import re

_DETERMINED = re.compile(r"(an?|the) ", re.IGNORECASE)


def with_article(words: str) -> str:
    """Words with their indefinite article, unless they begin with an article: "a church", "an old dog", "the sea"."""
    if _DETERMINED.match(words):
        return words
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"
