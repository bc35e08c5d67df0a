"""Plug-ins: found by name without importing them, loaded when they are used.

A plug-in registers itself where it is defined::

    @METHODS.register("esd-u", parameters="esd-u")
    @METHODS.register("esd-x", parameters="esd-x")
    @dataclass(frozen=True)
    class ESD(Method): ...

It is found in one of three places: a file of the registry's own package (``methods/`` for methods), whose decorators
are read without running it; the entry points of an installed package, in the registry's group; or a file that the
user names (``--plugin my_method.py``).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, cached_property
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from erasebench.docstrings import first_line
from erasebench.errors import EraseBenchError, check_name, one_line
from erasebench.terminal import say

if TYPE_CHECKING:
    from erasebench.metrics.metric import Metric
    from erasebench.plugins import Attack, Judge, Method

T = TypeVar("T")
C = TypeVar("C", bound=type)

BUILT_IN = "built-in"
"""The origin of erasebench's own plug-ins."""
PLUGIN_PREFIX = "erasebench_plugin_"
"""The name of the module of a user's own file, before the file's name."""


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """A registered class and what this name of it presets.

    Attributes:
        name: what users write.
        make: the class.
        presets: its hyper-parameters under this name, where they differ from the class's own defaults.
    """

    name: str
    make: Callable[..., T]
    presets: Mapping[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """All plug-ins of one kind.

    Args:
        base: the class that they inherit from, as ``"module:Class"``: it is imported when there is one to look at.
        what: the kind, for messages: "method".
        group: the entry-point group of other packages; its names are the plug-ins' names.
        package: the package whose files hold the built-in ones.
    """

    def __init__(self, base: str, what: str, group: str, package: str) -> None:
        self._base, self.what, self.group, self.package = base, what, group, package
        self.loaded: dict[str, Plugin[T]] = {}
        self.broken: dict[str, str] = {}
        """Entry points that could not be loaded, with the reason; the others work on."""

    @property
    def base(self) -> type:
        """The class that plug-ins inherit from."""
        module, _, name = self._base.partition(":")
        base: type = getattr(importlib.import_module(module), name)
        return base

    def register(self, name: str, **presets: Any) -> Callable[[C], C]:
        """Decorate a class to make it known as ``name``.

        Raises:
            EraseBenchError: another class has this name, or the class is none of the kind.
        """

        def decorate(plugin_class: C) -> C:
            self._check_kind(name, plugin_class)
            known, home = self.loaded.get(name), getattr(plugin_class, "__module__", None)
            if known and not is_same_class(known.make, plugin_class):
                raise EraseBenchError(f"two {self.what}s are called '{name}': {known.make!r} and {plugin_class!r}")
            if self._built_in.get(name, home) != home:
                raise EraseBenchError(f"two {self.what}s are called '{name}': the built-in one and {plugin_class!r}")
            self.loaded[name] = Plugin(name, plugin_class, presets)
            return plugin_class

        return decorate

    def _check_kind(self, name: str, plugin_class: Any) -> None:
        base = f"{self.base.__module__}.{self.base.__name__}"
        if not (isinstance(plugin_class, type) and issubclass(plugin_class, self.base)):
            raise EraseBenchError(
                f"the {self.what} '{name}' ({plugin_class!r}) does not inherit from {base}; let its class do so, which "
                "also says what it has to have"
            )
        if inspect.isabstract(plugin_class):
            methods = ", ".join(sorted(vars(plugin_class)["__abstractmethods__"]))
            raise EraseBenchError(f"the {self.what} '{name}' ({plugin_class!r}) lacks what {base} asks for: {methods}")

    def names(self, pattern: str = "*") -> list[str]:
        """The names that match a wildcard pattern, sorted; nothing is imported."""
        elsewhere = (point.name for point in self._elsewhere)
        return sorted(n for n in {*self._built_in, *elsewhere, *self.loaded} if fnmatchcase(n, pattern))

    def get(self, name: str) -> Plugin[T]:
        """Load a plug-in.

        Raises:
            UnknownNameError: no such name, with the nearest.
            EraseBenchError: the plug-in of another package is broken; the message ends with its own error.
        """
        if name not in self.loaded:
            check_name(self.what, name, self.names())
            points = [point for point in self._elsewhere if point.name == name]
            homes = [*(["erasebench"] if name in self._built_in else []), *map(_package, points)]
            if len(homes) > 1:
                raise EraseBenchError(f"two {self.what}s are called '{name}', of {' and '.join(homes)}; uninstall one")
            if name in self._built_in:
                importlib.import_module(self._built_in[name])
            else:
                self._load(points[0])
        return self.loaded[name]

    def origin(self, name: str) -> str:
        """The origin of a name: :data:`BUILT_IN`, the distribution that declares it, or the file's module."""
        if name in self._built_in:
            return BUILT_IN
        points = [_package(point) for point in self._elsewhere if point.name == name]
        return " and ".join(points) or str(self.loaded[name].make.__module__)

    def summary(self, name: str) -> str:
        """The summary of a plug-in in one line: the first of its docstring, and what this name of it presets.

        It is read without importing the plug-in; '' where it has none or its file cannot be found.
        """
        if name in self._built_in:
            return self._files[name][1]
        if name in self.loaded:
            return first_line(self.loaded[name].make.__doc__)
        point = next((point for point in self._elsewhere if point.name == name), None)
        path = _module_file(point.module) if point else None
        return class_summary(path, point.attr) if point and path else ""

    def is_foreign(self, name: str) -> bool:
        """True if an installed package other than this one declares a name."""
        return any(point.name == name for point in self._elsewhere)

    @cached_property
    def _built_in(self) -> dict[str, str]:
        """The modules of the built-in plug-ins."""
        return {name: module for name, (module, _) in self._files.items()}

    @cached_property
    def _files(self) -> dict[str, tuple[str, str]]:
        """The built-in plug-ins' modules and summaries."""
        spec = importlib.util.find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        if not folders:
            raise EraseBenchError(f"the package {self.package} is missing; install erasebench again")
        modules: dict[str, tuple[str, str]] = {}
        for path in sorted(p for folder in folders for p in Path(folder).glob("*.py")):
            try:
                summaries = registered_summaries(path)
            except SyntaxError as error:
                self.broken[path.stem] = one_line(error)
                warn(f"{path} is left out: {self.broken[path.stem]}")
                continue
            modules.update({name: (f"{self.package}.{path.stem}", summary) for name, summary in summaries.items()})
        return modules

    @cached_property
    def _elsewhere(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def _load(self, point: EntryPoint) -> None:
        try:
            plugin_class = point.load()
        except (Exception, SystemExit) as error:
            # Whatever another package's import raises is that package's trouble: it is reported, the rest works.
            self.broken[point.name] = one_line(error)
            raise EraseBenchError(
                f"the {self.what} '{point.name}' of {_package(point)} cannot be loaded: {self.broken[point.name]}"
            ) from error
        # A class may register itself when its module is imported; one that does not is registered here.
        if point.name not in self.loaded:
            self.register(point.name)(plugin_class)


def is_same_class(one: Any, other: Any) -> bool:
    """True if two classes are defined at the same place; a file that is loaded again defines its classes anew."""
    names = ("__module__", "__qualname__")
    return [getattr(one, name, None) for name in names] == [getattr(other, name, None) for name in names]


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def registered_summaries(path: Path) -> dict[str, str]:
    """One-line summaries of what a file's ``@....register("name")`` decorators register, read without running the file.

    Names of one class are told apart by what they preset: ``"Erase. (strength=max)"``.
    """
    summaries: dict[str, str] = {}
    # No more of the file is parsed than that: a list of all names would take a tenth of a second longer.
    heads = _HEAD.findall(path.read_text(encoding="utf-8"))
    for node in (node for head in heads for node in ast.parse(f"{head}\n    pass", str(path)).body):
        if not isinstance(node, ast.ClassDef):
            continue
        calls = [call for call in node.decorator_list if isinstance(call, ast.Call) and _registers(call)]
        summary = first_line(ast.get_docstring(node))
        for call in calls:
            name = call.args[0]
            presets = ", ".join(f"{keyword.arg}={_literal(keyword.value)}" for keyword in call.keywords)
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                summaries[name.value] = f"{summary} ({presets})".strip() if presets and len(calls) > 1 else summary
    return summaries


_HEAD = re.compile(r'^@[\w.]+\.register\(.*?^class .*?:(?=\s)(?:\n +""".*?""")?', re.MULTILINE | re.DOTALL)
"""Of a class that registers itself, all down to the end of its docstring."""


def _registers(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "register" and bool(call.args)


def _literal(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def class_summary(path: Path, name: str) -> str:
    """The first line of a class's docstring, read without running its file; '' if it has none."""
    try:
        nodes = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    except (OSError, SyntaxError, ValueError):
        return ""
    return next(
        (first_line(ast.get_docstring(node)) for node in nodes if isinstance(node, ast.ClassDef) and node.name == name),
        "",
    )


def _module_file(module: str) -> Path | None:
    """The file of a module, found without importing it or the packages around it."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin else None
    places = (Path(folder, *inner) for folder in spec.submodule_search_locations or ())
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def load_file(path: Path) -> None:
    """Run a user's own file, so that its plug-ins register themselves.

    Raises:
        EraseBenchError: the file is missing or fails.
    """
    name = PLUGIN_PREFIX + path.stem
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise EraseBenchError(f"the plug-in file {path} does not exist or is no Python file")
    known = getattr(sys.modules.get(name), "__file__", None)
    if known and Path(known).resolve() != path.resolve():
        raise EraseBenchError(f"two plug-in files are called {path.name}: {known} and {path}; rename one")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, EraseBenchError):
            raise
        raise EraseBenchError(f"the plug-in file {path} cannot be loaded: {one_line(error)}") from error


@cache
def _all_entry_points() -> Any:  # not yet EntryPoints in Python 3.11
    """Those of all installed packages, hundreds of which are looked through: once."""
    return metadata.entry_points()


def entry_points(group: str) -> EntryPoints:
    """The entry points of a group."""
    points: EntryPoints = _all_entry_points().select(group=group)
    return points


def data_files(group: str) -> list[Path]:
    """The YAML files of other packages: an entry point of the group names a package, whose folder holds them.

    Nothing is imported.  An entry point that names no package is left out with a warning.
    """
    files: list[Path] = []
    for point in entry_points(group=group):
        top, *inner = point.module.split(".")
        spec = importlib.util.find_spec(top)
        folders = [Path(place, *inner) for place in (spec.submodule_search_locations or () if spec else ())]
        if not any(folder.is_dir() for folder in folders):
            warn(f"the entry point {point.name} = {point.value} of {_package(point)} is left out: it names no package")
        files += sorted(path for folder in folders for path in folder.glob("*.yaml"))
    return files


@cache
def warn(message: str) -> None:
    """Tell once, on standard error, what is left out; the rest works."""
    say(f"warning: {message}")


METHODS: Registry[Method] = Registry("erasebench.plugins:Method", "method", "erasebench.methods", "erasebench.methods")
ATTACKS: Registry[Attack] = Registry("erasebench.plugins:Attack", "attack", "erasebench.attacks", "erasebench.attacks")
JUDGES: Registry[Judge] = Registry("erasebench.plugins:Judge", "judge", "erasebench.judges", "erasebench.judges")
METRICS: Registry[Metric] = Registry(
    "erasebench.metrics.metric:Metric", "metric", "erasebench.metrics", "erasebench.metrics"
)
RULES: Registry[Any] = Registry(
    "erasebench.models.guidance:Guidance", "guidance rule", "erasebench.rules", "erasebench.models"
)
KINDS: Mapping[str, Registry[Any]] = {
    "methods": METHODS,
    "attacks": ATTACKS,
    "judges": JUDGES,
    "metrics": METRICS,
    "rules": RULES,
}
"""All registries, by what ``erasebench list`` calls their plug-ins."""
