from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from erasebench.durable import durably, is_disk_full, replace_folder, write_durably


def test_two_processes_that_write_one_file_leave_one_of_them_whole(tmp_path: Path) -> None:
    """The second opens, and ends, while the first is in the middle."""
    path = tmp_path / "table.csv"
    with durably(path) as stream:
        stream.write(b"first, ")
        child = os.fork()
        if not child:
            try:
                write_durably(path, "second")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert path.read_text() == "second"
        stream.write(b"whole")
    assert path.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_durably(path, "old")
    with pytest.raises(ZeroDivisionError), durably(path) as stream:
        stream.write(b"half")
        stream.flush()
        1 / 0  # noqa: B018
    assert path.read_text() == "old"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    def write(partial: Path) -> None:
        assert partial != folder
        partial.mkdir()
        (partial / "file").write_text("new")

    def fail(partial: Path) -> None:
        write(partial)
        raise KeyboardInterrupt

    replace_folder(folder, write)
    (folder / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, fail)
    assert (folder / "old").exists()
    replace_folder(folder, write)
    assert [path.name for path in folder.iterdir()] == ["file"] and list(tmp_path.iterdir()) == [folder]


def test_a_full_disk_is_recognised_however_it_is_told() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = full
    foreign = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert is_disk_full(full) and is_disk_full(wrapped) and is_disk_full(foreign)
    assert not is_disk_full(OSError(errno.EACCES, "no")) and not is_disk_full(ValueError("full of errors"))
