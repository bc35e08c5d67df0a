"""Files that are whole or not there: written under a temporary name, synced, renamed; and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from erasebench.errors import EraseBenchError

Place = Path | str
"""The place of a store: a folder, or the URL of a bucket."""
PARTIAL = ".partial"
"""The ending of temporary names."""
_TOKEN = secrets.token_hex(4)


def is_url(text: str) -> bool:
    """True if a text begins as URLs do: ``s3://``."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text) is not None


def parse_place(text: Any) -> Any:
    """A :data:`Place` of what a user gave: of a URL its text, of another text or path the path.

    Raises:
        EraseBenchError: it is empty, or a URL that lacks a slash.
    """
    if not isinstance(text, str) or is_url(text):
        return text
    if not text:
        raise EraseBenchError("the name of a store is empty")
    if protocol := re.match("(s3a?|gs|gcs|az|abfss?):/*", text):
        raise EraseBenchError(f"{text} is no URL of a store; write {protocol[1]}://bucket/prefix")
    return Path(text)


def read_regular(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, or is none: to read a pipe or a device may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device; write its content into a file")
    return path.read_bytes()


def read_file(path: Path) -> bytes:
    """All bytes of a file that a user names.

    Raises:
        EraseBenchError: they cannot be read.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise EraseBenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a path that holds NUL
        raise EraseBenchError(f"cannot read {str(path)!r}: {error}") from None


@contextmanager
def durably(path: Path) -> Iterator[BinaryIO]:
    """A stream to write a file to; a kill, or an error in the block, leaves the old file or the new one.

    Several processes may write a file at once: one of them stays.
    """
    partial = _partial(path)
    try:
        with open(partial, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):  # the error that is under way is the one to tell
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_hashed(path: Path, data: bytes) -> None:
    """Write a file :func:`durably` that :func:`read_hashed` reads: a SHA-256, and the data that it is of."""
    with durably(path) as stream:
        stream.write(hashlib.sha256(data).digest())
        stream.write(data)


def read_hashed(path: Path) -> bytes | None:
    """The data that :func:`write_hashed` wrote; None where there is no file, or one that is damaged."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, data = whole[:32], whole[32:]
    return data if hashlib.sha256(data).digest() == digest else None


def write_durably(path: Path, text: str) -> None:
    """Write a text file :func:`durably`."""
    with durably(path) as stream:
        stream.write(text.encode())


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder that appears whole or not at all; one that is there is replaced.

    Args:
        folder: the folder.
        write: makes a folder of the name that it is given, and fills it.
    """
    remove_partials(folder.parent)
    partial = _partial(folder)
    remove(partial)
    try:
        write(partial)
        commit_folder(partial, folder)
    except BaseException:
        with suppress(OSError):
            remove(partial)
        raise


def commit_folder(partial: Path, folder: Path) -> None:
    """Give a folder that is written its name, once all of it is on the disk; one that has the name is replaced."""
    sync_folder(partial)
    remove(folder)
    partial.rename(folder)
    sync(folder.parent)


def _partial(path: Path) -> Path:
    """The temporary name of a file or folder that this process writes; on other machines others have its number."""
    return path.with_name(f"{path.name}.{_TOKEN}.{os.getpid()}{PARTIAL}")


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder and in the folders there."""
    for path in (*folder.glob(f"*{PARTIAL}"), *folder.glob(f"*/*{PARTIAL}")):
        writer = re.fullmatch(rf".+\.(\d+){re.escape(PARTIAL)}", path.name)
        if writer and not is_running(int(writer[1])):
            remove(path)


def is_running(process: int) -> bool:
    """True if this machine has a process of a number, which may have ended without its parent asking how."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder; a file, or a link that leads to no folder, gives way to it."""
    if not path.is_dir():
        # Another process may make it at this moment: only what is no folder is removed.
        with suppress(OSError):
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Bring a folder with all that is in it to the disk."""
    for path in (*sorted(folder.rglob("*")), folder):
        sync(path)


def hash_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, all of which is read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_file_once(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, which this process reads again only if its size or time of change is another."""
    about = path.stat()
    return _hash_as_of(path, about.st_size, about.st_mtime_ns)


@cache
def _hash_as_of(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)


def hash_files(folder: Path, paths: Iterable[Path]) -> str:
    """Hexadecimal SHA-256 over the names, as a folder knows them, and the bytes of files in it, by name."""
    lines = (f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n" for path in sorted(paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_disk_full(error: BaseException) -> bool:
    """True if an error, or what caused it, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Libraries that do not write in Python, as safetensors, pass the system's words on in errors of their own.
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False


class DiskFullError(EraseBenchError):
    """There is no room left; what was finished is kept."""


def disk_full(place: str) -> DiskFullError:
    """The error for the user when :func:`is_disk_full`; ``place`` says whose disk it is."""
    return DiskFullError(
        f"the disk of {place} is full; free some space and run the same command again: what is finished is kept"
    )


_ADVICE = {
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "its disk is mounted for reading only; name another place",
    errno.EEXIST: "remove what is there, or name another place",
    errno.ENOTDIR: "remove the file that stands where a folder should be, or name another place",
    errno.EISDIR: "remove the folder that stands where a file should be, or name another place",
    errno.ELOOP: "remove the link that leads to itself, or name another place",
    errno.ENAMETOOLONG: "name a shorter one",
}


def cannot_write(what: str, error: OSError) -> EraseBenchError:
    """The error that tells the user of a place that cannot be written.

    Args:
        what: the place, as the user knows it: ``"the store some/where"``.
        error: what the system said; the path that it names is told too.
    """
    if is_disk_full(error):
        return disk_full(what)
    path = error.filename2 or error.filename
    at = "" if path is None or what.endswith(f" {path}") else f" at {path}"
    advice = _ADVICE.get(error.errno or 0, "see to it, or name another place")
    return EraseBenchError(f"{what} cannot be written{at}: {error.strerror or error}; {advice}")


def write_named(path: Path, text: str) -> None:
    """Write a text file where the user wants it, :func:`durably`; its folder is made.

    Raises:
        EraseBenchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text)
    except OSError as error:
        raise cannot_write(f"the file {path}", error) from error


def locate(what: str, path: Path) -> Path:
    """The absolute path of a place to write, which need not be there, without links.

    Args:
        what: the place, as the user knows it: ``"the store some/where"``.
        path: the place.

    Raises:
        EraseBenchError: the path leads nowhere: a link to itself, a name that is too long.
    """
    with suppress(FileNotFoundError):
        try:
            path.stat()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise cannot_write(what, error) from error
        except ValueError as error:  # a path that holds NUL
            raise EraseBenchError(f"{what!r} cannot be written: {error}") from None
    return Path(os.path.realpath(path))


def prepare_folder(out: Path) -> None:
    """Make a folder, make sure that it can be written, and clear it of what killed runs left half-written.

    Raises:
        EraseBenchError: it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
        remove_partials(out)
    except OSError as error:
        raise cannot_write(f"the output folder {out}", error) from error
