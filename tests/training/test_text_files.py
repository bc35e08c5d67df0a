"""Text files of the user's, and what is wrong with some."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.training.text_files import file_identity, read_lines


def test_lines_are_stripped_and_each_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffa dog\r\n\n  art \na dog\n".encode())
    assert read_lines(str(path)) == ["a dog", "art"]
    assert file_identity(str(path)) == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_blank_file_and_one_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(" \n")
    with pytest.raises(EraseBenchError, match="has no lines"):
        read_lines(str(path))
    for read in (read_lines, file_identity):
        with pytest.raises(EraseBenchError, match=r"missing.txt cannot be read: No such file"):
            read(str(tmp_path / "missing.txt"))
