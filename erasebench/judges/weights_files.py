"""Weight files that are no part of erasebench: where they are looked for, and whether they are the right ones."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from erasebench.errors import EraseBenchError
from erasebench.files import PARTIAL, hash_file, hash_file_once, sync

Progress = Callable[[int, int | None], None]
TIMEOUT = 60
"""Seconds without a byte after which a download is given up."""
CHUNK = 2**20
FOLDER = "ERASEBENCH_WEIGHTS"
"""The environment variable that names the folder of weight files."""


def weights_folder() -> Path:
    """The folder in which weight files are looked for; it need not exist."""
    return Path(os.environ.get(FOLDER) or "~/.cache/erasebench/weights").expanduser()


class Weights(ABC):
    """Weights that are no part of erasebench; as text, what they are and where they come from."""

    @abstractmethod
    def find(self) -> Path:
        """The path of the weights.

        Raises:
            EraseBenchError: they are missing or other ones; the message gives the command that brings them.
        """

    @abstractmethod
    def fetch(self, folder: Path, on_progress: Progress) -> Path:
        """Bring them into a folder, unless they are there.

        Args:
            folder: where to.
            on_progress: told bytes done and bytes in all, which are None where the server does not say.

        Raises:
            EraseBenchError: they cannot be had.
        """

    def hash(self) -> str:
        """The SHA-256 of the file.

        Raises:
            EraseBenchError: as :meth:`find`.
        """
        return hash_file_once(self.find())


@dataclass(frozen=True)
class WeightFile(Weights):
    """A file to download.

    Attributes:
        name: its name in the folder, the one that its download has.
        url: where to get it.
        sha256: how its SHA-256 begins; of some files the publisher gives only the first digits.
        elsewhere: folders in which another program may have put it; looked into after the user's own.
    """

    name: str
    url: str
    sha256: str
    elsewhere: tuple[Path, ...] = ()

    def __str__(self) -> str:
        """Its name and where it comes from."""
        return f"{self.name} from {self.url}"

    def find(self) -> Path:
        """The path of the file.

        Raises:
            EraseBenchError: it is nowhere, or is another file; the message gives the command that fetches it.
        """
        target = weights_folder() / self.name
        path = next((p for p in (target, *(folder / self.name for folder in self.elsewhere)) if p.is_file()), None)
        fetch = f"curl --fail --location --create-dirs --output '{target}' '{self.url}'"
        if path is None:
            raise missing(self.name, target, fetch)
        wrong = self._wrong(path, hash_file_once(path))
        if wrong:
            raise EraseBenchError(f"{wrong}; remove it, then: {fetch}")
        return path

    def fetch(self, folder: Path, on_progress: Progress) -> Path:
        """Download the file into a folder and check its hash; what a download that broke off has left is continued.

        Raises:
            EraseBenchError: another file of that name is there, the server cannot be reached or breaks off, or what
                comes is another file, which is removed.
        """
        from http.client import HTTPException

        target = folder / self.name
        if target.is_file():
            wrong = self._wrong(target, hash_file(target))
            if wrong:
                raise EraseBenchError(f"{wrong}; remove it, then fetch it again")
            return target
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + PARTIAL)
        try:
            self._download(partial, on_progress)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            hint = "; what came is kept, to go on from" if partial.is_file() else ""
            raise EraseBenchError(
                f"cannot fetch {self.name} from {self.url} into {folder}: {reason}{hint}; without a network, bring the "
                "file there from elsewhere"
            ) from error
        wrong = self._wrong(partial, hash_file(partial))
        if wrong:
            partial.unlink()
            raise EraseBenchError(f"{wrong}; it is removed: fetch it again, or ask who runs {self.url}")
        sync(partial)
        partial.replace(target)
        sync(folder)
        return target

    def _download(self, partial: Path, on_progress: Progress) -> None:
        """Append what is still to come, or write all where the server does not continue."""
        import http.client
        import urllib.error
        import urllib.request

        done = partial.stat().st_size if partial.is_file() else 0
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={done}-"} if done else {})
        try:
            answer = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            return  # all of it is there; its hash tells whether it is right
        with answer:
            continued = answer.status == http.client.PARTIAL_CONTENT
            done = done if continued else 0
            length = answer.headers["Content-Length"]
            total = None if length is None else done + int(length)
            with open(partial, "ab" if continued else "wb") as stream:
                while chunk := answer.read(CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    on_progress(done, total)
        if total is not None and done < total:
            raise ConnectionError(f"the server broke off after {done:,} of {total:,} bytes")

    def _wrong(self, path: Path, digest: str) -> str:
        """The fault of a file of this SHA-256; '' if it is the right one."""
        if digest.startswith(self.sha256):
            return ""
        return (
            f"{path} is not the file of {self.url}, but cut short or another one: its SHA-256 begins with "
            f"{digest[:8]}, not with {self.sha256[:8]}"
        )


@dataclass(frozen=True)
class PackageFile(Weights):
    """A weight file that a package of the Python package index ships: nothing has to be fetched but the package.

    Attributes:
        package: the package's name there.
        requirement: what pip is to install, such as ``nudenet>=3.4,<4``.
        module: the name by which Python imports it.
        name: the file's path in the folder of the module.
        sha256: how its SHA-256 begins; '' where versions of the package ship different ones.
    """

    package: str
    requirement: str
    module: str
    name: str
    sha256: str = ""

    def __str__(self) -> str:
        """Its name and the command that brings it."""
        return f"{Path(self.name).name} of the package {self.package}: {self.install}"

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return f"pip install '{self.requirement}'"

    def version(self) -> str:
        """The version of the installed package.

        Raises:
            EraseBenchError: it is not installed.
        """
        try:
            return version(self.package)
        except PackageNotFoundError:
            raise EraseBenchError(f"the package {self.package} is needed and not installed: {self.install}") from None

    def find(self) -> Path:
        """The path of the file; the package is not imported.

        Raises:
            EraseBenchError: the package is not installed, or its file is missing or another one.
        """
        self.version()
        spec = find_spec(self.module)
        path = Path(spec.origin).parent / self.name if spec and spec.origin else None
        again = f"{self.install} --force-reinstall"
        if path is None or not path.is_file():
            raise EraseBenchError(f"the package {self.package} lacks its file {self.name}: {again}")
        if not hash_file_once(path).startswith(self.sha256):
            raise EraseBenchError(
                f"{path} is cut short or another file than the package {self.package} ships: its SHA-256 begins with "
                f"{hash_file_once(path)[:8]}, not with {self.sha256[:8]}: {again}"
            )
        return path

    def fetch(self, folder: Path, on_progress: Progress) -> Path:
        """The path of the file: it comes with its package, and into no folder.

        Raises:
            EraseBenchError: as :meth:`find`, with the command that installs the package.
        """
        return self.find()


@dataclass(frozen=True)
class OwnFile(Weights):
    """A weight file that nobody publishes, and that users make themselves.

    Attributes:
        name: its name in the folder.
        command: the one that makes it, without the option that says where to.
        check: raises :class:`EraseBenchError` unless a file is such a one.
    """

    name: str
    command: str
    check: Callable[[Path], object]

    def __str__(self) -> str:
        """Its name and the command that makes it."""
        return f"{self.name}, made by: {self.command}"

    def find(self) -> Path:
        """The path of the file.

        Raises:
            EraseBenchError: it is missing, cut short or another one; the message gives the command that makes it.
        """
        path = weights_folder() / self.name
        if not path.is_file():
            raise missing(self.name, path, f"{self.command} --out '{path}'")
        try:
            self.check(path)
        except EraseBenchError as error:
            raise EraseBenchError(f"{error}; remove it, then: {self.command} --out '{path}'") from None
        return path

    def fetch(self, folder: Path, on_progress: Progress) -> Path:
        """The path of the file: there is none to download.

        Raises:
            EraseBenchError: as :meth:`find`.
        """
        return self.find()


def missing(weights: str, target: Path, fetch: str) -> EraseBenchError:
    """The error for missing weights: which ones, where they should be, and the command that fetches them."""
    return EraseBenchError(
        f"the weights {weights} are needed and not part of erasebench: {target} is missing (the environment variable "
        f"{FOLDER} names another folder); get them by: {fetch}"
    )
