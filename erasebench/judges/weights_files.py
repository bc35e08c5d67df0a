"""Weight files that are no part of erasebench: where they are looked for, and whether they are the right ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from erasebench.errors import EraseBenchError
from erasebench.files import hash_file_once

FOLDER = "ERASEBENCH_WEIGHTS"
"""The environment variable that names the folder of weight files."""


def weights_folder() -> Path:
    """The folder in which weight files are looked for; it need not exist."""
    return Path(os.environ.get(FOLDER) or "~/.cache/erasebench/weights").expanduser()


@dataclass(frozen=True)
class WeightFile:
    """A file that is not part of erasebench.

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
        """Where the file is.

        Raises:
            EraseBenchError: it is nowhere, or is another file; the message gives the command that fetches it.
        """
        target = weights_folder() / self.name
        path = next((p for p in (target, *(folder / self.name for folder in self.elsewhere)) if p.is_file()), None)
        fetch = f"curl --fail --location --create-dirs --output '{target}' '{self.url}'"
        if path is None:
            raise missing(self.name, target, fetch)
        found = hash_file_once(path)
        if not found.startswith(self.sha256):
            raise EraseBenchError(
                f"{path} is not the file of {self.url}, but cut short or another one: its SHA-256 begins with "
                f"{found[:8]}, not with {self.sha256[:8]}; remove it, then: {fetch}"
            )
        return path

    def hash(self) -> str:
        """The SHA-256 of the file.

        Raises:
            EraseBenchError: as :meth:`find`.
        """
        return hash_file_once(self.find())


@dataclass(frozen=True)
class PackageFile:
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
        """Where the file is; the package is not imported.

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

    def hash(self) -> str:
        """The SHA-256 of the file.

        Raises:
            EraseBenchError: as :meth:`find`.
        """
        return hash_file_once(self.find())


def missing(weights: str, target: Path, fetch: str) -> EraseBenchError:
    """What to say where weights are missing: which, where they should be, and the command that fetches them."""
    return EraseBenchError(
        f"the weights {weights} are needed and not part of erasebench: {target} is missing (the environment variable "
        f"{FOLDER} names another folder); get them by: {fetch}"
    )
