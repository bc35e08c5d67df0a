"""Plug-ins with their hyper-parameters: the user's over those of the domain, over those of the class."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from erasebench.config import parse_method, read_layer
from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError, check_name
from erasebench.plugins import ResolvedAttack, ResolvedMethod, make_plugin
from erasebench.registry import ATTACKS, METHODS, Registry

T = TypeVar("T")


def plugin_settings(domain: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Hyper-parameters by method or attack: those ``given`` by the user over those of the domain.

    Raises:
        UnknownNameError: there is no such method or attack, with the nearest.
    """
    for name in given:
        check_name("method or attack in settings", name, [*METHODS.names(), *ATTACKS.names()])
    own = _domain_settings(domain)
    return {name: {**own.get(name, {}), **given.get(name, {})} for name in (*own, *given)}


def resolve_method(text: str, settings: Mapping[str, Mapping[str, Any]]) -> ResolvedMethod:
    """Make a method with all its hyper-parameters, before it is known what it erases.

    Args:
        text: name, and options in brackets; these win.
        settings: hyper-parameters by method, which win over those of the name and of the class.

    Raises:
        EraseBenchError: no such method, no such hyper-parameter, or a value out of range.
    """
    return ResolvedMethod(text, *_resolve(METHODS, text, settings))


def resolve_attack(text: str, settings: Mapping[str, Mapping[str, Any]]) -> ResolvedAttack:
    """Make an attack with all its hyper-parameters, before it is known what it attacks.

    Args:
        text: name, and options in brackets; these win.
        settings: hyper-parameters by attack, which win over those of the name and of the class.

    Raises:
        EraseBenchError: no such attack, no such hyper-parameter, or a value out of range.
    """
    name, made = _resolve(ATTACKS, text, settings)
    try:
        if made.transfer_of:
            check_name("attack", parse_method(made.transfer_of)[0], ATTACKS.names())
    except EraseBenchError as error:
        raise EraseBenchError(f"attack {text}: {error}") from None
    return ResolvedAttack(text, name, made)


def _resolve(registry: Registry[T], text: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[str, T]:
    """Find a plug-in by name and make it; the options in brackets win."""
    name, options = parse_method(text)
    plugin = registry.get(name)
    try:
        return plugin.name, make_plugin(plugin.make, {**plugin.presets, **settings.get(name, {}), **options})
    except EraseBenchError as error:
        raise EraseBenchError(f"{registry.what} {text}: {error}") from None


def _domain_settings(domain: str) -> dict[str, Any]:
    name = DOMAINS[domain].settings
    return read_layer(Path(str(files("erasebench.methods") / name))) if name else {}
