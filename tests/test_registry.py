from __future__ import annotations

import ast
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from erasebench.concepts import load_catalogue
from erasebench.docstrings import first_line
from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.plugins import Method
from erasebench.registry import BUILT_IN, JUDGES, KINDS, METHODS, Registry, load_file, registered_summaries
from tests.engine.runs import done, forget_plugins, places, with_packages

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in package, installed into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("installed")
    shutil.copytree(ROOT / "tests" / "plugin", source)  # a build leaves files in its folder
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


def erasebench(path: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that sees the packages of a folder."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-m", "erasebench", *map(str, args)], env=env, capture_output=True, text=True
    )


@pytest.mark.slow
def test_plug_ins_of_a_package_are_listed_with_where_they_come_from(installed: Path) -> None:
    listed = erasebench(installed, "list", "methods")
    assert listed.returncode == 0, listed.stderr
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed.stdout.splitlines()}
    assert lines["example-blank"] == "erasebench-example: Scale the bias of the U-Net's last layer."
    assert lines["example-broken"] == "erasebench-example"
    assert lines["sd"] == "The unerased model."
    everything = erasebench(installed, "list").stdout
    for name, what in {
        "example-suffix": "Append a word.",
        "example-brightness": "The mean of all pixels, in [0, 1].",
        "example_contrast": "The highest score less the lowest.",
        "daylight": "",
    }.items():
        line = next(line for line in everything.splitlines() if line.split()[:1] == [name])
        assert line.endswith(f"  erasebench-example: {what}" if what else '  phrase "daylight", picturebook')
    assert "  daylight" in everything and "  example-suite" in everything


def test_a_package_runs_and_its_broken_part_says_what_is_wrong(installed: Path, tmp_path: Path) -> None:
    run = ("run", "--preset", "example-suite", "--workers", "1", *places(tmp_path))
    broken = with_packages(installed, *run, "--methods", "example-blank,example-broken")
    assert (broken.returncode, broken.stdout) == (2, "")
    assert broken.stderr == (
        "error: the method 'example-broken' of erasebench-example cannot be loaded: "
        "ImportError: libexample.so.3 is missing\n"
    )
    fine = with_packages(installed, *run)
    assert fine.returncode == 0, fine.stderr
    assert "example-brightness 1: bright >= 0.5" in (tmp_path / "out" / "table.csv").read_text()
    assert " Contrast | judge |" in (tmp_path / "out" / "table.md").read_text()
    erased = next(line for line in done(tmp_path) if line["title"] == "example-blank[scale=0] daylight")
    assert erased["parameters_changed"] > 0


def test_a_list_imports_neither_torch_nor_plug_ins(installed: Path) -> None:
    code = (
        "import sys\nfrom erasebench.cli import main\n"
        "try: main(['list'])\nexcept SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'diffusers', 'transformers', 'erasebench_example'} & set(sys.modules)\n"
        "assert not {'numpy', 'pandas', 'scipy', 'statsmodels'} & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('erasebench.methods.')]"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, stdout=subprocess.DEVNULL)


def test_a_list_takes_half_a_second_of_a_processor(installed: Path) -> None:
    """Of one that adds up twenty million numbers in a quarter of a second; others are as much slower at both."""

    def seconds(act: Callable[[], subprocess.CompletedProcess[str]]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert act().returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def add_up() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-S", "-c", "sum(range(20_000_000))"], text=True)

    listing = min(seconds(lambda: erasebench(installed, "list")) for _ in range(3))
    assert listing < 2 * min(seconds(add_up) for _ in range(3))


def test_every_built_in_plug_in_is_where_its_name_says() -> None:
    for registry in KINDS.values():
        for name in registry.names():
            if registry.origin(name) == "built-in":
                assert registry.get(name).name == name


def test_names_match_wildcards() -> None:
    assert METHODS.names("esd*") == ["esd-u", "esd-x"]
    assert METHODS.names("[!e]*") == sorted(set(METHODS.names()) - {"esd-u", "esd-x"})
    assert METHODS.names("nothing*") == []


def test_one_class_may_have_several_names_with_presets() -> None:
    u, x = METHODS.get("esd-u"), METHODS.get("esd-x")
    assert u.make is x.make
    assert (u.presets, x.presets) == ({"parameters": "esd-u"}, {"parameters": "esd-x"})


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown judge 'nudnet'; nearest: nudenet"):
        JUDGES.get("nudnet")


def test_names_are_read_from_decorators_without_running_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "raise SystemExit\n"
        "@METHODS.register('a', x=1)\n@METHODS.register('b')\n@dataclass(frozen=True)\nclass A: ...\n"
        "@dataclass\n@registry.METHODS.register('c')\nclass C(Base, metaclass=Meta):\n    x: int = 1\n"
        "@METHODS.register(name)\nclass B: ...\n@register('d')\nclass C: ...\n@METHODS.register()\nclass D: ...\n"
        "@METHODS.register('e')\ndef e(): ...\n@METHODS.register('f')\nclass F: ...\n"
    )
    assert list(registered_summaries(path)) == ["a", "b", "c", "f"], "a function is no plug-in"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_of_built_in_files_is_what_they_register(kind: str) -> None:
    """Their whole text, parsed, has the same decorators with the same classes' docstrings below them."""
    registry = KINDS[kind]
    found: dict[str, str] = {}
    for path in [path for folder in import_module(registry.package).__path__ for path in Path(folder).glob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".register"):
                    assert isinstance(node, ast.ClassDef) and isinstance(call.args[0], ast.Constant)
                    found[str(call.args[0].value)] = first_line(ast.get_docstring(node))
    assert found and set(found) == {name for name in registry.names() if registry.origin(name) == BUILT_IN}
    for name, summary in found.items():
        assert registry.summary(name).startswith(summary)


def test_summaries_are_read_without_running_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "raise SystemExit\n"
        '@METHODS.register("a", x=1, y="z")\n@METHODS.register("b")\nclass A:\n'
        '    """Do ``it`` by :data:`WAYS`.\n\n    M"""\n'
        '@METHODS.register("c", x=1)\nclass C:\n    x = 1\n'
    )
    assert registered_summaries(path) == {"a": "Do it by WAYS. (x=1, y=z)", "b": "Do it by WAYS.", "c": ""}


@pytest.fixture
def registry() -> Registry[Method]:
    return Registry("erasebench.plugins:Method", "method", "erasebench.no-such-group", "erasebench.methods")


class Nothing(Method):
    def erase(self, model: Any, concepts: Any, context: Any) -> Any:
        raise AssertionError


@dataclass(frozen=True)
class One(Nothing):
    x: int = 1


@dataclass(frozen=True)
class Two(Nothing):
    x: int = 2


def test_two_classes_cannot_have_one_name(registry: Registry[Method]) -> None:
    registry.register("mine")(One)
    registry.register("mine", x=3)(One)
    with pytest.raises(EraseBenchError, match="two methods are called 'mine'"):
        registry.register("mine")(Two)
    same_name = type("One", (Nothing,), {"__module__": "elsewhere"})
    with pytest.raises(EraseBenchError, match="two methods are called 'mine'"):
        registry.register("mine")(same_name)
    with pytest.raises(EraseBenchError, match="two methods are called 'uce': the built-in one and"):
        registry.register("uce")(One)
    assert registry.origin("mine") == One.__module__


def test_a_class_that_is_none_of_the_kind_is_told_what_to_inherit_from(registry: Registry[Method]) -> None:
    @dataclass(frozen=True)
    class Old:
        def erase(self, model: Any, concepts: Any, context: Any) -> Any:
            raise AssertionError

    class Lacking(Method):
        """A method that cannot erase."""

    with pytest.raises(EraseBenchError, match=r"'old' .*Old.* does not inherit from erasebench.plugins.Method; let"):
        registry.register("old")(Old)
    with pytest.raises(EraseBenchError, match=r"'lacking' .*Lacking.* lacks what .*plugins.Method asks for: erase$"):
        registry.register("lacking")(Lacking)
    assert not registry.loaded


def test_an_entry_point_of_the_old_kind_is_told_what_to_inherit_from(
    registry: Registry[Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = (EntryPoint("old", "fractions:Fraction", "g"),)
    monkeypatch.setattr("erasebench.registry.entry_points", lambda group: points)
    with pytest.raises(
        EraseBenchError, match=r"the method 'old' .*Fraction.* does not inherit from erasebench.plugins"
    ):
        registry.get("old")


def test_two_packages_cannot_have_one_name(registry: Registry[Method], monkeypatch: pytest.MonkeyPatch) -> None:
    points = (
        EntryPoint("mine", "package_a.x:X", "g"),
        EntryPoint("mine", "package_b:X", "g"),
        EntryPoint("uce", "c:X", "g"),
    )
    monkeypatch.setattr("erasebench.registry.entry_points", lambda group: points)
    assert registry.origin("mine") == "package_a.x and package_b"
    with pytest.raises(EraseBenchError, match=r"two methods are called 'mine', of package_a.x and package_b; uninst"):
        registry.get("mine")
    with pytest.raises(EraseBenchError, match="two methods are called 'uce', of erasebench and c; uninstall one"):
        registry.get("uce")


def test_a_missing_package_is_said() -> None:
    with pytest.raises(EraseBenchError, match=r"the package erasebench.nothing is missing; install erasebench again"):
        Registry("erasebench.plugins:Method", "method", "g", "erasebench.nothing").names()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    forget_plugins()


def plugin_file(path: Path, name: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "from dataclasses import dataclass\nfrom erasebench.plugins import Method\n"
        "from erasebench.registry import METHODS\n"
        f"@METHODS.register('{name}')\n@dataclass(frozen=True)\nclass Mine(Method):\n    x: int = 1\n"
        "    def erase(self, model, concepts, context): ...\n"
    )
    return path


def test_a_file_registers_itself_any_number_of_times(files: Path) -> None:
    path = plugin_file(files / "mine.py", "from-a-file")
    for _ in range(2):
        load_file(path)
    made: Any = METHODS.get("from-a-file").make()
    assert made.x == 1
    assert METHODS.origin("from-a-file") == "erasebench_plugin_mine"


def test_two_files_of_one_name_are_not_confused(files: Path) -> None:
    load_file(plugin_file(files / "a" / "mine.py", "from-a"))
    with pytest.raises(EraseBenchError, match=r"two plug-in files are called mine.py: .*; rename one"):
        load_file(plugin_file(files / "b" / "mine.py", "from-b"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist or is no Python file"),
        ("def", "cannot be loaded: .*SyntaxError"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("import sys; sys.exit(0)", "cannot be loaded: SystemExit: 0"),
        ("from erasebench import EraseBenchError\nraise EraseBenchError('its own')", "^its own$"),
    ],
)
def test_a_file_that_does_not_load(content: str | None, message: str, files: Path) -> None:
    path = files / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EraseBenchError, match=message):
        load_file(path)
    plugin_file(path, "repaired")
    load_file(path)


def test_a_built_in_file_that_is_no_python_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some_methods").mkdir()
    (tmp_path / "some_methods" / "__init__.py").touch()
    (tmp_path / "some_methods" / "unfinished.py").write_text("@METHODS.register('unfinished'\nclass Unfinished:\n")
    plugin_file(tmp_path / "some_methods" / "mine.py", "finished")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Registry("erasebench.plugins:Method", "method", "g", "some_methods").names() == ["finished"]
    told = capsys.readouterr().err
    assert told.count("warning:") == 1 and "unfinished.py is left out: " in told and "SyntaxError" in told


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package with concepts, in a folder of its own and in one that is not there."""
    folder = tmp_path / "another_package"
    (folder / "data").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = (EntryPoint("good", "another_package.data", "g"), EntryPoint("lost", "another_package.nowhere", "g"))
    monkeypatch.setattr("erasebench.registry.entry_points", lambda group: points)
    return folder / "data"


GOOD = """
concepts:
  %s:
    kind: object
    phrase: a lamp
    views:
      picturebook: {judge: clip-phrase, label: lamp, naming: [a photo of a lamp]}
"""


def test_a_wrong_concept_file_of_another_package_is_left_out(
    package: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (package / "a.yaml").write_text(GOOD % "lamp")
    (package / "b.yaml").write_text("concepts: [")
    (package / "c.yaml").write_text(GOOD % "church")
    assert {"lamp", "church"} <= set(load_catalogue().names())
    assert load_catalogue().get("church").phrase == "church"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(line.startswith("warning: ") for line in told), told
    assert "lost = another_package.nowhere" in told[0] and "it names no package" in told[0]
    assert f"{package / 'b.yaml'}: " in told[1] and "not valid YAML" in told[1]
    assert f"{package / 'c.yaml'}: concept 'church' is already in" in told[2]
    own = tmp_path / "own.yaml"
    own.write_text("concepts: [")
    with pytest.raises(EraseBenchError, match=r"own\.yaml: line 2: not valid YAML"):
        load_catalogue([own])
