"""Files that have names: presets and suites, of this package and of others.  None is read here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from erasebench.errors import EraseBenchError
from erasebench.registry import data_files, warn

PRESETS = Path(__file__).parent / "presets"
SUITES = "erasebench.suite_files"
"""The folder ``benchmarks/suites/`` under its installed name."""


def preset_files() -> dict[str, Path]:
    """All presets: the packaged ones, and those of other packages, in the entry-point group ``erasebench.presets``.

    A preset may hold any key of the configuration: with methods and concepts it is a whole suite.
    One that has the name of another is left out with a warning.
    """
    return files_by_name("preset", PRESETS.glob("*.yaml"), "erasebench.presets")


def suite_files() -> dict[str, Path]:
    """All suites by name: the packaged ones, and those of other packages, in the group ``erasebench.suites``.

    One that has the name of another is left out with a warning.

    Raises:
        EraseBenchError: the package of suites is not there.
    """
    spec = importlib.util.find_spec(SUITES)
    if spec is None or not spec.submodule_search_locations:
        raise EraseBenchError(f"the package {SUITES} is missing; install erasebench again")
    own = [path for folder in spec.submodule_search_locations for path in Path(folder).glob("*.yaml")]
    return files_by_name("suite", own, "erasebench.suites")


def files_by_name(what: str, own: Iterable[Path], group: str) -> dict[str, Path]:
    """This package's YAML files and those of other packages, by name; one that has the name of another is left out.

    Args:
        what: they are, for the warning.
        own: files of this package, which come first.
        group: of other packages' entry points.
    """
    files: dict[str, Path] = {}
    for path in (*sorted(own), *data_files(group)):
        if path.stem in files:
            warn(f"the {what} {path} is left out: another is called '{path.stem}', {files[path.stem]}")
        files.setdefault(path.stem, path)
    return files
