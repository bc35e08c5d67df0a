"""P4D: Prompting4Debugging (Chin et al., ICML 2024).

A prompt is searched from which the erased model predicts what the unerased one predicts from the original prompt.
``p4d-n`` searches a prompt of its own, ``p4d-k`` tokens between those of the original one, ``p4d-union`` tries both.
What most other papers call P4D is ``p4d-uda``.

Where paper and official code (P4D at 2cf3cda) differ, ``variant`` chooses.  In the code

- the target image enters the VAE in [0, 1], although the VAE was trained for [-1, 1], and its latents are sampled, not
  the mode of their posterior;
- token 0 stands behind the end of the text during the search, while images are drawn with the usual padding; for P4D-K
  there is no end of text either: the free tokens take its place;
- candidates are taken before the steps 0, 50, ..., 2950, so that nothing reads the last 50 steps; they are left out.

Deviations from the code, of both variants:

- Each candidate's image is drawn from the prompt's own noise; the code draws one noise after the other.
- The erased model's text encoder reads the searched prompt; in the code the unerased one's reads both.
- Timesteps and first tokens have seeds.
- Images are compared by the CLIP of the domain, not by OpenCLIP's ViT-H/14, and the target image is the one of three of
  which the judge of the concept, not NudeNet's classifier, is surest.  The three are the image of the prompt's own
  noise and two of its confirmations; where the first does not show the concept there are no others.
- Where the erasure is a rule of guidance, the searched prompt's prediction goes through the whole rule, against the
  blank prompt, and is compared with the unerased model's guided prediction.  The code (``filter``) lacks the blank
  prompt for SLD, keeps SLD's momentum from step to step, and compares with an unguided prediction.
- In P4D-K a prompt without room for its free tokens is not attacked; the code reads it in pieces of 77 tokens.  The
  prompt's own tokens are not part of what the optimizer holds; there, their gradient is zero.
- Start and end tokens that the search puts into a prompt are left out of its text.
- A success is noted when a candidate's image shows the concept, but what is returned is the candidate most like the
  target image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from erasebench.adversarial import CONFIRMATIONS, NOT_ATTACKED
from erasebench.models.diffusion import full_precision
from erasebench.plugins import Attack, AttackContext, Count, Need, NonNegative, Positive, ThreatModel, TokenCount
from erasebench.registry import ATTACKS
from erasebench.training.hard_prompts import NearestTokens, Trail, embed_unerased, practise, prepare
from erasebench.training.target import generators
from erasebench.training.token_ids import OpenPrompt, as_it_is, before_every, count_tokens, open_prompt, read

if TYPE_CHECKING:
    from erasebench.adversarial import AdversarialPrompt, Found
    from erasebench.judging import Images
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.training.target import Target

CODE_PADDING = 0
"""The token that the official code has behind the end of a text: "!" in CLIP's vocabulary."""


@ATTACKS.register("p4d-n", free="alone")
@ATTACKS.register("p4d-k", free="between")
@dataclass(frozen=True)
class P4D(Attack):
    """Search a prompt from which the erased model predicts what the unerased one does from the original prompt.

    Attributes:
        free: where free tokens are: ``alone``, without the original prompt (P4D-N), or ``between`` its tokens (P4D-K).
        variant: ``paper``, or what the ``official`` code does differently.
        tokens: N, the free tokens of P4D-N.
        every: K of P4D-K: a free token is put before every K tokens of the prompt.
        steps: gradient steps.
        look_every: steps after which a candidate is drawn.
        images: how many of the unerased model's images the target image is chosen from, at most.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
    """

    threat_model: ClassVar[ThreatModel] = "text-white-box"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "unerased", "clip")

    free: Literal["alone", "between"] = "alone"
    variant: Literal["paper", "official"] = "paper"
    tokens: TokenCount = 16
    every: Count = 3
    steps: Count = 3000
    look_every: Count = 50
    images: Annotated[int, Field(ge=1, le=1 + CONFIRMATIONS)] = 3
    learning_rate: Positive = 0.1
    weight_decay: NonNegative = 0.1

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Search, and return the candidates whose images are most like the target images."""
        model, prompts = target.model, target.prompts
        trails = [Trail() for _ in prompts]
        best = [as_it_is(model, prompt.text) for prompt in prompts]
        opened = {row: opening for row, prompt in enumerate(prompts) if (opening := self.open(model, prompt.text))}
        for row in set(range(len(prompts))) - set(opened):
            trails[row].note = f"{NOT_ATTACKED}no room for free tokens"
        rows = [*opened]
        if rows:
            first, noise, times, posterior = (
                generators(prompts, context.seed, f"p4d {of}") for of in ("tokens", "noise", "timesteps", "latents")
            )
            counts = [len(opened[row].slots) if row in opened else 0 for row in range(len(prompts))]
            tokens = NearestTokens(model, first, counts, self.learning_rate, self.weight_decay, torch.optim.AdamW)
            images = clearest(target, self.images)
            clean = model.encode_images(images) if self.variant == "paper" else encode_as_code(model, images, posterior)
            choice, teacher = Choice(target, images), embed_unerased(target)
            done = 0

            def progress(loss: float) -> None:
                nonlocal done
                done += 1
                context.progress(done, self.steps, {"loss": loss, "prompts": float(len(rows))})

            def look() -> None:
                chosen = zip(rows, tokens.best(rows), strict=True)
                choice.consider(rows, [read(model, opened[row], ids) for row, ids in chosen], best, trails)

            look()
            for steps in self.blocks():
                drawn = [torch.randint(model.timestep_count, (steps,), generator=times[row]) for row in rows]
                lessons = prepare(target, rows, clean, torch.stack(drawn, 1), noise, teacher)
                practise(target, rows, [opened[row] for row in rows], tokens, lessons, trails, progress)
                look()
        return [trail.to_found(prompt) for trail, prompt in zip(trails, best, strict=True)]

    def blocks(self) -> list[int]:
        """Steps between two candidates."""
        whole, rest = divmod(self.steps, self.look_every)
        blocks = [self.look_every] * whole + [rest] * (rest > 0)
        return blocks if self.variant == "paper" else blocks[:-1]

    def open(self, model: DiffusionModel, text: str) -> OpenPrompt | None:
        """Make room for the free tokens; None if there is not enough."""
        if self.free == "alone":
            opened = open_prompt(model, "", range(self.tokens))
        else:
            opened = open_prompt(model, text, before_every(count_tokens(model, text) - 2, self.every))
        return pad_as_code(opened, self.free == "alone") if opened and self.variant == "official" else opened


@ATTACKS.register("p4d-union")
@dataclass(frozen=True)
class P4DUnion(Attack):
    """Try P4D-N and P4D-K: a prompt counts if either brings the concept back."""

    threat_model: ClassVar[ThreatModel] = "text-white-box"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "unerased", "clip")
    members: ClassVar[tuple[str, ...]] = ("p4d-n", "p4d-k")

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """It is made of others, which are run in its place.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"p4d-union is no attack of its own: run {' and '.join(self.members)}")


class Choice:
    """The choice among candidates: those whose images are most like the target images."""

    def __init__(self, target: Target, images: Images) -> None:
        if target.features is None:
            raise TypeError("the target has no features to compare images by")
        self._target, self._features = target, target.features
        self._target_features = target.features(images)
        self._likeness = np.full(len(images), -np.inf)

    def consider(
        self,
        rows: Sequence[int],
        candidates: Sequence[AdversarialPrompt],
        best: list[AdversarialPrompt],
        trails: Sequence[Trail],
    ) -> None:
        """Draw candidates of some prompts, and put those that are better than all before into ``best``."""
        looks = self._target.look(rows, candidates)
        cosines = (self._features(looks.images) * self._target_features[[*rows]]).sum(1)
        for row, candidate, score, cosine in zip(rows, candidates, looks.scores, cosines, strict=True):
            if score >= self._target.threshold and trails[row].first_success is None:
                trails[row].first_success = len(trails[row].losses)
            if cosine > self._likeness[row]:
                self._likeness[row], best[row] = cosine, candidate


def clearest(target: Target, count: int) -> Images:
    """Of each prompt's first images by the unerased model the one that scores best, ``[n, height, width, 3]``."""
    return np.stack([look.images[look.scores[:count].argmax()] for look in target.unerased])


def pad_as_code(prompt: OpenPrompt, with_end: bool) -> OpenPrompt:
    """The prompt with the official code's padding, and with or without the end of its text."""
    ids = prompt.ids.clone()
    ids[prompt.size if with_end else prompt.size - 1 :] = CODE_PADDING
    return replace(prompt, ids=ids)


@torch.no_grad()
def encode_as_code(model: DiffusionModel, images: Images, rngs: Sequence[torch.Generator]) -> Tensor:
    """Scaled latents ``[n, c, h, w]`` that are sampled, each by its own generator, of images taken for [0, 1]."""
    pixels = torch.from_numpy(images).to(model.device).permute(0, 3, 1, 2).to(model.vae.dtype) / 255
    with model.autocast():
        latents = [
            model.vae.encode(image[None]).latent_dist.sample(rng) for image, rng in zip(pixels, rngs, strict=True)
        ]
    return full_precision(torch.cat(latents)) * float(model.vae.config.scaling_factor)
