"""Public prompt sets: files of prompts that are no part of this package, and what a right copy of each holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erasebench.concepts._files import NAME, CatalogueError, check, check_texts
from erasebench.domains import DOMAINS

if TYPE_CHECKING:
    from erasebench.concepts.catalogue import Concept

AUTO = "auto"
"""In place of a file: the one that ``erasebench fetch`` brought, or prompts that are kept in the catalogue."""


@dataclass(frozen=True)
class Hub:
    """A file of a data set on the Hugging Face hub.

    Attributes:
        dataset: its id.
        file: the file's path in it.
        revision: the commit.
    """

    dataset: str
    file: str
    revision: str

    def __str__(self) -> str:
        """Its name and where it comes from."""
        return f"{self.file} of the data set {self.dataset} on the Hugging Face hub"


@dataclass(frozen=True)
class Selection:
    """The part of a prompt set for one concept.

    Attributes:
        prompts: prompts that are kept in the catalogue; the others are rows of the set's file.
        where: the rows to take: in each of these columns, the text that has to occur; all rows if empty.
        rows: how many rows these are in a right copy, if that is known.
    """

    prompts: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict, hash=False)
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class PromptSetEntry:
    """A prompt set as a concept file gives it.

    Attributes:
        title: what it is.
        url: the page where people find it.
        licence: of the prompts.
        note: what a user has to know: variants, what of the file is not used.
        domain: the kind of model that it is for.
        download: the URL of the file; '' where it cannot be fetched.
        hub: where the file is on the Hugging Face hub, if it is there.
        file: what the file is called once fetched; NAME.csv if omitted.
        prompt: names that copies give to the column of prompts; the first that is there counts.
        seeds: names of the column of seeds, likewise; () if there are none.
        rows: the numbers of rows that right copies have; any if omitted.
        distinct: how many prompts differ; copies may be spelt otherwise, so that another number is a warning.
        empty: how many prompts may be empty.
        md5_prompts: how the MD5 of the prompts begins, stripped and joined by ``|``; ``md5_seeds`` of the seeds.
        concepts: what it has for each concept.
        retain: its prompts are unrelated to any concept.
    """

    title: str
    url: str
    licence: str = "see its page"
    note: str = ""
    domain: str = "photo"
    download: str = ""
    hub: Hub | None = None
    file: str = ""
    prompt: tuple[str, ...] = ("prompt",)
    seeds: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    distinct: int | None = None
    empty: int = 0
    md5_prompts: str = ""
    md5_seeds: str = ""
    concepts: Mapping[str, Selection] = field(default_factory=dict, hash=False)
    retain: bool = False


@dataclass(frozen=True, kw_only=True)
class PromptSet(PromptSetEntry):
    """A prompt set with its name, by which users give its file; see :class:`PromptSetEntry`."""

    name: str

    @property
    def built_in(self) -> bool:
        """True if all its prompts are in the catalogue, so that there is no file."""
        return not self.retain and all(selection.prompts for selection in self.concepts.values())

    @property
    def can_be_fetched(self) -> bool:
        """True if it is known where its file can be downloaded."""
        return bool(self.download or self.hub)

    @property
    def file_name(self) -> str:
        """The name of its file once fetched."""
        return self.file or f"{self.name}.csv"


def check_prompt_sets(
    files: Sequence[tuple[str, Mapping[str, PromptSetEntry]]],
    concepts: Mapping[str, Concept],
    homes: Mapping[str, str],
) -> list[PromptSet]:
    """The prompt sets of all files, which fit the concepts as these fit their sets.

    Args:
        files: what each file gives, by the file's name.
        concepts: all concepts.
        homes: the file of each.

    Raises:
        CatalogueError: anything wrong with a set; the message names the file and the set.
    """
    prompt_sets: dict[str, PromptSet] = {}
    for path, entries in files:
        for name, entry in entries.items():
            where = f"{path}: prompt set '{name}'"
            if name in prompt_sets:
                raise CatalogueError(f"{where}: there is one already")
            if not NAME.fullmatch(name):
                raise CatalogueError(f"{where}: a name is lower case with hyphens, like 'coco-30k'")
            prompt_sets[name] = PromptSet(name=name, **vars(entry))
            _check(prompt_sets[name], concepts, where)
    for concept in concepts.values():
        for domain, view in concept.views.items():
            if view.prompt_set is not None:
                where = f"{homes[concept.name]}: concept '{concept.name}': views: {domain}: prompt_set"
                check("prompt set", view.prompt_set, prompt_sets, where)
                prompt_set = prompt_sets[view.prompt_set]
                if concept.name not in prompt_set.concepts or prompt_set.domain != domain:
                    raise CatalogueError(f"{where}: '{view.prompt_set}' has no prompts for it in this domain")
    return list(prompt_sets.values())


def _check(prompt_set: PromptSet, concepts: Mapping[str, Concept], where: str) -> None:
    check("domain", prompt_set.domain, DOMAINS, f"{where}: domain")
    check_texts(prompt_set.prompt, f"{where}: prompt")
    check_texts(prompt_set.seeds, f"{where}: seeds")
    if not prompt_set.prompt:
        raise CatalogueError(f"{where}: prompt: no column of prompts")
    if prompt_set.retain == bool(prompt_set.concepts):
        raise CatalogueError(f"{where}: its prompts are for 'concepts', or for none: 'retain: true'")
    for name, selection in prompt_set.concepts.items():
        check("concept", name, concepts, f"{where}: concepts")
        check("domain", prompt_set.domain, concepts[name].views, f"{where}: concepts: {name}")
        check_texts(selection.prompts, f"{where}: concepts: {name}: prompts")
        if bool(selection.prompts) != prompt_set.built_in:
            raise CatalogueError(f"{where}: concepts: either all give 'prompts', or none: the others are in a file")
