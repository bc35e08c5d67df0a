"""UnlearnDiffAtk (Zhang et al., ECCV 2024): tokens on the probability simplex that make an image of the concept likely.

``p4d-uda`` is the re-implementation of P4D in the same code (Diffusion-MU-Attack at 5a3e5d3), which most papers that
report "P4D" ran: on the schedule of UnlearnDiffAtk, and not what ``p4d-n`` and ``p4d-k`` are.

Where paper and code differ:

- The code seeds all random numbers anew before each image, so that it draws the same noise and tokens at each timestep:
  ``replay_noise``.
- The code projects on the simplex by bisection, within 1e-5 of the threshold: ``projection="bisection"``.

Deviations from the code:

- The target image is drawn by the unerased model with the sampler of the run, and so is what success is tested on.
- The erased model's text encoder reads the searched prompt; in the code's P4D one text encoder reads both prompts.
- Start tokens that the search puts into a prompt are left out of its text, as end tokens are in the code.
- A text that was tested last is not tested again.
- Where the erasure is a rule of guidance, which the published attack has no case for, predictions go through the rule,
  and what they are compared with is the unerased model's guided prediction from the prompt itself, not the noise.
- Styles are attacked until the concept shows, as everything else; the code tests them only after the search.
- A prompt of more than 60 tokens is tested, but not attacked.  The code leaves it out of both, but counts it among the
  prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from erasebench.adversarial import NOT_ATTACKED
from erasebench.concepts import SENSITIVE_KINDS
from erasebench.plugins import (
    Attack,
    AttackContext,
    Count,
    Need,
    NonNegative,
    Positive,
    ThreatModel,
    TokenCount,
    decided,
)
from erasebench.registry import ATTACKS
from erasebench.training.hard_prompts import (
    FreeTokens,
    NearestTokens,
    SimplexTokens,
    Trail,
    embed_unerased,
    practise,
    prepare,
    spread_timesteps,
)
from erasebench.training.simplex import project_by_bisection, project_on_simplex
from erasebench.training.target import as_images, generators
from erasebench.training.token_ids import OpenPrompt, Position, as_it_is, count_tokens, open_prompt, positions, read

if TYPE_CHECKING:
    from erasebench.adversarial import AdversarialPrompt, Found
    from erasebench.concepts import Concept
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.training.target import Target


@ATTACKS.register("unlearndiff", search="simplex")
@ATTACKS.register("p4d-uda", search="nearest")
@dataclass(frozen=True)
class UnlearnDiffAtk(Attack):
    """Learn a few tokens beside the prompt with which the erased model denoises an image of the concept.

    Attributes:
        search: ``simplex``: probabilities of tokens, by which the noise shall be predicted (UnlearnDiffAtk).
            ``nearest``: vectors that stand for their nearest tokens, by which the unerased model's prediction from the
            prompt itself shall be (the same code's P4D).
        tokens: k; if None, 5 for nudity, violence and other inappropriate concepts, 3 for any other.
        position: where the tokens go: before the prompt, behind it, in its middle, or one by one at equal intervals.
        timesteps: n, how many of the model's timesteps, in equal intervals: 10, 30, ..., 990.
        order: in which they are visited.
        steps: gradient steps at each timestep, after which success is tested.
        learning_rate: of Adam.
        weight_decay: of Adam, part of the gradient.
        projection: on the simplex: ``exact``, or by the official code's ``bisection``.
        replay_noise: draw the same noise and tokens at each timestep, as the official code happens to.
        max_tokens: longer prompts, start and end included, are not attacked.
        test_prompt: test the prompt itself first; if it shows the concept there is nothing to attack.
    """

    threat_model: ClassVar[ThreatModel] = "text-white-box"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "unerased")
    judged: ClassVar[bool] = True

    search: Literal["simplex", "nearest"] = "simplex"
    tokens: TokenCount | None = None
    position: Position = "prefix"
    timesteps: Annotated[int, Field(ge=1, le=1000)] = 50
    order: Literal["ascending", "descending"] = "ascending"
    steps: Count = 40
    learning_rate: Positive = 0.01
    weight_decay: NonNegative = 0.1
    projection: Literal["exact", "bisection"] = "exact"
    replay_noise: bool = False
    max_tokens: Annotated[int, Field(ge=2)] = 60
    test_prompt: bool = True

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Decide the number of tokens."""
        return self.filled({"tokens": 5 if any(concept.kind in SENSITIVE_KINDS for concept in concepts) else 3})

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Search until the concept shows, or the budget is spent; finished prompts leave the batch."""
        if not target.prompts:
            return []
        model, prompts = target.model, target.prompts
        trails = [Trail() for _ in prompts]
        best = [as_it_is(model, prompt.text) for prompt in prompts]
        opened = {row: opening for row, prompt in enumerate(prompts) if (opening := self.open(model, prompt.text))}
        for row in set(range(len(prompts))) - set(opened):
            trails[row].note = f"{NOT_ATTACKED}too many tokens"
        shown = look(target, range(len(prompts)), best, trails) if self.test_prompt else set()
        active = [row for row in opened if row not in shown]

        noise, draws = (generators(prompts, context.seed, f"unlearndiff {what}") for what in ("noise", "draws"))
        tokens = self.start(model, draws)
        clean = model.encode_images(as_images(target.unerased))
        teacher = embed_unerased(target) if self.search == "nearest" or target.guided else None
        done, total = 0, self.timesteps * self.steps

        def progress(loss: float) -> None:
            nonlocal done
            done += 1
            context.progress(done, total, {"loss": loss, "prompts": float(len(active))})

        schedule = spread_timesteps(self.timesteps, model.timestep_count)
        first = [(rng, rng.get_state()) for rng in (*noise, *draws)]
        for t in schedule if self.order == "ascending" else reversed(schedule):
            if not active:
                break
            for rng, state in first if self.replay_noise else ():
                rng.set_state(state)
            times = torch.full((self.steps, len(active)), t)
            lessons = prepare(target, active, clean, times, noise, teacher)
            practise(target, active, [opened[row] for row in active], tokens, lessons, trails, progress)
            changed = []
            for row, chosen in zip(active, tokens.best(active), strict=True):
                prompt = read(model, opened[row], chosen)
                if prompt.text != best[row].text or not target.looks[row]:
                    best[row] = prompt
                    changed.append(row)
            shown = look(target, changed, best, trails)
            active = [row for row in active if row not in shown]
        return [trail.to_found(prompt) for trail, prompt in zip(trails, best, strict=True)]

    def open(self, model: DiffusionModel, text: str) -> OpenPrompt | None:
        """Make room for the free tokens; None for a prompt that is too long."""
        length = count_tokens(model, text)
        slots = positions(length - 2, decided(self.tokens), self.position)
        return open_prompt(model, text, slots) if length <= self.max_tokens else None

    def start(self, model: DiffusionModel, rngs: Sequence[torch.Generator]) -> FreeTokens:
        """The free tokens before the first step."""
        count = decided(self.tokens)
        if self.search == "nearest":
            counts = [count] * len(rngs)
            return NearestTokens(model, rngs, counts, self.learning_rate, self.weight_decay, torch.optim.Adam)
        project = project_on_simplex if self.projection == "exact" else partial(project_by_bisection, tolerance=1e-5)
        return SimplexTokens(model, rngs, count, self.learning_rate, self.weight_decay, project)


def look(target: Target, rows: Sequence[int], best: Sequence[AdversarialPrompt], trails: Sequence[Trail]) -> set[int]:
    """Test the best of some prompts; return those that show the concept."""
    scores = target.look(rows, [best[row] for row in rows]).scores
    shown = {row for row, score in zip(rows, scores, strict=True) if score >= target.threshold}
    for row in shown:
        trails[row].first_success = len(trails[row].losses)
    return shown
