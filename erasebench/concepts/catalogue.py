"""Concepts, what domains know of them, and the catalogue that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from erasebench.concepts._files import CatalogueError
from erasebench.concepts.prompt_sets import PromptSet
from erasebench.domains import DOMAINS, Domain
from erasebench.errors import check_name
from erasebench.texts import MAX_PHRASE_LENGTH, is_blank, shown

KINDS = ("explicit", "violence", "inappropriate", "object", "style", "character", "phrase")
"""The sorts of concepts."""
SENSITIVE_KINDS = frozenset({"explicit", "violence", "inappropriate"})
"""Kinds of concepts whose images not everyone wants to see; of these, every image counts in a Score."""
PHRASE_PREFIX = "phrase:"
JOIN = "+"
"""Stands between the names of concepts that are erased together."""


@dataclass(frozen=True)
class View:
    """A concept as one domain knows it.

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
        """The concept as erasure methods read it in a domain, fit for JSON; the neighbours as phrases."""
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
    """A prompt whose image erasing a concept should leave alone, unless the prompt shows that concept.

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
            return joint(name, [self._concepts[member] for member in self._groups[name]])
        if name.startswith(PHRASE_PREFIX):
            return self.phrase(name.removeprefix(PHRASE_PREFIX))
        if JOIN in name:
            texts = list(_divided(name))
            if not all(texts):
                raise CatalogueError(f"an empty name in {shown(name)}: write names with {JOIN} between them")
            parts = [part for text in texts for part in self.get(text).parts]
            return joint(JOIN.join(part.name for part in parts), parts)
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
        check_phrase(words, f"'{PHRASE_PREFIX}...'")
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


def check_phrase(words: str, where: str) -> None:
    """Raise :class:`CatalogueError` if a phrase is far too long."""
    if len(words) > MAX_PHRASE_LENGTH:
        raise CatalogueError(f"{where}: a phrase of {len(words):,} characters; {MAX_PHRASE_LENGTH:,} at most")


def joint(name: str, members: Sequence[Concept]) -> Concept:
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
    own = set(names)  # a hundred celebrities have thousands of neighbours
    neighbours = dict.fromkeys(other for member in members for other in member.neighbours if other not in own)
    return Concept(name, kind, phrases, neighbours=tuple(neighbours), members=tuple(members))


def _phrase_view(words: str, domain: Domain) -> View:
    naming = tuple(template.format(words) for template in domain.phrase_templates)
    return View(judge=domain.phrase_judge, label=words, naming=naming)
