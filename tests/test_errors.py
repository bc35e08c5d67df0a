from __future__ import annotations

import pytest

from erasebench.errors import EraseBenchError, one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            RuntimeError("Error(s) in loading state_dict:\n\tMissing key(s)"),
            "RuntimeError: Error(s) in loading state_dict: Missing key(s)",
        ),
        (EraseBenchError("what\nand how"), "what and how"),
        (FloatingPointError("training diverged"), "training diverged"),
        (KeyError("name"), "KeyError: 'name'"),
    ],
)
def test_an_error_on_one_line_keeps_its_cause(error: Exception, text: str) -> None:
    assert one_line(error) == text
