"""The description that a store gives of itself, in a folder as in a bucket: the version of its format."""

from __future__ import annotations

import json
from typing import Any

from erasebench.errors import EraseBenchError

FORMAT = 1
ABOUT = "store.json"


def check_format(text: str, name: str) -> dict[str, Any]:
    """The description that a store gives of itself.

    Args:
        text: of its file :data:`ABOUT`.
        name: of the store.

    Raises:
        EraseBenchError: it is of another version, or says something else.
    """
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"{name}/{ABOUT}", error) from error
    if not isinstance(description, dict) or "format" not in description:
        raise corrupt(f"{name}/{ABOUT}", "it names no format")
    version = description["format"]
    if type(version) is not int or version != FORMAT:
        newer = "a newer erasebench" if type(version) is int and version > FORMAT else "something else"
        raise EraseBenchError(
            f"the store {name} was written by {newer} (format {version}, known: {FORMAT}); upgrade erasebench or "
            "give another folder"
        )
    return description


def corrupt(about: str, error: Exception | str) -> EraseBenchError:
    """The error of what a store says of itself, which cannot be read."""
    return EraseBenchError(f'{about} is corrupt ({error}); a store\'s says {{"format": {FORMAT}}}')
