"""Plug-ins with their hyper-parameters: the user's over those of the domain, over those of the class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from erasebench.concepts import View
from erasebench.config import parse_method, read_layer
from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError, check_name
from erasebench.hyper_parameters import make_plugin
from erasebench.plugins import ResolvedAttack, ResolvedMethod
from erasebench.registry import ATTACKS, JUDGES, METHODS, Registry

T = TypeVar("T")

SEED = "seed"
"""The option that every method understands: the seed of its erasure, where it is not the run's."""


def plugin_settings(domain: str, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Hyper-parameters by method or attack: the user's ``overrides`` over those of the domain.

    Raises:
        UnknownNameError: there is no such method or attack, with the nearest.
    """
    for name in overrides:
        check_name("method or attack in settings", name, [*METHODS.names(), *ATTACKS.names()])
    own = _domain_settings(domain)
    return {name: {**own.get(name, {}), **overrides.get(name, {})} for name in (*own, *overrides)}


def resolve_method(text: str, settings: Mapping[str, Mapping[str, Any]]) -> ResolvedMethod:
    """Make a method with all its hyper-parameters, before it is known what it erases.

    Args:
        text: name, and options in brackets; these win.  The option "seed" is of the erasure, not of the method.
        settings: hyper-parameters by method, which win over those of the name and of the class.

    Raises:
        EraseBenchError: no such method, no such hyper-parameter, or a value out of range.
    """
    label, seed = split_seed(text)
    name, instance = _resolve(METHODS, label, settings)
    if SEED in (field.name for field in fields(instance)):
        raise EraseBenchError(f"the method {name} has a hyper-parameter '{SEED}', which is the erasure's; rename it")
    return ResolvedMethod(text, name, instance, seed)


def resolve_methods(
    labels: Iterable[str], settings: Mapping[str, Mapping[str, Any]], seed: int, count: int
) -> list[ResolvedMethod]:
    """Make methods, those whose erasure depends on a seed once for each of several seeds.

    Args:
        labels: as the user wrote them; one with a seed of its own stays alone.
        settings: hyper-parameters by method.
        seed: of the run, which is that of the first erasure; the others have those that follow it.
        count: how many seeds.

    Raises:
        EraseBenchError: as :func:`resolve_method`.
    """
    methods: dict[str, ResolvedMethod] = {}
    for label in labels:
        first = resolve_method(label, settings)
        methods[label] = first
        if first.instance.seeded and first.seed is None:
            more = [with_seed(label, seed + k) for k in range(1, count)]
            methods |= {one: resolve_method(one, settings) for one in more}
    return list(methods.values())


def with_seed(label: str, seed: int) -> str:
    """The label of a method with the erasure's seed: ``"esd-u[steps=200]"`` -> ``"esd-u[steps=200;seed=3]"``."""
    name, options = _split_options(label)
    return f"{name}[{';'.join([*options, f'{SEED}={seed}'])}]"


def split_seed(label: str) -> tuple[str, int | None]:
    """The label of a method without its erasure's seed, and this; None if it has none.

    Raises:
        EraseBenchError: it is no label, or its seed is none.
    """
    pairs = parse_method(label)[1]
    if SEED not in pairs:
        return label, None
    seed = pairs[SEED]
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise EraseBenchError(f"method {label}: {SEED} is a whole number from 0 to 2^63 - 1, not {seed!r}")
    name, options = _split_options(label)
    rest = [option for option in options if option.partition("=")[0].strip() != SEED]
    return (f"{name}[{';'.join(rest)}]" if rest else name), seed


def _split_options(label: str) -> tuple[str, list[str]]:
    """Name and options, as text, of a label that can be parsed."""
    name, _, rest = label.strip().partition("[")
    return name.strip(), [part.strip() for part in rest.removesuffix("]").split(";") if part.strip()]


def resolve_attack(text: str, settings: Mapping[str, Mapping[str, Any]]) -> ResolvedAttack:
    """Make an attack with all its hyper-parameters, before it is known what it attacks.

    Args:
        text: name, and options in brackets; these win.
        settings: hyper-parameters by attack, which win over those of the name and of the class.

    Raises:
        EraseBenchError: no such attack, no such hyper-parameter, or a value out of range.
    """
    name, instance = _resolve(ATTACKS, text, settings)
    try:
        if instance.transfer_of:
            check_name("attack", parse_method(instance.transfer_of)[0], ATTACKS.names())
    except EraseBenchError as error:
        raise EraseBenchError(f"attack {text}: {error}") from None
    return ResolvedAttack(text, name, instance)


def _resolve(registry: Registry[T], text: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[str, T]:
    """Find a plug-in by name and make it; the options in brackets win."""
    name, options = parse_method(text)
    plugin = registry.get(name)
    try:
        return plugin.name, make_plugin(plugin.make, {**plugin.presets, **settings.get(name, {}), **options})
    except EraseBenchError as error:
        raise EraseBenchError(f"{registry.what} {text}: {error}") from None


def check_judges(judges: Mapping[str, str]) -> None:
    """Check the judges that are to stand in for others.

    Args:
        judges: by the name of the judge that a concept has, the one to use, with options in brackets.

    Raises:
        EraseBenchError: no such judge, no such option or profile, or a threshold that is not between 0 and 1.
    """
    for name, text in judges.items():
        check_name("judge", name, JUDGES.names())
        judge_options(text)


def chosen_view(view: View, judges: Mapping[str, str]) -> View:
    """Return a concept's view with the judge that is to stand in for its own, if there is one.

    It keeps the view's label, unless options name one or the other judge has but one label; and the view's threshold,
    unless options name one.

    Args:
        view: of a concept in the model's domain.
        judges: as :func:`check_judges` takes them.

    Raises:
        EraseBenchError: the other judge has no such label.
    """
    if view.judge not in judges:
        return view
    name, options = judge_options(judges[view.judge])
    plugin = JUDGES.get(name)
    labels = None if plugin.presets.get("phrased") else plugin.make().labels
    label = options.get("label", labels[0] if labels and len(labels) == 1 else view.label)
    if labels is not None:
        try:
            check_name(f"label of the judge {name}", label, labels)
        except EraseBenchError as error:
            raise EraseBenchError(f"{error}; name one by {view.judge}={name}[label=...]") from None
    return replace(view, judge=name, label=label, threshold=options.get("threshold", view.threshold))


def judge_options(text: str) -> tuple[str, dict[str, Any]]:
    """A judge's name, and label and threshold as far as options give them; they win over those of a profile."""
    name, options_in_brackets = parse_method(text)
    profiles = JUDGES.get(name).make.profiles  # type: ignore[attr-defined]  # it is a class of judges
    for option in options_in_brackets:
        check_name(f"option of the judge {name}", option, ("profile", "label", "threshold"))
    options: dict[str, Any] = {}
    if "profile" in options_in_brackets:
        if not profiles:
            raise EraseBenchError(f"the judge {name} has no profiles; give label and threshold")
        check_name(f"profile of the judge {name}", str(options_in_brackets["profile"]), profiles)
        profile = profiles[options_in_brackets["profile"]]
        options = {"label": profile.label, "threshold": profile.threshold}
    if "label" in options_in_brackets:
        options["label"] = str(options_in_brackets["label"])
    if "threshold" in options_in_brackets:
        threshold = options_in_brackets["threshold"]
        if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 < threshold < 1:
            raise EraseBenchError(f"judge {text}: threshold: {threshold!r} is not between 0 and 1")
        options["threshold"] = float(threshold)
    return name, options


def _domain_settings(domain: str) -> dict[str, Any]:
    name = DOMAINS[domain].settings
    return read_layer(Path(str(files("erasebench.methods") / name))) if name else {}
