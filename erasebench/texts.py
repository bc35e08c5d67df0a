"""Texts that others wrote: which are refused, and how they are shown."""

from __future__ import annotations

import re
import unicodedata

from erasebench.errors import EraseBenchError

MAX_PROMPT_LENGTH = 100_000
"""Characters; CSV readers take 131,072 in a field, and text encoders 77 tokens."""
MAX_PHRASE_LENGTH = 1_000
"""Characters of a concept's words."""
_BLANK = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Mn", "Mc", "Me"})
"""Unicode's categories of what shows nothing by itself; characters that are too new to be known are not among them."""
_INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Characters that count as letters or symbols, and show nothing: fillers of Hangul, and Braille's blank."""
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks that change the direction of what stands after them."""
_HIDDEN = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff{_DIRECTIONS}]")
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def is_blank(text: str) -> bool:
    """True if a text shows nothing: spaces, also those of no width, marks without a letter, fillers."""
    if text[:1].isascii() and text[:1].isalnum():  # nearly all texts
        return False
    return all(c in _INVISIBLE or unicodedata.category(c) in _BLANK for c in text)


def is_valid(text: str) -> bool:
    """True if :func:`check_text` lets a text pass."""
    return _CONTROL.search(text) is None


def check_text(text: str, where: str) -> None:
    """Raise :class:`EraseBenchError` if a text holds control characters, other than tab and new line, or half a pair.

    Half a pair of surrogates is no character: no file in UTF-8 can hold it.
    """
    match = _CONTROL.search(text)
    if match:
        code = ord(match[0])
        what = "is no valid Unicode: it holds half a pair" if 0xD800 <= code < 0xE000 else "holds a control character"
        raise EraseBenchError(f"{where}: the text {shown(text)} {what}, U+{code:04X}")


def printable(text: str, styled: bool = False) -> str:
    r"""A text as a terminal may have it: what would move, colour or turn round what is shown is spelt, ``\x1b``.

    Tab and new line stay; so do joiners of no width, which scripts and emoji need.

    Args:
        text: what somebody wrote.
        styled: colours and weights were put into it and stay, whoever put them there.
    """
    if styled:
        pieces = _STYLE.split(text)
        return "".join(piece if k % 2 else printable(piece) for k, piece in enumerate(pieces))
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def shown(value: object, longest: int = 80) -> str:
    """A value in a message: as Python writes it, cut short."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= longest else f"{value[:longest]!r}..."
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?: {_NUMBER})*")


def defused(text: str) -> str:
    """A text as a cell of CSV that no spreadsheet takes for a formula: behind an apostrophe if it begins like one.

    Numbers stay as they are; :func:`restored` takes the apostrophe off.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBERS.fullmatch(text) else text


def restored(cell: str) -> str:
    """The text that :func:`defused` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
