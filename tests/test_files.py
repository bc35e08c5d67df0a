from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.files import (
    cannot_write,
    durably,
    hash_file,
    hash_file_once,
    hash_files,
    is_disk_full,
    is_url,
    locate,
    make_folder,
    parse_place,
    read_file,
    read_hashed,
    remove,
    remove_partials,
    replace_folder,
    write_durably,
    write_hashed,
)
from tests.forks import end, fork, in_a_child


def test_two_processes_that_write_one_file_leave_one_of_them_whole(tmp_path: Path) -> None:
    """The second opens, and ends, while the first is in the middle."""
    path = tmp_path / "table.csv"
    with durably(path) as stream:
        stream.write(b"first, ")
        assert in_a_child(lambda: write_durably(path, "second")) == 0
        assert path.read_text() == "second"
        stream.write(b"whole")
    assert path.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_its_hash_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert read_hashed(path) is None
    for data in (b"", b"some data"):
        write_hashed(path, data)
        assert read_hashed(path) == data
    whole = path.read_bytes()
    for k in range(len(whole)):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        assert read_hashed(path) is None
        path.write_bytes(whole[:k])
        assert read_hashed(path) is None


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_durably(path, "old")
    with pytest.raises(ZeroDivisionError), durably(path) as stream:
        stream.write(b"half")
        stream.flush()
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


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
    assert (folder / "old").exists() and list(tmp_path.iterdir()) == [folder]
    replace_folder(folder, write)
    assert [path.name for path in folder.iterdir()] == ["file"] and list(tmp_path.iterdir()) == [folder]


def dead_process() -> int:
    child = fork(lambda: None)
    end(child)
    return child


def test_what_kills_left_half_written_is_removed(tmp_path: Path) -> None:
    dead, alive = dead_process(), os.getppid()
    kept = [f"table.csv.{alive}.partial", "mine.partial", "table.csv", f"grids/b.{alive}.partial", f"{dead}.partial"]
    for name in (*kept, f"table.csv.{dead}.partial", f"grids/a.png.{dead}.partial", f"f.{dead}.partial/inside"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    assert not (tmp_path / f"f.{dead}.partial").exists()


def test_a_folder_takes_the_place_of_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for name in ("file", "loop", "dangling", "full", "link", "new/inner"):
        make_folder(tmp_path / name)
        assert (tmp_path / name).is_dir()
    assert (tmp_path / "link" / "kept").exists()
    for path in tmp_path.iterdir():
        remove(path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "cannot be written at out/a: Permission denied; change its permissions"),
        (errno.EROFS, "mounted for reading only"),
        (errno.EIO, "see to it, or name another place"),
        (errno.ENOSPC, "is full; free some space"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_what_to_do(code: int, advice: str) -> None:
    message = str(cannot_write("the output folder out", OSError(code, os.strerror(code), "out/a")))
    assert "the output folder out" in message and advice in message


def test_a_full_disk_is_recognised_however_it_is_told() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = full
    foreign = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert is_disk_full(full) and is_disk_full(wrapped) and is_disk_full(foreign)
    assert not is_disk_full(OSError(errno.EACCES, "no")) and not is_disk_full(ValueError("full of errors"))


def test_a_hash_is_that_of_the_bytes_and_made_anew_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert hash_file(path) == hash_file_once(path) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("erasebench.files.hash_file", lambda path: pytest.fail(f"{path} was read again"))
        hash_file_once(path)
    path.write_bytes(b"three")
    assert hash_file_once(path) == hash_file(path) == hashlib.sha256(b"three").hexdigest()


def test_the_hash_of_files_depends_on_names_and_bytes_but_not_on_place_or_order(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "a").write_bytes(b"1")
        (tmp_path / name / "sub" / "b").write_bytes(b"2")
    first, second = tmp_path / "first", tmp_path / "second"
    before = hash_files(first, [first / "a", first / "sub" / "b"])
    assert before == hash_files(second, [second / "sub" / "b", second / "a"])
    (second / "a").rename(second / "c")
    assert before != hash_files(second, [second / "c", second / "sub" / "b"])
    (first / "a").write_bytes(b"3")
    assert before != hash_files(first, [first / "a", first / "sub" / "b"])


def test_only_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\0")
    assert read_file(tmp_path / "file") == b"\xff\0"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(EraseBenchError, match=f"cannot read {path}: it is a pipe or a device; write its content"):
            read_file(path)
    with pytest.raises(EraseBenchError, match="Is a directory"):
        read_file(tmp_path)
    with pytest.raises(EraseBenchError, match=r"cannot read 'a\\x00b': embedded null byte"):
        read_file(Path("a\0b"))


def test_a_place_to_write_is_found_without_links(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "loop").symlink_to("loop")
    assert locate("it", tmp_path / "link" / "new") == (tmp_path / "there" / "new").resolve()
    for path, why in (
        (tmp_path / "loop" / "new", "symbolic links; remove"),
        (tmp_path / ("a" * 300), "too long; name"),
    ):
        with pytest.raises(EraseBenchError, match=f"^the place {path} cannot be written: .*{why}"):
            locate(f"the place {path}", path)
    with pytest.raises(EraseBenchError, match="cannot be written: embedded null byte"):
        locate("it", Path("a\0b"))


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("memory://a", "memory://a"),
        ("a/b", Path("a/b")),
        ("C:/a", Path("C:/a")),
        ("a://b", "a://b"),
        ("./s3://a", Path("./s3://a")),
        (Path("a"), Path("a")),
        (3, 3),
    ],
)
def test_a_place_is_a_folder_or_a_url(given: object, place: object) -> None:
    assert parse_place(given) == place and is_url(str(given)) == isinstance(place, str)
