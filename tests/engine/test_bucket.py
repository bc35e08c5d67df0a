"""Objects below a URL, in memory; a server of S3 is talked to in ``test_objects.py``."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from erasebench.engine.bucket import Bucket, StoreLostError
from erasebench.errors import EraseBenchError

URL = "memory://bucket/a"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty one, of this process."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    return Bucket(URL)


def test_what_is_written_is_listed_and_read_below_its_own_prefix(bucket: Bucket) -> None:
    assert bucket.list() == {} and bucket.first() is None and bucket.read("x/one") is None
    Bucket("memory://bucket/ab").write("other", b"not below a")
    assert bucket.write("x/one", b"1") and bucket.write("x/y/two", b"22") and bucket.write("three", b"")
    assert sorted(bucket.list()) == ["three", "x/one", "x/y/two"] and sorted(bucket.list("x")) == ["x/one", "x/y/two"]
    assert bucket.list("nowhere") == {} and bucket.first() in ("three", "x")
    assert (bucket.read("x/y/two"), bucket.read("three")) == (b"22", b"")
    assert bucket.list()["x/y/two"]["size"] == 2
    assert Bucket(f"{URL}/").read("x/one") == b"1" and Bucket(f"{URL}/").url == URL


def test_a_new_object_takes_the_place_of_none(bucket: Bucket) -> None:
    assert bucket.write("one", b"first", new=True)
    assert not bucket.write("one", b"second", new=True) and bucket.read("one") == b"first"
    assert bucket.write("one", b"second") and bucket.read("one") == b"second"


def test_of_two_who_make_an_object_at_once_who_is_told_to_try_again_does(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, conflicts = MemoryFileSystem.pipe_file, iter([True, True, False])

    def pipe(*args: Any, **options: Any) -> None:
        if next(conflicts):
            answer = RuntimeError()
            answer.response = {"Error": {"Code": "ConditionalRequestConflict"}}  # type: ignore[attr-defined]
            raise OSError("conflict") from answer
        write(*args, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe)
    assert bucket.write("one", b"1", new=True) and bucket.read("one") == b"1"
    assert next(conflicts, None) is None


def test_files_go_up_and_come_down(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(bytes(range(256)))
    bucket.upload(tmp_path / "up", "x/one")
    assert bucket.download("x/one", tmp_path / "down") and (tmp_path / "down").read_bytes() == bytes(range(256))
    assert not bucket.download("x/two", tmp_path / "none")


def test_what_is_not_there_can_be_removed(bucket: Bucket) -> None:
    bucket.write("one", b"1")
    bucket.remove("one")
    bucket.remove("one")
    assert not bucket.list()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("refused"), f"{URL} cannot be reached: ConnectionError: refused; what is finished is kept"),
        (PermissionError("denied"), f"no permission for {URL}: PermissionError: denied; look at the credentials"),
    ],
)
def test_what_goes_wrong_on_the_way_is_said_in_one_line(
    error: Exception, said: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    (tmp_path / "up").touch()
    for name in ("find", "ls", "pipe_file", "get_file", "put_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, fail)
    calls: list[Callable[[], object]] = [
        bucket.list,
        bucket.first,
        lambda: bucket.write("one", b""),
        lambda: bucket.read("one"),
        lambda: bucket.upload(tmp_path / "up", "one"),
        lambda: bucket.remove("one"),
    ]
    for call in calls:
        with pytest.raises(StoreLostError, match=re.escape(said)) as raised:
            call()
        assert "\n" not in str(raised.value) and raised.value.__cause__ is error


def test_a_disk_that_is_full_here_is_no_fault_of_the_bucket(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail)
    with pytest.raises(OSError, match="No space left") as raised:
        bucket.download("one", tmp_path / "down")
    assert not isinstance(raised.value, EraseBenchError)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///tmp/a", "is a folder of this machine: name it without file://"),
        ("memry://a/b", "unknown protocol 'memry'; nearest: memory"),
        ("memory://", "names no bucket; write memory://bucket/prefix"),
        ("zip://a::memory://b/c.zip", "names several file systems; a store is in one"),
    ],
)
def test_what_is_no_url_of_a_bucket(url: str, said: str) -> None:
    with pytest.raises(EraseBenchError, match=re.escape(said)):
        Bucket(url)
