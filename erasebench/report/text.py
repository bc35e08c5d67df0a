"""Text of users as files and terminals can hold it."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Text that XML can hold and a terminal shows: control characters and halves of surrogate pairs are replaced."""
    return _UNPRINTABLE.sub("\ufffd", text)
