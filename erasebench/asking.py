"""The prompts of a run: of its concepts, of others and of nothing in particular, and who judges the images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from erasebench.concepts import OWN_KINDS, Catalogue, Concept, Prompt, View
from erasebench.config import RunConfig, parse_method
from erasebench.errors import EraseBenchError, check_name
from erasebench.models.loading import ModelSource
from erasebench.prompt_sets import PromptSets
from erasebench.prompts import composed_prompts, own_prompts, read_retain, repeat
from erasebench.registry import JUDGES
from erasebench.settings import (
    check_judges,
    chosen_view,
)
from erasebench.stages import judge

NEIGHBOURS = "neighbours"
"""Stands, among other concepts, for each concept's own neighbours."""


@dataclass(frozen=True)
class Asked:
    """The prompts that are asked of a concept, and its judges.

    Attributes:
        concept: the concept.
        views: what the model's domain knows of each of its parts; ``seconds`` what a second judge looks for, if any.
        prompts: one for each image; of a joint concept, each shows the part that it is of.
        synonyms: likewise, prompts by synonyms alone.
        composed: likewise, prompts for one of its parts and another object at once.
    """

    concept: Concept
    views: tuple[View, ...]
    seconds: tuple[View, ...]
    prompts: tuple[Prompt, ...]
    synonyms: tuple[Prompt, ...]
    composed: tuple[Prompt, ...]


class Asker:
    """Finds what a run asks.

    Args:
        config: the run.
        catalogue: the concepts.
        source: the model.

    Raises:
        EraseBenchError: a kind of prompts, another concept, a judge or a prompt set that there is not.
    """

    def __init__(self, config: RunConfig, catalogue: Catalogue, source: ModelSource) -> None:
        self.config, self.catalogue, self.source = config, catalogue, source
        check_judges(config.judges)
        for kind in config.prompt_kinds:
            check_name("kind of prompt", kind, OWN_KINDS)
        for name in config.others:
            check_name("other concept", name, (NEIGHBOURS, *catalogue.names(), *catalogue.groups()))
        self.prompt_sets = PromptSets(catalogue.prompt_sets, config.prompt_sets, source.domain)

    def ask(self, concept: Concept) -> Asked:
        """Return the prompts that are asked of a concept, and its judges."""
        views = tuple(map(self.view, concept.parts))
        seconds = [self._second_view(part, view) for part, view in zip(concept.parts, views, strict=True)]
        prompts = [self._prompts(part, view) for part, view in zip(concept.parts, views, strict=True)]
        synonyms = [self._synonyms(view) for view in views]
        if concept.members:
            prompts, synonyms = (
                [_showing(part, own) for part, own in zip(concept.parts, of, strict=True)] for of in (prompts, synonyms)
            )
        composed = composed_prompts(concept.parts, self._others(concept), self.config.seed)[: self.config.prompts]
        return Asked(
            concept,
            views,
            tuple(filter(None, seconds)),
            _distinct(prompts),
            _distinct(synonyms),
            tuple(repeat(composed, self.config.images_per_prompt)),
        )

    def others(self, concept: Concept) -> tuple[list[Concept], tuple[Prompt, ...]]:
        """The other concepts that the rows of a concept are asked for, and their prompts.

        They are the same for every concept of the run, so that the unerased model's images are, unless they are each
        concept's own neighbours; prompts of what a row erases are left out when it is measured.
        """
        parts = self._others(concept)
        return parts, _distinct(_showing(part, self._prompts(part, self.view(part))) for part in parts)

    def _others(self, concept: Concept) -> list[Concept]:
        neighbours = [one for one in map(self.catalogue.get, concept.neighbours) if self.source.domain in one.views]
        named = [
            part
            for name in self.config.others
            for part in (neighbours if name == NEIGHBOURS else self.catalogue.get(name).parts)
        ]
        return list({part.name: part for part in named}.values())

    def view(self, concept: Concept) -> View:
        """A concept as the model's domain knows it, with the judge that the run asks.

        Raises:
            EraseBenchError: the domain does not know it, or the judge has no such label.
        """
        view = concept.views.get(self.source.domain)
        if view is None:
            raise EraseBenchError(
                f"the concept '{concept.name}' has no judge and no prompts in the domain '{self.source.domain}' of the "
                f"model '{self.source.name}', but in: {', '.join(concept.views) or 'none'}"
            )
        return chosen_view(view, self.config.judges)

    def _second_view(self, concept: Concept, view: View) -> View | None:
        """The target of the second judge in images of a concept: its phrase, or the label of the first."""
        text = self.config.second_judge
        if text is None:
            return None
        name, options = parse_method(text)
        for option in options:
            check_name(f"option of the second judge {name}", option, ("label", "threshold"))
        phrased = bool(JUDGES.get(name).presets.get("phrased"))
        label = options.get("label", concept.phrase if phrased else view.label)
        threshold = options.get("threshold", View.threshold)
        if not isinstance(label, str) or not label.strip():
            raise EraseBenchError(f"second judge {text}: the label is {label!r}, which is no text")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
            raise EraseBenchError(f"second judge {text}: the threshold is {threshold!r}, which is no number")
        if name == view.judge:
            raise EraseBenchError(
                f"the second judge {name} is the first judge of the concept '{concept.name}' already; name another "
                "(`erasebench list judges` shows them)"
            )
        labels = judge.make_judge(name, label if phrased else "", self.source.domain).labels
        try:
            if labels is not None:
                check_name("label", label, labels)
        except EraseBenchError as error:
            raise EraseBenchError(
                f"the second judge {name} cannot judge the concept '{concept.name}': {error}; a label that it has is "
                f"asked for as {name}[label=...]"
            ) from None
        return View(name, label, float(threshold))

    def _prompts(self, concept: Concept, view: View) -> list[Prompt]:
        """The prompts of a concept, one for each image."""
        seed, count = self.config.seed, self.config.prompts
        prompts = self.prompt_sets.ask(concept.name, view.prompt_set, seed)
        kinds = "" if prompts is not None else f" of the kinds {', '.join(self.config.prompt_kinds) or 'none'}"
        prompts = (own_prompts(view, self.config.prompt_kinds, seed) if prompts is None else prompts)[:count]
        if not prompts:
            raise EraseBenchError(
                f"the concept '{concept.name}' has no prompts{kinds} in the domain '{self.source.domain}'; give some "
                "in a file of your own (--concept-files)"
            )
        return repeat(prompts, self.config.images_per_prompt)

    def _synonyms(self, view: View) -> list[Prompt]:
        """The prompts by synonyms alone, as many as there are others."""
        prompts = own_prompts(view, ("synonym",), self.config.seed)[: self.config.prompts]
        return repeat(prompts, self.config.images_per_prompt)

    def retain(self) -> list[Prompt]:
        """The unrelated prompts, one for each image."""
        seed = self.config.seed
        prompts = self.prompt_sets.retain(seed)
        if self.config.retain_file:
            if prompts is not None:
                raise EraseBenchError("--retain-file and a prompt set both give unrelated prompts; give one of them")
            prompts = read_retain(self.config.retain_file, seed)
        elif prompts is None:
            known = self.catalogue.retain(self.source.domain)
            prompts = [Prompt(one.prompt, one.prompt, seed, "retain", one.shows) for one in known]
        if not prompts:
            raise EraseBenchError(
                f"no other prompts for the domain '{self.source.domain}': name captions of COCO by --prompt-sets "
                "coco-30k=auto (`erasebench list prompt-sets` shows them), or give a CSV file with a column 'prompt', "
                "or COCO's captions_val2017.json, by --retain-file"
            )
        return repeat(prompts, 1)[: self.config.retain_prompts]


def _showing(concept: Concept, prompts: Iterable[Prompt]) -> list[Prompt]:
    return [replace(prompt, shows=(concept.name,)) for prompt in prompts]


def _distinct(lists: Iterable[Sequence[Prompt]]) -> tuple[Prompt, ...]:
    """The prompts of several concepts; one that several have shows them all, and is drawn once."""
    by_key: dict[tuple[str, int], Prompt] = {}
    for prompt in (prompt for own in lists for prompt in own):
        known = by_key.get((prompt.id, prompt.seed))
        shows = (*known.shows, *prompt.shows) if known else prompt.shows
        by_key[prompt.id, prompt.seed] = replace(known or prompt, shows=tuple(dict.fromkeys(shows)))
    return tuple(by_key.values())
