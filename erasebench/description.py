"""Describe one thing: a method with its hyper-parameters, a judge, a metric, a concept, a prompt set, a suite."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from erasebench.docstrings import attributes, paragraphs
from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError, check_name
from erasebench.grammar import with_article
from erasebench.hyper_parameters import hyper_parameters, make_plugin
from erasebench.listing import LISTED, names
from erasebench.named_files import preset_files, suite_files
from erasebench.plugins import HyperParameters, Method
from erasebench.prompt_sets import prompt_set_details
from erasebench.registry import KINDS, Plugin, load_file
from erasebench.suites import parse_suite, suite_details

if TYPE_CHECKING:
    from erasebench.concepts import Catalogue, Concept

WIDTH = 80
PUBLISHED = next(domain for domain in DOMAINS.values() if domain.published)
"""The domain that published defaults are for."""
ADAPTED = tuple(domain for domain in DOMAINS.values() if domain.settings)
"""The domains with settings of their own, which are shown beside the defaults."""
MAX_LISTED = 12
"""Of a list that may be long, such as a judge's labels, so many are shown."""
THREATS = {
    "none": "nothing: the prompt stays as it is",
    "text-black-box": "the text, and images to look at",
    "text-white-box": "the text, and the model's gradients to choose it by",
    "embedding": "the embeddings, which no user can type",
    "latent": "the noise that an image starts from",
    "image": "an image beside the text",
    "weights": "the weights",
}
"""Threat models, in words."""
NEEDS = {
    "gradients": "gradients through the U-Net",
    "unerased": "the unerased model",
    "clip": "the domain's CLIP, to compare images",
    "synonyms": "a concept with synonyms",
}
"""The needs of attacks, in words."""
UNDECIDED = object()
"""A hyper-parameter whose value depends on the concept."""


@dataclasses.dataclass(frozen=True)
class HyperParameter:
    """A hyper-parameter in words.

    Attributes:
        name: what users write.
        type: its type and range; "" where nothing is known.
        default: "default ...", or "required".
        adapted: its value in each of :data:`ADAPTED`, by the domain's title; "" where it is the default.
        meaning: what the docstrings say of it.
    """

    name: str
    type: str
    default: str
    adapted: Mapping[str, str]
    meaning: str


def describe(
    name: str,
    kind: str | None = None,
    concept: str | None = None,
    plugins: Sequence[Path] = (),
    concept_files: Sequence[Path] = (),
) -> str:
    """Describe a method, attack, judge, metric, guidance rule, concept, prompt set, preset or suite, wrapped at 80
    characters.

    Args:
        name: what users write.
        kind: one of :data:`~erasebench.listing.LISTED`, where several things have this name.
        concept: for which hyper-parameters are resolved; if omitted, those are shown that all agree on.
        plugins: the user's own plug-in files.
        concept_files: the user's own concept files.

    Raises:
        EraseBenchError: there is no such thing, or there are several; or the concept is not there or does not fit.
    """
    from erasebench.concepts import load_catalogue

    for path in plugins:
        load_file(path)
    catalogue = load_catalogue(concept_files)
    kind = _kind_of(name, kind, catalogue)
    if concept is not None and kind not in ("methods", "attacks"):
        raise EraseBenchError(f"--concept is for methods and attacks; '{name}' is one of the {kind}")
    if kind == "concepts":
        subject = catalogue.get(name)
        lines = [f"{name}: a concept, {subject.kind}", "", *_entries(concept_details(subject))]
    elif kind == "prompt-sets":
        prompt_set = catalogue.prompt_sets[name]
        lines = [f"{name}: a prompt set, for models of the domain {prompt_set.domain}", ""]
        lines += _entries(prompt_set_details(prompt_set))
    elif kind == "presets":
        path = preset_files()[name]
        lines = [f"{name}: a preset, {path}", "", *path.read_text(encoding="utf-8").splitlines()]
    elif kind == "suites":
        path = suite_files()[name]
        lines = [f"{name}: a suite, {path}", "", *_entries(suite_details(parse_suite(path)))]
    else:
        plugin = KINDS[kind].get(name)
        file_says = "source" if kind in ("methods", "attacks") else "about"  # these alone are of a paper each
        lines = [*_head(kind, plugin), *_entries([(file_says, source(plugin)), *plugin_details(kind, plugin)])]
        if dataclasses.is_dataclass(plugin.make):
            write = f"; write {name}[name=value;name=value]" if kind in ("methods", "attacks") else ""
            resolved = f", resolved for {concept}" if concept else ""
            lines += ["", f"Hyper-parameters{resolved}{write}:", ""]
            lines += _entries(map(_hyper_parameter, describe_hyper_parameters(plugin, catalogue, concept))) or ["none"]
    return "\n".join(lines)


def _kind_of(name: str, kind: str | None, catalogue: Catalogue) -> str:
    """The kind of thing that has a name, if it is one."""
    known = {each: names(each) for each in (*KINDS, "presets", "suites") if kind in (None, each)}
    if kind in (None, "prompt-sets"):
        known["prompt-sets"] = list(catalogue.prompt_sets)
    if kind in (None, "concepts"):
        known["concepts"] = [*catalogue.names(), *catalogue.groups()]
        if name.startswith("phrase:") or "+" in name:
            return "concepts"
    kinds = [each for each in LISTED if name in known.get(each, ())]
    if len(kinds) > 1:
        raise EraseBenchError(
            f"'{name}' is one of the {' and one of the '.join(kinds)}; choose with --kind {' or --kind '.join(kinds)}"
        )
    if not kinds:
        check_name("name", name, dict.fromkeys(each for some in known.values() for each in some))
    return kinds[0]


def _head(kind: str, plugin: Plugin[Any]) -> list[str]:
    """Name and origin, and what the docstring says."""
    what, origin = KINDS[kind].what, KINDS[kind].origin(plugin.name)
    lines = [f"{plugin.name}: {with_article(what)}, {origin}", ""]
    for paragraph in paragraphs(plugin.make.__doc__):
        lines += [*_block(paragraph), ""]
    return lines


def source(plugin: Plugin[Any]) -> list[str]:
    """The first paragraph that the plug-in's file says of itself: of a method, its paper."""
    return paragraphs(getattr(sys.modules.get(plugin.make.__module__), "__doc__", None))[:1]


def plugin_details(kind: str, plugin: Plugin[Any]) -> list[tuple[str, list[str]]]:
    """Details that only this kind of plug-in has: by name, in sentences, of which some may be empty."""
    make: Any = plugin.make
    if kind == "methods":
        guides = "it changes guidance and no weights, so that there is nothing to export" * make.guidance_only
        unseeded = "it depends on no seed: every erasure is the same" * (not make.seeded)
        return [("note", [guides, "its change can be exported as a LoRA" * make.low_rank, unseeded])]
    if kind == "metrics":
        column = f"{make.title} ({make.unit})" if make.unit else make.title
        probes = ", ".join(make.probes)
        return [
            ("column", [column]),
            ("meaning", [make.meaning]),
            ("better", [make.direction]),
            ("images of", [probes]),
        ]
    if kind == "attacks":
        once = "it learns once for all prompts of a concept" if make.learns else ""
        text_only = (
            "it reads the text encoder alone, so that its finds serve every model with the same" * make.text_only
        )
        return [
            ("attacker has", [THREATS[make.threat_model]]),
            ("needs", [", ".join(NEEDS[need] for need in make.needs)]),
            ("is made of", [", ".join(make.members)]),
            ("note", [once, text_only, "it chooses by the judge that counts its successes" * make.judged]),
        ]
    if kind == "judges":
        labels: Sequence[str] = ()
        with suppress(EraseBenchError):
            labels = ["whatever is asked for"] if plugin.presets else make().labels or []
        profiles = [
            f"{name}: {profile.label} from {profile.threshold:g} on ({profile.source})"
            for name, profile in make.profiles.items()
        ]
        return [("labels", [_some(labels)]), ("weights", list(map(str, make.weights))), ("profiles", profiles)]
    return []


def describe_hyper_parameters(
    plugin: Plugin[Any], catalogue: Catalogue, concept: str | None = None
) -> list[HyperParameter]:
    """Each hyper-parameter of a dataclass, in the order of its fields.

    Args:
        plugin: a method, an attack or a rule.
        catalogue: whose concepts it is resolved for.
        concept: for which it is resolved alone; if None, values are shown on which all concepts agree.
    """
    from erasebench.settings import plugin_settings

    fields = [field for field in dataclasses.fields(plugin.make) if field.init]  # type: ignore[arg-type]
    every = [catalogue.get(name) for name in catalogue.names()]
    kinds = {each.kind: each for each in every if all(domain.name in each.views for domain in ADAPTED)}
    concepts = list(kinds.values()) if concept is None else [catalogue.get(concept)]
    strict = concept is not None
    default = _values(plugin, {}, concepts, PUBLISHED.name, strict)
    is_method = issubclass(plugin.make, Method)  # type: ignore[arg-type]  # an attack may have a method's name
    adaptations = []
    for domain in ADAPTED:
        overrides = plugin_settings(domain.name, {}).get(plugin.name, {}) if is_method else {}
        adaptations.append((domain.title, overrides, _values(plugin, overrides, concepts, domain.name, strict)))
    types, meanings = _types(plugin.make), _meanings(plugin.make)
    described = []
    for field in fields:
        name, own = field.name, plugin.presets.get(field.name, field.default)
        default_text = _default(own, default.get(name, UNDECIDED), name in plugin.presets)
        adapted = {}
        for title, overrides, values in adaptations:
            differs = name in overrides or values.get(name) != default.get(name)
            adapted[title] = _written(values.get(name, UNDECIDED)) if differs else ""
        described.append(HyperParameter(name, types.get(name, ""), default_text, adapted, meanings.get(name, "")))
    return described


def _hyper_parameter(one: HyperParameter) -> tuple[str, list[str]]:
    adapted = "".join(f"; on {title} {value}" for title, value in one.adapted.items() if value)
    return one.name, [one.type, one.default + adapted, one.meaning]


def _values(
    plugin: Plugin[Any], settings: Mapping[str, Any], concepts: Sequence[Concept], domain: str, strict: bool
) -> dict[str, Any]:
    """The hyper-parameters on which the concepts agree when they are resolved for each.

    Args:
        plugin: the method or attack.
        settings: over the presets of its name.
        concepts: for which it is resolved, one by one.
        domain: in which they are seen.
        strict: whether to raise where a method does not fit a concept.
    """
    required = {f.name for f in dataclasses.fields(plugin.make) if f.init and _is_required(f)}  # type: ignore[arg-type]
    values = {**plugin.presets, **settings}
    if required - set(values):
        return {f.name: f.default for f in dataclasses.fields(plugin.make) if f.name not in required}  # type: ignore[arg-type]
    instance = make_plugin(plugin.make, values)
    resolved: list[dict[str, Any]] = []
    for concept in concepts if isinstance(instance, HyperParameters) else ():
        try:
            resolved.append(hyper_parameters(instance.resolved([concept.seen_in(domain)])))
        except EraseBenchError:
            if strict:
                raise
    resolved = resolved or [hyper_parameters(instance)]
    return {name: value for name, value in resolved[0].items() if all(row[name] == value for row in resolved)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(own: Any, decided: Any, by_name: bool) -> str:
    if own is dataclasses.MISSING:
        return "required" if decided is UNDECIDED else f"default {_written(decided)}"
    text = f"default {_written(own)}" + (" by this name" if by_name else "")
    if decided is UNDECIDED:
        return f"{text}, which depends on the concept"
    written = _written(decided)
    return text if written == _written(own) else f"{text}, which means {written}"


def _written(value: Any) -> str:
    """A value as users write it."""
    if value is UNDECIDED:
        return "what depends on the concept"
    if isinstance(value, str):
        return value if value and value == value.strip() and "," not in value else f"'{value}'"
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return str(value)


def _types(make: Any) -> dict[str, str]:
    """The type and range of each field, in words."""
    try:
        schema = TypeAdapter(make).json_schema()
    except PydanticUserError:
        return {field.name: str(field.type) for field in dataclasses.fields(make)}
    definitions = schema.get("$defs", {})
    return {name: _type(field, definitions) for name, field in schema["properties"].items()}


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON Schema in words: ``{"type": "integer", "minimum": 1}`` becomes "integer >= 1"."""
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return " or ".join(_type(each, definitions) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(_written, schema["enum"]))
    if "const" in schema:
        return _written(schema["const"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), definitions)}"
    if kind == "object":
        return f"mapping of {_type(schema.get('additionalProperties') or {}, definitions)}"
    words = {"string": "text", "boolean": "true, false"}.get(kind, kind)
    if "minimum" in schema and "maximum" in schema:
        return f"{words} from {schema['minimum']:g} to {schema['maximum']:g}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = " and ".join(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
    return f"{words} {limits}".strip()


def _meanings(make: Any) -> dict[str, str]:
    """The meanings of attributes in the docstrings of a class and those above it."""
    meanings: dict[str, str] = {}
    for each in reversed(inspect.getmro(make)):
        meanings |= attributes(each.__doc__)
    return meanings


def concept_details(concept: Concept) -> list[tuple[str, list[str]]]:
    """Details of a concept and of who sees it: by name, in sentences, of which some may be empty."""
    if concept.members:
        return [("erases together", [", ".join(member.name for member in concept.members)])]
    entries = [
        ("phrase", [concept.phrase]),
        ("synonyms", [", ".join(concept.synonyms)]),
        ("anchor", [concept.anchor or "the blank prompt"]),
        ("neighbours", [", ".join(concept.neighbours)]),
    ]
    for domain, view in concept.views.items():
        counts = {"naming": view.naming, "implying": view.implying, "synonym": view.synonyms}
        prompts = ", ".join(f"{len(texts)} {kind}" for kind, texts in counts.items() if texts)
        entries.append(
            (
                domain,
                [
                    f"judge {view.judge}, label {view.label}, threshold {view.threshold:g}",
                    f"anchor {view.anchor or 'the blank prompt'}" if view.anchor is not None else "",
                    f"prompts: {prompts}; such as: {view.naming[0]}" if view.naming else "",
                    f"prompt set {view.prompt_set}" if view.prompt_set else "",
                ],
            )
        )
    return entries


def _some(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
    return ", ".join(texts[:MAX_LISTED]) + more


def _block(paragraph: str) -> list[str]:
    """A paragraph in lines; what is indented stays as it is."""
    return paragraph.splitlines() if paragraph.startswith(" ") else wrap(paragraph, WIDTH)


def _entries(entries: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Names with texts beside them, all texts in one column; what has no text is left out."""
    filled = [(name, [text for text in texts if text.strip()]) for name, texts in entries]
    filled = [(name, texts) for name, texts in filled if texts]
    column = max((len(name) for name, _ in filled), default=0) + 2
    lines = []
    for name, texts in filled:
        width = WIDTH - column
        rows = [row for t in texts for row in wrap(t, width, break_on_hyphens=False, break_long_words=False)]
        lines += [f"{name if k == 0 else '':<{column}}{row}" for k, row in enumerate(rows)]
    return lines
