"""A bucket: objects below a URL that fsspec reaches, such as ``s3://bucket/prefix``, ``gs://`` or ``az://``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from erasebench.errors import EraseBenchError, check_name, one_line
from erasebench.files import is_disk_full


class StoreLostError(EraseBenchError):
    """A store cannot be reached, or refuses something; what is finished is kept."""


class Bucket:
    """Objects below a URL.

    Args:
        url: such as ``s3://bucket/prefix``.

    Raises:
        EraseBenchError: nothing is known of its protocol, or the package that it needs is not there.  So say all
            methods if the bucket is not there, or cannot be reached: after the retries of the package.
    """

    def __init__(self, url: str) -> None:
        self._files, path = _connect(url)
        self.url, self._path = url.rstrip("/"), path.rstrip("/")

    def list(self, folder: str = "") -> dict[str, Mapping[str, Any]]:
        """The names of all objects below a folder, as :meth:`read` takes them, and what the bucket says of each."""
        with self._talking():
            try:
                entries = self._files.find(f"{self._path}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return {}
        return {name[len(self._path) + 1 :]: about for name, about in entries.items()}

    def first(self) -> str | None:
        """The name of some object, or of what is like a folder of them; None if there is nothing."""
        with self._talking():
            try:
                names = self._files.ls(self._path, detail=False)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None
        return next((PurePosixPath(name).name for name in names), None)

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if there is none."""
        with tempfile.TemporaryDirectory(prefix="erasebench-") as folder:
            return (Path(folder) / "object").read_bytes() if self.download(name, Path(folder) / "object") else None

    def write(self, name: str, data: bytes, new: bool = False) -> bool:
        """Write an object in one step.

        Args:
            name: its name.
            data: what it is to hold.
            new: only if there is none.

        Returns:
            Whether it was written.
        """
        with self._talking():
            try:
                self._files.pipe_file(self._at(name), data, mode="create" if new else "overwrite")
            except FileExistsError:
                return False
            except OSError as error:
                # Of two who write at once, S3 may tell both to try again.
                if not new or _code(error) != "ConditionalRequestConflict":
                    raise
                return self.write(name, data, new)
        return True

    def download(self, name: str, path: Path) -> bool:
        """Write what an object holds into a file; False if there is no such object."""
        with self._talking():
            try:
                self._files.get_file(self._at(name), str(path))
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return False
        return True

    def upload(self, path: Path, name: str) -> None:
        """Make an object of a file."""
        with self._talking():
            self._files.put_file(str(path), self._at(name))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._talking(), suppress(FileNotFoundError):
            self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Say in our words what goes wrong between here and the bucket."""
        try:
            yield
        except EraseBenchError:
            raise
        except FileNotFoundError as error:
            raise StoreLostError(f"there is no bucket for {self.url}: {one_line(error)}; make it first") from error
        except PermissionError as error:
            raise StoreLostError(
                f"no permission for {self.url}: {one_line(error)}; look at the credentials that its package finds"
            ) from error
        except Exception as error:  # each package has errors of its own
            if is_disk_full(error):
                raise
            raise StoreLostError(
                f"{self.url} cannot be reached: {one_line(error)}; what is finished is kept, and the same command goes "
                "on from there"
            ) from error


def _code(error: BaseException) -> str:
    """The code that S3 gives an error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _connect(url: str) -> tuple[Any, str]:
    """The file system that a URL is of, and the path there."""
    import fsspec

    protocol = url.partition("://")[0]
    if protocol in ("file", "local"):
        raise EraseBenchError(f"{url} is a folder of this machine: name it without {protocol}://")
    check_name("protocol", protocol, fsspec.available_protocols(), url)
    if "::" in url:
        raise EraseBenchError(f"{url} names several file systems; a store is in one")
    try:
        files, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = "pip install 'erasebench[s3]'" if protocol in ("s3", "s3a") else one_line(error)
        raise EraseBenchError(f"{url} needs a package that is not there: {extra}") from error
    except ValueError as error:
        raise EraseBenchError(f"{url} is no URL of a store: {one_line(error)}") from error
    if not path.strip("/"):
        raise EraseBenchError(f"{url} names no bucket; write {protocol}://bucket/prefix")
    return files, path
