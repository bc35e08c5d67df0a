"""Lists of what there is to run, for ``erasebench list`` and for the completion of names in a shell."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from erasebench.errors import EraseBenchError
from erasebench.named_files import preset_files, suite_files
from erasebench.registry import BUILT_IN, KINDS

LISTED = (*KINDS, "concepts", "prompt-sets", "presets", "suites")
"""All kinds of things that have names."""


def listing(kind: str | None, pattern: str = "*") -> list[str]:
    """One line for each plug-in, concept, prompt set, preset or suite whose name matches, with what it is; all if None.

    Nothing is imported for it, so that what is broken elsewhere cannot break the list.

    Raises:
        EraseBenchError: the kind has none that match.
    """
    kinds = [kind] if kind else LISTED
    lines: list[str] = []
    for name in kinds:
        if len(kinds) > 1:
            lines += [*([""] if lines else []), f"{name}:"]
        lines += [("  " if len(kinds) > 1 else "") + line for line in _lines(name, pattern)]
    if kind and not lines and pattern != "*":
        raise EraseBenchError(f"no {kind} match '{pattern}'")
    return lines


def names(kind: str) -> list[str]:
    """The names of one of :data:`LISTED`, in the order in which they are listed; nothing is imported."""
    return [name for name, _ in _described(kind, "*", describe=False)]


def _lines(kind: str, pattern: str) -> list[str]:
    entries = _described(kind, pattern)
    width = max((len(name) for name, _ in entries), default=0)
    return [f"{name:<{width}}  {note}".rstrip() for name, note in entries]


def _described(kind: str, pattern: str, describe: bool = True) -> Sequence[tuple[str, str]]:
    """Names, each with what it is if that is asked for."""
    if kind in KINDS:
        return [(name, _plugin(kind, name) if describe else "") for name in KINDS[kind].names(pattern)]
    if kind == "presets":
        presets = sorted(preset_files().items())
        return [(name, _preset(path) if describe else "") for name, path in presets if fnmatchcase(name, pattern)]
    if kind == "suites":
        suites = sorted(suite_files().items())
        return [(name, _suite(path) if describe else "") for name, path in suites if fnmatchcase(name, pattern)]
    from erasebench.concepts import load_catalogue

    catalogue = load_catalogue()
    if kind == "prompt-sets":
        from erasebench.prompt_sets import state

        sets = [each for name, each in catalogue.prompt_sets.items() if fnmatchcase(name, pattern)]
        return [(each.name, f"{each.title} ({state(each)})") for each in sets]
    concepts = [catalogue.get(name) for name in catalogue.names(pattern)]
    listed = [(c.name, f'{c.kind} "{c.phrase}", {" and ".join(c.views)}') for c in concepts]
    groups = catalogue.groups(pattern).items()
    return [*listed, *((name, f"{len(members)} erased together: {', '.join(members)}") for name, members in groups)]


def _plugin(kind: str, name: str) -> str:
    """The summary of a plug-in, and the package that it is of, if not of this one."""
    origin, summary = KINDS[kind].origin(name), KINDS[kind].summary(name)
    if origin == BUILT_IN:
        return summary
    return f"{origin}: {summary}" if summary else origin


def _preset(path: Path) -> str:
    """The comment at the top of a preset, or else the keys that it sets."""
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    if first.startswith("#"):
        return first.lstrip("# ").rstrip()
    keys = (line.partition(":")[0] for line in (first, *rest.splitlines()) if line[:1].isalpha())
    return f"sets {', '.join(keys)}"


def _suite(path: Path) -> str:
    """The title of a suite, of which no more is read."""
    lines = path.read_text(encoding="utf-8").splitlines()
    titles = (line.removeprefix("title:") for line in lines if line.startswith("title:"))
    return next(titles, "").strip().strip("\"'")
