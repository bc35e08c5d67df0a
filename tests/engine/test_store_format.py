from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 2}', r"was written by a newer erasebench \(format 2, known: 1\); upgrade erasebench"),
        ('{"format": "x"}', "was written by something else"),
        ("{", "store.json is corrupt"),
        *((text, r"store.json is corrupt \(it names no format\)") for text in ("[]", "null", "{}", "3")),
        ('{"format": true}', "was written by something else"),
        ('{"format": 1.0}', "was written by something else"),
        ('{"format": NaN}', "was written by something else"),
        ("[" * 100_000, "store.json is corrupt"),
    ],
)
def test_a_store_of_another_format_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(EraseBenchError, match=message):
        Store(tmp_path)
