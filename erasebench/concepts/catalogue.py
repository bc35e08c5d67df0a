"""Concepts and the files that describe them.

A file may hold five sections, all optional::

    concepts:                     # what there is to erase
      church: {kind: object, phrase: church, anchor: building, views: {photo: {judge: resnet50, label: church}}}
    prompts:                      # prompts too many to stand with their concept: domain, concept, list
      photo: {church: {naming: [an image of a church]}}
    retain:                       # prompts whose pictures erasing should not change, by domain
      photo: [{prompt: an image of a parachute, shows: [parachute]}]
    groups:                       # concepts that are erased together under one name
      buildings: [church, lighthouse]
    prompt_sets:                  # files of prompts that are not shipped: what they are and hold
      mine: {title: my prompts, url: https://example.org, concepts: {church: {where: {tag: church}}}}

The packaged files are read first, then those of other packages (an entry point of the group ``erasebench.concepts``
names a package; the YAML files in its folder are read), then the user's.  Nothing that a file says can be replaced by a
later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from erasebench.concepts._files import NAME, CatalogueError, build, check, check_texts, read
from erasebench.concepts.prompt_sets import PromptSet, PromptSetEntry, check_prompt_sets
from erasebench.domains import DOMAINS, Domain
from erasebench.errors import check_name
from erasebench.registry import data_files, warn
from erasebench.texts import LONGEST_PHRASE, is_blank, shown

KINDS = ("explicit", "violence", "inappropriate", "object", "style", "character", "phrase")
"""What sort of thing a concept is."""
SENSITIVE_KINDS = frozenset({"explicit", "violence", "inappropriate"})
"""Kinds of concepts whose images not everyone wants to see; of these, every image counts in a Score."""
PHRASE_PREFIX = "phrase:"
JOIN = "+"
"""Stands between the names of concepts that are erased together."""


@dataclass(frozen=True)
class View:
    """What one domain knows of a concept.

    Attributes:
        judge: name of the judge that sees the concept.
        label: the judge's score for it.
        threshold: the concept is there if the score is at least this.
        naming: prompts that name the concept.
        implying: prompts that only imply it.
        synonyms: prompts that use only its synonyms.
        prompt_set: name of the prompt set that its prompts are taken from: they are not shipped with this package.
        anchor: what methods map the concept to in this domain, if not to the concept's own anchor: a model that
            never saw a word does not know what to draw for it.
    """

    judge: str
    label: str
    threshold: float = 0.5
    naming: tuple[str, ...] = ()
    implying: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    prompt_set: str | None = None
    anchor: str | None = None


@dataclass(frozen=True)
class Concept:
    """Something to erase.

    Attributes:
        name: lower case with hyphens; or ``phrase:`` and the phrase.
        kind: one of :data:`KINDS`.
        phrase: the words that methods erase.
        synonyms: other words for it, which methods may erase as well.
        anchor: what methods map it to; '' for the blank prompt.
        neighbours: names of related concepts that should survive.
        views: what each of :data:`~erasebench.domains.DOMAINS` knows of it; a domain that is not there knows nothing.
        neighbours_phrases: the phrases of the neighbours.
        members: of a joint concept, the concepts that are erased together; it has no views of its own.
    """

    name: str
    kind: str
    phrase: str
    synonyms: tuple[str, ...] = ()
    anchor: str = ""
    neighbours: tuple[str, ...] = ()
    views: Mapping[str, View] = field(default_factory=dict, hash=False)
    neighbours_phrases: tuple[str, ...] = ()
    members: tuple[Concept, ...] = ()

    @property
    def parts(self) -> tuple[Concept, ...]:
        """The concepts that are erased: the members of a joint one, else this one."""
        return self.members or (self,)

    def spec(self, domain: str) -> dict[str, Any]:
        """What erasure methods read in a domain, fit for JSON; the neighbours as phrases."""
        view = self.views.get(domain)
        anchor = self.anchor if view is None or view.anchor is None else view.anchor
        return {
            "name": self.name,
            "kind": self.kind,
            "phrase": self.phrase,
            "synonyms": list(self.synonyms),
            "anchor": anchor,
            "neighbours": list(self.neighbours_phrases),
        }

    def seen_in(self, domain: str) -> Concept:
        """The concept as methods see it in a domain: without views, and with its neighbours' phrases only."""
        return self.from_spec(self.spec(domain))

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Concept:
        """The concept as methods see it: without views, and with its neighbours' phrases only."""
        return cls(
            name=spec["name"],
            kind=spec["kind"],
            phrase=spec["phrase"],
            synonyms=tuple(spec["synonyms"]),
            anchor=spec["anchor"],
            neighbours_phrases=tuple(spec["neighbours"]),
        )


@dataclass(frozen=True)
class RetainPrompt:
    """A prompt whose picture erasing a concept should leave alone, unless the prompt shows that concept.

    Attributes:
        prompt: the prompt.
        shows: names of the concepts that it asks for, its style among them.
    """

    prompt: str
    shows: tuple[str, ...] = ()


class Catalogue:
    """Concepts by name.

    Args:
        concepts: the concepts, in the order in which they are listed.
        retain: the retain prompts of each domain.
        groups: by name, the names of the concepts that are erased together.
        prompt_sets: public prompt sets.

    Attributes:
        prompt_sets: by name, in the order in which they are listed.
    """

    def __init__(
        self,
        concepts: Iterable[Concept],
        retain: Mapping[str, Sequence[RetainPrompt]] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        prompt_sets: Iterable[PromptSet] = (),
    ) -> None:
        self.prompt_sets: Mapping[str, PromptSet] = {each.name: each for each in prompt_sets}
        self._concepts = {concept.name: concept for concept in concepts}
        self._retain = {domain: tuple(prompts) for domain, prompts in (retain or {}).items()}
        self._groups = {name: tuple(members) for name, members in (groups or {}).items()}

    def get(self, name: str) -> Concept:
        """The concept of a name; ``phrase:red balloon`` makes one of the words "red balloon".

        Of a group's name, and of names with ``+`` between (a phrase last, since it may hold one), the joint concept.

        Raises:
            UnknownNameError: no such concept; the message gives the nearest names.
            CatalogueError: no words after ``phrase:``, or concepts that cannot be erased together.
        """
        if name in self._groups:
            return _joint(name, [self._concepts[member] for member in self._groups[name]])
        if name.startswith(PHRASE_PREFIX):
            return self.phrase(name.removeprefix(PHRASE_PREFIX))
        if JOIN in name:
            parts = [part for text in _divided(name) for part in self.get(text).parts]
            return _joint(JOIN.join(part.name for part in parts), parts)
        check_name("concept", name, (*self._concepts, *self._groups))
        return self._concepts[name]

    def groups(self, pattern: str = "*") -> dict[str, tuple[str, ...]]:
        """The groups whose names match a shell wildcard: the names of their members."""
        return {name: members for name, members in self._groups.items() if fnmatchcase(name, pattern)}

    def names(self, pattern: str = "*") -> tuple[str, ...]:
        """The names that match a shell wildcard, in the order of the files."""
        return tuple(name for name in self._concepts if fnmatchcase(name, pattern))

    def phrase(self, text: str) -> Concept:
        """A concept made of its words alone; CLIP judges it in every domain.

        Raises:
            CatalogueError: there are no words, or far too many.
        """
        words = " ".join(text.split())
        if is_blank(words):
            raise CatalogueError(
                f"{shown(PHRASE_PREFIX + text)} has no words; write for example '{PHRASE_PREFIX}red balloon'"
            )
        _check_phrase(words, f"'{PHRASE_PREFIX}...'")
        views = {name: _phrase_view(words, domain) for name, domain in DOMAINS.items()}
        return Concept(name=PHRASE_PREFIX + words, kind="phrase", phrase=words, views=views)

    def retain(self, domain: str) -> tuple[RetainPrompt, ...]:
        """The retain prompts of a domain; none for photographs, whose prompts are captions that the user has.

        Raises:
            UnknownNameError: no such domain.
        """
        check_name("domain", domain, DOMAINS)
        return self._retain.get(domain, ())


def _divided(name: str) -> Iterator[str]:
    """The names in a joint concept's, each without spaces around it; a phrase is all that follows."""
    rest = name
    while rest:
        rest = rest.strip()
        if rest.startswith(PHRASE_PREFIX):
            yield rest
            return
        first, plus, rest = rest.partition(JOIN)
        yield first.strip()
    if plus:
        yield ""


def _check_phrase(words: str, where: str) -> None:
    if len(words) > LONGEST_PHRASE:
        raise CatalogueError(f"{where}: a phrase of {len(words):,} characters; {LONGEST_PHRASE:,} at most")


def _joint(name: str, members: Sequence[Concept]) -> Concept:
    """The concept that is the erasure of several together."""
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise CatalogueError(f"the concept {shown(name)} names {next(n for n in names if names.count(n) > 1)} twice")
    kinds = dict.fromkeys(member.kind for member in members)
    if len(kinds) > 1 and not SENSITIVE_KINDS.issuperset(kinds):
        raise CatalogueError(
            f"the concepts of {shown(name)} are of the kinds {', '.join(kinds)}, which are not counted alike; erase "
            "those of one kind together"
        )
    kind = next(iter(kinds)) if len(kinds) == 1 else "inappropriate"
    phrases = ", ".join(member.phrase for member in members)
    neighbours = dict.fromkeys(other for member in members for other in member.neighbours if other not in names)
    return Concept(name, kind, phrases, neighbours=tuple(neighbours), members=tuple(members))


def _phrase_view(words: str, domain: Domain) -> View:
    naming = tuple(template.format(words) for template in domain.phrase_templates)
    return View(judge=domain.phrase_judge, label=words, naming=naming)


def load_catalogue(extra: Sequence[Path] = ()) -> Catalogue:
    """Read the packaged concept files, those of other packages, and then the user's own.

    A file of another package that is wrong is left out with a warning.

    Args:
        extra: the user's files; they may add concepts, prompts for concepts without any, and retain prompts.

    Raises:
        CatalogueError: anything wrong with a file; the message names the file and the concept.
    """
    own, theirs = sorted(Path(__file__).parent.glob("*.yaml")), data_files("erasebench.concepts")
    while True:
        try:
            return _read([*own, *theirs, *map(Path, extra)])
        except CatalogueError as error:
            said = str(error).removeprefix("cannot read ")
            wrong = next((path for path in theirs if said.startswith(f"{path}: ")), None)
            if wrong is None:
                raise
            warn(f"a concept file of another package is left out: {error}")
            theirs.remove(wrong)


def _read(paths: Sequence[Path]) -> Catalogue:
    files = [(str(path), build(_File, read(path), str(path))) for path in paths]
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
    for name, concept in concepts.items():
        concepts[name] = _checked(concept, concepts, f"{homes[name]}: concept '{name}'")
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
            try:
                _joint(name, [concepts[member] for member in members])
            except CatalogueError as error:
                raise CatalogueError(f"{path}: {error}") from None
            groups[name] = members
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


def _with_prompts(concept: Concept, domain: str, prompts: _Prompts, where: str) -> Concept:
    check("domain", domain, concept.views, where)
    view, given = concept.views[domain], {name: texts for name, texts in vars(prompts).items() if texts}
    for name in given:
        if getattr(view, name):
            raise CatalogueError(f"{where}: {name}: the concept already has such prompts")
    return replace(concept, views={**concept.views, domain: replace(view, **given)})


def _checked(concept: Concept, concepts: Mapping[str, Concept], where: str) -> Concept:
    """The concept with its neighbours' phrases."""
    check("kind", concept.kind, KINDS, where)
    check_texts([concept.phrase], f"{where}: phrase")
    check_texts([concept.phrase, *concept.synonyms], f"{where}: phrase and synonyms")
    for text in (concept.phrase, *concept.synonyms):
        _check_phrase(text, f"{where}: phrase and synonyms")
    own = {text.casefold() for text in (concept.phrase, *concept.synonyms)}
    for anchor in (concept.anchor, *(view.anchor or "" for view in concept.views.values())):
        if anchor.casefold() in own:
            raise CatalogueError(f"{where}: anchor: the concept would be mapped to itself, '{anchor}'")
    check_texts(concept.neighbours, f"{where}: neighbours")
    for name in concept.neighbours:
        check("concept", name, concepts, f"{where}: neighbours")
        if name == concept.name or concepts[name].phrase.casefold() in own:
            raise CatalogueError(f"{where}: neighbours: '{name}' is the concept itself")
    if not concept.views:
        raise CatalogueError(f"{where}: views: no domain; give one of {', '.join(DOMAINS)}")
    for domain, view in concept.views.items():
        check("domain", domain, DOMAINS, f"{where}: views")
        _check_view(view, f"{where}: views: {domain}")
    return replace(concept, neighbours_phrases=tuple(concepts[name].phrase for name in concept.neighbours))


def _check_view(view: View, where: str) -> None:
    for what in ("judge", "label"):
        check_texts([getattr(view, what)], f"{where}: {what}")
    if not 0 < view.threshold < 1:
        raise CatalogueError(f"{where}: threshold: {view.threshold:g} is not between 0 and 1")
    for what in ("naming", "implying", "synonyms"):
        check_texts(getattr(view, what), f"{where}: {what}")
    if not view.naming and view.prompt_set is None:
        raise CatalogueError(f"{where}: no prompts; give 'naming' or 'prompt_set'")
