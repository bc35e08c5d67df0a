"""What there is to run, for ``erasebench list``."""

from __future__ import annotations

from erasebench.config import preset_files
from erasebench.errors import EraseBenchError
from erasebench.registry import KINDS


def listing(kind: str | None, pattern: str = "*") -> list[str]:
    """One line for each plug-in, concept or preset whose name matches; every kind if None.

    Nothing is imported for it, so that what is broken elsewhere cannot break the list.

    Raises:
        EraseBenchError: the kind has none that match.
    """
    kinds = [kind] if kind else [*KINDS, "concepts", "presets"]
    lines: list[str] = []
    for name in kinds:
        if len(kinds) > 1:
            lines += [*([""] if lines else []), f"{name}:"]
        lines += [("  " if len(kinds) > 1 else "") + line for line in _lines(name, pattern)]
    if kind and not lines and pattern != "*":
        raise EraseBenchError(f"no {kind} match '{pattern}'")
    return lines


def _lines(kind: str, pattern: str) -> list[str]:
    from fnmatch import fnmatchcase

    if kind in KINDS:
        registry = KINDS[kind]
        found = [(name, registry.origin(name)) for name in registry.names(pattern)]
    elif kind == "presets":
        found = [(name, "") for name in sorted(preset_files()) if fnmatchcase(name, pattern)]
    else:
        from erasebench.concepts import load_catalogue

        catalogue = load_catalogue()
        found = [
            (name, f"{catalogue.get(name).kind}, {' and '.join(catalogue.get(name).views)}")
            for name in catalogue.names(pattern)
        ]
    width = max((len(name) for name, _ in found), default=0)
    return [f"{name:<{width}}  {note}".rstrip() for name, note in found]
