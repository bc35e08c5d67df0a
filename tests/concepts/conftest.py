"""The catalogue with a file of a user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from erasebench.concepts import Catalogue, load_catalogue


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Catalogue]:
    """Loads the catalogue with a user's file of the given text, ``mine.yaml``."""

    def load_text(text: str) -> Catalogue:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_catalogue([path])

    return load_text
