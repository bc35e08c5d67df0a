"""Reading the files that describe concepts.

A file may hold six sections, all optional::

    concepts:                     # what there is to erase
      church: {kind: object, phrase: church, anchor: building, views: {photo: {judge: resnet50, label: church}}}
    prompts:                      # prompts too many to stand with their concept: domain, concept, list
      photo: {church: {naming: [an image of a church]}}
    retain:                       # prompts whose images erasing should not change, by domain
      photo: [{prompt: an image of a parachute, shows: [parachute]}]
    groups:                       # concepts that are erased together under one name, which neighbours may be given by
      buildings: [church, lighthouse]
    families:                     # concepts that differ in their words only, and their group
      artists: {kind: style, domain: photo, judge: clip-artist, naming: ["art by {}"], phrases: [Hokusai, Manet]}
    prompt_sets:                  # files of prompts that are not shipped: what they are and hold
      mine: {title: my prompts, url: https://example.org, concepts: {church: {where: {tag: church}}}}

The packaged files are read first, then those of other packages (an entry point of the group ``erasebench.concepts``
names a package; the YAML files in its folder are read), then the user's.  Nothing that a file says can be replaced by a
later one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from erasebench.concepts._files import NAME, CatalogueError, build, check, check_texts, parse, read
from erasebench.concepts.catalogue import KINDS, Catalogue, Concept, RetainPrompt, View, check_phrase, joint
from erasebench.concepts.families import with_families
from erasebench.concepts.prompt_sets import PromptSetEntry, check_prompt_sets
from erasebench.domains import DOMAINS
from erasebench.registry import data_files, warn

_FOLDER = Path(__file__).parent


def load_catalogue(extra: Sequence[Path] = ()) -> Catalogue:
    """Read the packaged concept files, those of other packages, and then the user's own.

    A file of another package that is wrong is left out with a warning.

    Args:
        extra: the user's files; they may add concepts, prompts for concepts without any, and retain prompts.

    Raises:
        CatalogueError: anything wrong with a file; the message names the file and the concept.
    """
    own, theirs = sorted(_FOLDER.glob("*.yaml")) + sorted(_FOLDER.glob("*.json")), data_files("erasebench.concepts")
    while True:
        try:
            return _made_of(tuple((str(path), read(path)) for path in (*own, *theirs, *map(Path, extra))))
        except CatalogueError as error:
            reason = str(error).removeprefix("cannot read ")
            wrong = next((path for path in theirs if reason.startswith(f"{path}: ")), None)
            if wrong is None:
                raise
            warn(f"a concept file of another package is left out: {error}")
            theirs.remove(wrong)


@lru_cache(maxsize=64)
def _parsed(path: str, content: bytes) -> _File:
    # What our own script writes is JSON, which takes a tenth of the time.
    parsed = json.loads(content) if path.endswith(".json") and Path(path).parent == _FOLDER else parse(content, path)
    return build(_File, with_families(parsed, path), path)


# A command loads the catalogue several times, each of which would take a tenth of a second.
@lru_cache(maxsize=4)
def _made_of(contents: tuple[tuple[str, bytes], ...]) -> Catalogue:
    """The catalogue of files, given their paths and contents."""
    files = [(path, _parsed(path, content)) for path, content in contents]
    concepts: dict[str, Concept] = {}
    homes: dict[str, str] = {}
    for path, file in files:
        for name, entry in file.concepts.items():
            if name in homes:
                raise CatalogueError(f"{path}: concept '{name}' is already in {homes[name]}")
            if not NAME.fullmatch(name):
                raise CatalogueError(f"{path}: concept '{name}': a name is lower case with hyphens, like 'french-horn'")
            concepts[name], homes[name] = Concept(name=name, **vars(entry)), path
    for path, file in files:
        for domain, prompts in file.prompts.items():
            for name, lists in prompts.items():
                where = f"{path}: prompts: {domain}: {name}"
                check("concept", name, concepts, where)
                concepts[name] = _with_prompts(concepts[name], domain, lists, where)
    groups = _groups(files, concepts)
    for name, concept in concepts.items():
        concepts[name] = _checked(concept, concepts, groups, f"{homes[name]}: concept '{name}'")
    for path, file in files:
        for name, members in file.groups.items():
            try:
                joint(name, [concepts[member] for member in members])
            except CatalogueError as error:
                raise CatalogueError(f"{path}: {error}") from None
    retain: dict[str, list[RetainPrompt]] = {}
    for path, file in files:
        for domain, retained in file.retain.items():
            where = f"{path}: retain: {domain}"
            check("domain", domain, DOMAINS, where)
            for prompt in retained:
                for name in prompt.shows:
                    check("concept", name, concepts, f"{where}: '{prompt.prompt}'")
            retain.setdefault(domain, []).extend(retained)
            check_texts([prompt.prompt for prompt in retain[domain]], where)
    prompt_sets = [(path, file.prompt_sets) for path, file in files]
    return Catalogue(concepts.values(), retain, groups, check_prompt_sets(prompt_sets, concepts, homes))


@dataclass(frozen=True)
class _Entry:
    """A concept as a file gives it; see :class:`Concept`."""

    kind: str
    phrase: str
    views: Mapping[str, View]
    synonyms: tuple[str, ...] = ()
    anchor: str = ""
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Prompts:
    naming: tuple[str, ...] = ()
    implying: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    concepts: Mapping[str, _Entry] = field(default_factory=dict)
    prompts: Mapping[str, Mapping[str, _Prompts]] = field(default_factory=dict)
    retain: Mapping[str, tuple[RetainPrompt, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompt_sets: Mapping[str, PromptSetEntry] = field(default_factory=dict)


def _groups(files: Sequence[tuple[str, _File]], concepts: Mapping[str, Concept]) -> dict[str, tuple[str, ...]]:
    """The groups of all files: the names of their members, which are there."""
    groups: dict[str, tuple[str, ...]] = {}
    for path, file in files:
        for name, members in file.groups.items():
            where = f"{path}: group '{name}'"
            if name in groups or name in concepts:
                raise CatalogueError(f"{where}: there is a {'group' if name in groups else 'concept'} of that name")
            if not NAME.fullmatch(name):
                raise CatalogueError(f"{where}: a name is lower case with hyphens, like 'characters-5'")
            if not members:
                raise CatalogueError(f"{where}: no concepts")
            for member in members:
                check("concept", member, concepts, where)
            groups[name] = members
    return groups


def _with_prompts(concept: Concept, domain: str, prompts: _Prompts, where: str) -> Concept:
    check("domain", domain, concept.views, where)
    view, texts_by_kind = concept.views[domain], {name: texts for name, texts in vars(prompts).items() if texts}
    for name in texts_by_kind:
        if getattr(view, name):
            raise CatalogueError(f"{where}: {name}: the concept already has such prompts")
    return replace(concept, views={**concept.views, domain: replace(view, **texts_by_kind)})


def _checked(
    concept: Concept, concepts: Mapping[str, Concept], groups: Mapping[str, tuple[str, ...]], where: str
) -> Concept:
    """The concept with its neighbours one by one, and their phrases."""
    check("kind", concept.kind, KINDS, where)
    check_texts([concept.phrase], f"{where}: phrase")
    check_texts([concept.phrase, *concept.synonyms], f"{where}: phrase and synonyms")
    for text in (concept.phrase, *concept.synonyms):
        check_phrase(text, f"{where}: phrase and synonyms")
    own = {text.casefold() for text in (concept.phrase, *concept.synonyms)}
    for anchor in (concept.anchor, *(view.anchor or "" for view in concept.views.values())):
        if anchor.casefold() in own:
            raise CatalogueError(f"{where}: anchor: the concept would be mapped to itself, '{anchor}'")
    check_texts(concept.neighbours, f"{where}: neighbours")
    neighbours: dict[str, None] = {}
    for name in concept.neighbours:
        if name in groups:
            neighbours |= dict.fromkeys(groups[name])
            continue
        check("concept", name, concepts, f"{where}: neighbours")
        neighbours[name] = None
        if name == concept.name or concepts[name].phrase.casefold() in own:
            raise CatalogueError(f"{where}: neighbours: '{name}' is the concept itself")
    neighbours.pop(concept.name, None)  # a member of the group
    if not concept.views:
        raise CatalogueError(f"{where}: views: no domain; give one of {', '.join(DOMAINS)}")
    for domain, view in concept.views.items():
        check("domain", domain, DOMAINS, f"{where}: views")
        _check_view(view, f"{where}: views: {domain}")
    phrases = tuple(concepts[name].phrase for name in neighbours)
    return replace(concept, neighbours=tuple(neighbours), neighbours_phrases=phrases)


def _check_view(view: View, where: str) -> None:
    for what in ("judge", "label"):
        check_texts([getattr(view, what)], f"{where}: {what}")
    if not 0 < view.threshold < 1:
        raise CatalogueError(f"{where}: threshold: {view.threshold:g} is not between 0 and 1")
    for what in ("naming", "implying", "synonyms"):
        check_texts(getattr(view, what), f"{where}: {what}")
    if not view.naming and view.prompt_set is None:
        raise CatalogueError(f"{where}: no prompts; give 'naming' or 'prompt_set'")
