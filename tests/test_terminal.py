"""What is told reaches a terminal as text; a standard error that nobody hears stops nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest

from erasebench.errors import EraseBenchError
from erasebench.terminal import open_closed_streams, say, telling, write_result


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def full() -> TextIO:
    return open("/dev/full", "w", encoding="utf-8")


def test_what_is_said_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2J")
    write_result("\x1b[31mb\r")
    assert capsys.readouterr() == ("\\x1b[31mb\\r\n", "a\\x1b[2J\n")


def test_csv_is_exact_but_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_result("a\x1b[2J", end="", raw=True)
    assert capsys.readouterr().out == "a\x1b[2J"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    write_result("\x1b[1ma\x1b[2J", end="", raw=True)
    assert terminal.getvalue() == "\x1b[1ma\\x1b[2J"


def test_a_full_standard_error_loses_words_once_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        say("lost")
        say("lost as well")
        assert os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))


def test_a_full_standard_output_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(EraseBenchError, match="standard output cannot be written: No space left on device"):
            write_result("lost")


def test_other_errors_than_of_writing_are_not_lost() -> None:
    with pytest.raises(ZeroDivisionError), telling(io.StringIO()):
        raise ZeroDivisionError
    with telling(io.StringIO()):
        raise OSError(errno.EIO, "gone")


def test_streams_that_are_closed_lead_nowhere(tmp_path: Path) -> None:
    code = (
        "import os, sys; from erasebench.terminal import open_closed_streams; assert sys.stderr is None;"
        "open_closed_streams(); print('x', file=sys.stderr, flush=True);"
        f"handle = os.open({str(tmp_path / 'new')!r}, os.O_CREAT | os.O_WRONLY); os._exit(handle)"
    )
    assert os.waitstatus_to_exitcode(os.system(f'{sys.executable} -c "{code}" 2>&-')) > 2
    assert (tmp_path / "new").read_bytes() == b""
    open_closed_streams()  # nothing is closed
