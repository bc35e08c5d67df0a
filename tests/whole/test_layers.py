"""The order of the files: what the contracts in ``pyproject.toml`` cannot see of imports, and where tests stand."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("erasebench", "methods", "attacks") for path in sorted((ROOT / folder).rglob("*.py"))]
PLUGINS = ("erasebench.methods.", "erasebench.attacks.", "methods.", "attacks.")


def plugins_imported(source: str, package: str) -> list[str]:
    """The methods and attacks, as installed or as folders, that a file of a package imports, wherever in it."""
    return [name for name in imports(source, package) if f"{name}.".startswith(PLUGINS)]


def imports(source: str, package: str) -> Iterator[str]:
    """What a file imports: modules, and whatever is taken out of one, with its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_methods_and_attacks_are_found_by_name_and_imported_by_nobody(path: Path) -> None:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert not plugins_imported(path.read_text(encoding="utf-8"), package)


@pytest.mark.parametrize(
    "line",
    [
        "import erasebench.methods.esd",
        "from erasebench.methods.esd import ESD",
        "from erasebench import methods",
        "from .esd import ESD",
        "from . import esd",
        "from methods.esd import ESD",
        "def f():\n    from erasebench.attacks import suffix",
    ],
)
def test_an_import_of_a_method_is_seen(line: str) -> None:
    assert plugins_imported(line, "methods")


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("erasebench", exclude_type_checking_imports=True, cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_every_module_stands_in_a_layer() -> None:
    """But for what holds the names of its package alone."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [order] = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    layers = tuple(f"{name.strip()}." for layer in order["layers"] for name in layer.split("|"))
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    assert {name for name in modules if not f"{name}.".startswith(layers)} == {"erasebench", "erasebench.picturebook"}


def test_docstrings_open_with_a_noun_or_an_imperative() -> None:
    """Those of constants as well; not those of Picturebook's world, whose source is part of its images' identity."""
    clauses = re.compile(r"(What|Whether|How|Where|Which|Who|When)\b")
    for path in (path for path in FILES if path.parent.name != "world"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Expr)]
        constants = [node.value for node in nodes if isinstance(node.value, ast.Constant)]
        assert not [f"{path}:{one.lineno}" for one in constants if clauses.match(str(one.value))]


def test_no_module_is_too_long_to_be_read() -> None:
    """But for those of Picturebook's world, each of which draws many things alike."""
    files = [*FILES, *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path for path in lengths if lengths[path] > 400} <= {
        f"erasebench/picturebook/world/{name}.py" for name in ("objects", "people")
    }


MIRRORED = ("erasebench", "methods", "attacks", "benchmarks")
"""Folders each of whose modules has a file of tests of its own."""


def modules() -> Iterator[str]:
    """All that are mirrored; ``benchmarks/perf`` holds tests itself."""
    for path in (path for folder in MIRRORED for path in (ROOT / folder).rglob("*.py")):
        if not path.name.startswith("__") and not path.is_relative_to(ROOT / "benchmarks" / "perf"):
            yield path.relative_to(ROOT).as_posix()


def place_of_tests(module: str) -> str:
    """The file of a module's tests: ``tests/a/test_b.py`` of ``erasebench/a/_b.py``; other folders keep their name."""
    folder, _, name = module.removeprefix("erasebench/").rpartition("/")
    return "/".join(filter(None, ("tests", folder, f"test_{name.lstrip('_')}")))


def misplaced(modules: Iterable[str], tests: Iterable[str]) -> list[str]:
    """Modules without tests, and files of tests that are of no module and not in ``tests/whole``."""
    known = {place_of_tests(module): module for module in modules}
    there = {path for path in tests if path.rpartition("/")[0] != "tests/whole"}
    return [
        *(f"{module} has no {place}" for place, module in sorted(known.items()) if place not in there),
        *(f"{path} is of no module: tests of several are in tests/whole" for path in sorted(there - known.keys())),
    ]


def test_every_module_has_its_tests_and_every_file_of_tests_its_module() -> None:
    tests = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert misplaced(modules(), tests) == []


def test_a_module_without_tests_and_tests_without_a_module_are_seen() -> None:
    own = ["erasebench/api.py", "erasebench/a/_b.py", "methods/c.py"]
    tests = ["tests/test_api.py", "tests/a/test_b.py", "tests/methods/test_c.py", "tests/whole/test_anything.py"]
    assert misplaced(own, tests) == []
    assert misplaced([*own, "erasebench/a/d.py"], tests) == ["erasebench/a/d.py has no tests/a/test_d.py"]
    for path in ("tests/test_b.py", "tests/whole/deeper/test_e.py", "tests/erasebench/test_api.py"):
        assert misplaced(own, [*tests, path]) == [f"{path} is of no module: tests of several are in tests/whole"]
