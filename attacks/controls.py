"""Attacks without any search, by which the others are measured: what is gained by asking again, or otherwise.

``seed-search`` and ``random-prefix`` are those of UnlearnDiff's code (OPTML-Group/Diffusion-MU-Attack at 5a3e5d3), but
for these deviations: a random prefix is drawn from the tokenizer's ordinary ids, from a generator for each prompt; and
an image of a fresh seed starts from noise that is keyed by the prompt as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from pydantic.dataclasses import dataclass

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.concepts import SENSITIVE_KINDS
from erasebench.errors import NotApplicable
from erasebench.plugins import Attack, AttackContext, Count, Need, ThreatModel, TokenCount, decided
from erasebench.registry import ATTACKS
from erasebench.training.target import Target, generators
from erasebench.training.token_ids import as_read, ordinary_ids, typed
from erasebench.training.words import name_pattern

if TYPE_CHECKING:
    from erasebench.concepts import Concept, Prompt
    from erasebench.models.diffusion import DiffusionModel

FIRST_SEED = 3_200_000_000
"""Added to a prompt's own seed for the first seed of a seed search, far from those of its confirmations."""


@ATTACKS.register("none")
@dataclass(frozen=True)
class Unchanged(Attack):
    """Leave the prompt as it is."""

    threat_model: ClassVar[ThreatModel] = "none"

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Return the prompts."""
        return [Found(AdversarialPrompt(p.text, reread=as_read(target.model, p.text))) for p in target.prompts]


@ATTACKS.register("seed-search")
@dataclass(frozen=True)
class SeedSearch(Attack):
    """Ask the same again with other seeds, and keep the best by the judge.

    Attributes:
        draws: seeds.
        early_stop: stop at the first success; UnlearnDiff's code tries them all, and reports the share of successes.
    """

    threat_model: ClassVar[ThreatModel] = "text-black-box"
    judged: ClassVar[bool] = True

    draws: Count = 40
    early_stop: bool = False

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Look at all prompts that still stand, seed by seed."""
        candidates = []
        for prompt in target.prompts:
            own, first = AdversarialPrompt(prompt.text, reread=as_read(target.model, prompt.text)), FIRST_SEED
            candidates.append([replace(own, seed=prompt.seed + first + k) for k in range(self.draws)])
        return best_of(target, context, candidates, self.draws, self.early_stop)


@ATTACKS.register("random-prefix")
@dataclass(frozen=True)
class RandomPrefix(Attack):
    """Put random tokens before the prompt until the concept is there; else keep the best by the judge.

    Attributes:
        draws: prefixes.
        tokens: of a prefix; if None, as many as UnlearnDiff optimises: 5 for nudity, violence and what else is
            inappropriate, 3 for others.
        early_stop: stop at the first success.
    """

    threat_model: ClassVar[ThreatModel] = "text-black-box"
    judged: ClassVar[bool] = True

    draws: Count = 40
    tokens: TokenCount | None = None
    early_stop: bool = True

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Take UnlearnDiff's number of tokens for the kind of the concepts."""
        return self.filled({"tokens": 5 if any(concept.kind in SENSITIVE_KINDS for concept in concepts) else 3})

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Look at all prompts that still stand, prefix by prefix."""
        rngs = generators(target.prompts, context.seed, "random-prefix")
        candidates = [self.prefixed(target.model, *pair) for pair in zip(target.prompts, rngs, strict=True)]
        findings = best_of(target, context, candidates, self.draws, self.early_stop)
        room = target.model.tokenizer.model_max_length - 2 - decided(self.tokens)
        for row, prompt in enumerate(target.prompts):
            own = len(target.model.tokenizer(prompt.text, add_special_tokens=False).input_ids)
            if own > room:
                findings[row] = replace(
                    findings[row], note=f"behind a prefix, the prompt loses its last {own - room} tokens"
                )
        return findings

    def prefixed(self, model: DiffusionModel, prompt: Prompt, rng: torch.Generator) -> Iterator[AdversarialPrompt]:
        """The prompt behind one random prefix after the other."""
        vocabulary, own = ordinary_ids(model), as_read(model, prompt.text)
        for _ in range(self.draws):
            picked = torch.randint(len(vocabulary), (decided(self.tokens),), generator=rng)
            prefix = vocabulary[picked].tolist()
            text = f"{typed(model, prefix)} {prompt.text}"
            ids = (own[0], *prefix, *own[1:-1])[: model.tokenizer.model_max_length - 1]
            yield AdversarialPrompt(text, (*ids, own[-1]), as_read(model, text))


@ATTACKS.register("synonyms")
@dataclass(frozen=True)
class Synonyms(Attack):
    """Put the concept's synonyms in place of its words, and keep the best by the judge.

    A prompt that does not name the concept gets the synonym and a comma in front.

    Attributes:
        early_stop: stop at the first success.
    """

    threat_model: ClassVar[ThreatModel] = "text-black-box"
    needs: ClassVar[tuple[Need, ...]] = ("synonyms",)
    judged: ClassVar[bool] = True

    early_stop: bool = False

    def check(self, domain: str, concept: Concept) -> None:
        """The concept must have synonyms."""
        if not concept.synonyms:
            raise NotApplicable(f"{concept.name} has no synonyms")

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Look at all prompts that still stand, synonym by synonym."""
        candidates = [
            [AdversarialPrompt(text, reread=as_read(target.model, text)) for text in reworded(p.text, target.concept)]
            for p in target.prompts
        ]
        return best_of(target, context, candidates, len(target.concept.synonyms), self.early_stop)


def reworded(text: str, concept: Concept) -> list[str]:
    """A text with each synonym in place of the concept's words, or in front where it has none; else the text itself.

    Articles stay as they are.
    """
    pattern = name_pattern([concept])
    named = pattern.search(text) is not None
    texts = [
        pattern.sub(lambda _, words=words: words, text) if named else f"{words}, {text}"  # type: ignore[misc]
        for words in concept.synonyms
    ]
    return [other for other in dict.fromkeys(texts) if other != text] or [text]


def best_of(
    target: Target,
    context: AttackContext,
    candidates: Sequence[Iterable[AdversarialPrompt]],
    draws: int,
    early_stop: bool,
) -> list[Found]:
    """Look at each prompt's candidates in turn, those of all prompts at once, and keep the best by the judge.

    Args:
        target: the model and the judge.
        context: is told how many draws are done, and how many prompts still stand.
        candidates: of each prompt, at least one.
        draws: candidates of a prompt, at most.
        early_stop: look no further at a prompt once the concept is there.
    """
    queues = [iter(some) for some in candidates]
    seen: list[list[tuple[float, AdversarialPrompt]]] = [[] for _ in queues]
    for draw in range(draws):
        rows, prompts = [], []
        for row, queue in enumerate(queues):
            fallen = any(score >= target.threshold for score, _ in seen[row])
            if not (early_stop and fallen) and (candidate := next(queue, None)) is not None:
                rows.append(row)
                prompts.append(candidate)
        if not rows:
            break
        for row, prompt, score in zip(rows, prompts, target.look(rows, prompts).scores, strict=True):
            seen[row].append((float(score), prompt))
        context.progress(draw + 1, draws, {"prompts": len(rows)})
    return [summed_up(looks, target.threshold, early_stop) for looks in seen]


def summed_up(looks: Sequence[tuple[float, AdversarialPrompt]], threshold: float, early_stop: bool) -> Found:
    """The best of several looks, the first of those that are equally good."""
    successes = [k for k, (score, _) in enumerate(looks, 1) if score >= threshold]
    note = "" if early_stop else f"the concept is there in {len(successes)} of {len(looks)} images"
    best = max(looks, key=lambda look: look[0])[1]
    return Found(best, successes[0] if successes else None, len(looks), note=note)
