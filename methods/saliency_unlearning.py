"""SalUn: saliency unlearning (Fan et al., ICLR 2024), its part for Stable Diffusion.

Two modes, as published: ``class`` (an object class is relabelled as another one) and ``nsfw`` (naked people as dressed
ones).  For styles nothing is published; they take the class mode.  The nsfw mode is that of all explicit, violent and
inappropriate concepts here, and forgets "a photo of" the concept; published is nudity alone, forgotten by "a photo of a
nude person" (say so by ``forget_prompt``).

Deviations from the official code: the images of the class mode are drawn by the unerased model, not taken from
Imagenette; latents are used without a round trip through the VAE, so that ``x_t`` and the pseudo-label's ``x'_t`` are
the same (the code draws two posterior samples); the losses are of noise, also for a model that predicts v; a step
draws its images with replacement; images to remain are of the anchor and the neighbours; the class mode relabels
as a random neighbour (the code: as the next of Imagenette's classes); where magnitudes tie at the threshold of
saliency, all of them are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from erasebench.concepts import SENSITIVE_KINDS
from erasebench.grammar import with_article
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, decided
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.latents import noisy, training_latents
from erasebench.training.parameters import Pattern, TwoWeights, select_parameters, training_attention
from erasebench.training.trace import Trace
from erasebench.training.words import check_anchors

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Mode = Literal["class", "nsfw"]
Relabel = Literal["anchor", "random"]

MODES: dict[Mode, Mapping[str, Any]] = {
    # The README; the default in the code is 0.1.  Five epochs over about 940 images of a class.
    "class": {"alpha": 0.5, "steps": 590, "relabel": "random"},
    "nsfw": {"alpha": 0.1, "steps": 100, "relabel": "anchor"},
}
"""The meaning of an option that is left at None, in each mode."""


@METHODS.register("salun")
@dataclass(frozen=True)
class SaliencyUnlearning(Method):
    """Train the model, where it is salient for the concept, to predict for it the noise of another prompt.

    Attributes:
        mode: whose settings the options that are None take; if None, ``nsfw`` where every concept is explicit,
            violent or inappropriate, ``class`` otherwise.
        parameters: what may be trained.
        saliency: the share of these numbers that is trained: those with the largest gradients.
        mask_guidance: w in the prediction ``(1 + w) e(x, c) - w e(x, "")`` that saliency is the gradient of.
        relabel: the other prompt: that of the anchor, blank where the catalogue has none, or for each image that of
            a random neighbour (of the anchor where a concept has no neighbours).
        alpha: weight of the diffusion loss of images that are to remain.
        steps: gradient steps.
        learning_rate: of Adam.
        batch_size: images to forget in a gradient step, and as many to remain; also for saliency.
        pictures: how many images to draw to forget, and as many to remain; over all concepts.
        forget_prompt: the prompt of images to forget, ``{}`` stands for the phrase; if None, by kind, see
            :func:`prompt_of`.
        sampling_steps: of DDIM, for the images.
        guidance_scale: of classifier-free guidance, for the images.
    """

    mode: Mode | None = None
    parameters: Pattern = "full"
    saliency: Annotated[float, Field(gt=0, le=1)] = 0.5
    mask_guidance: float = 7.5
    relabel: Relabel | None = None
    alpha: NonNegative | None = None
    steps: Count | None = None
    learning_rate: Positive = 1e-5
    batch_size: Count = 8
    pictures: Count = 800
    forget_prompt: str | None = None
    sampling_steps: SamplingSteps = 50
    guidance_scale: NonNegative = 7.5

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Decide the mode by the concepts' kinds, and take its settings."""
        nsfw = all(concept.kind in SENSITIVE_KINDS for concept in concepts)
        mode: Mode = self.mode or ("nsfw" if nsfw else "class")
        return replace(self, mode=mode).filled(MODES[mode])

    def check(self, domain: str, concepts: Sequence[Concept]) -> None:
        """The concepts must not be relabelled as one of themselves."""
        check_anchors(concepts, [(concept, label) for concept in concepts for label in self.labels(concept, concepts)])

    def labels(self, concept: Concept, concepts: Sequence[Concept]) -> tuple[str, ...]:
        """The phrases that a concept is relabelled as; a neighbour that is erased itself is none."""
        erased = {other.phrase.casefold() for other in concepts}
        neighbours = tuple(phrase for phrase in concept.neighbours_phrases if phrase.casefold() not in erased)
        return neighbours if self.relabel == "random" and neighbours else (concept.anchor,)

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts."""
        rng = torch.Generator("cpu").manual_seed(context.seed)
        steps, alpha = decided(self.steps), decided(self.alpha)
        forget_prompts = [prompt_of(c, c.phrase, self.forget_prompt) for c in concepts]
        pseudo_prompts = [[prompt_of(c, label) for label in self.labels(c, concepts)] for c in concepts]
        remain_prompts = self.remaining(concepts)
        # Image k, and what goes with it, is of prompt k modulo the number of prompts.
        forget, remain = (self.draw(model, prompts, rng) for prompts in (forget_prompts, remain_prompts))
        with torch.no_grad():
            blank, forget_text = model.embed([""]), model.embed(forget_prompts)
            pseudo_texts = [model.embed(prompts) for prompts in pseudo_prompts]
            remain_text = model.embed(remain_prompts)
        trace = Trace(context, steps)
        weights = TwoWeights(select_parameters(model.unet, self.parameters))
        with weights, training_attention(model.device):
            parameters = weights.parameters
            self.accumulate(model, forget, forget_text, blank, rng)
            masks = salient({name: p.grad for name, p in parameters.items() if p.grad is not None}, self.saliency)
            adam = torch.optim.Adam([parameters[name] for name in masks], lr=self.learning_rate)
            for _ in range(steps):
                k = torch.randint(self.pictures, (self.batch_size,), generator=rng)
                j = torch.randint(self.pictures, (self.batch_size,), generator=rng)
                pseudo = Conditioning.cat([one_of(pseudo_texts[int(row) % len(concepts)], rng) for row in k])
                x, t, _ = noisy(model, forget[k.to(forget.device)], rng)
                x_remain, t_remain, noise = noisy(model, remain[j.to(remain.device)], rng)
                with torch.no_grad():
                    relabelled = model.predict_noise(x, t, pseudo)
                predicted = model.predict_noise(
                    torch.cat([x, x_remain]),
                    torch.cat([t, t_remain]),
                    Conditioning.cat([forget_text[k % len(forget_prompts)], remain_text[j % len(remain_prompts)]]),
                )
                forgotten, remained = predicted.chunk(2)
                loss = functional.mse_loss(forgotten, relabelled) + alpha * functional.mse_loss(remained, noise)
                trace.step(loss=loss.item())
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                for name, mask in masks.items():
                    gradient = parameters[name].grad
                    if gradient is not None:
                        gradient.mul_(mask)
                adam.step()
        changed = {f"unet.{name}": weights.trained[name] for name, mask in masks.items() if mask.any()}
        return Erasure(changed, trace=tuple(trace.rows))

    def remaining(self, concepts: Sequence[Concept]) -> list[str]:
        """The prompts of images that are to remain; the blank one if the concepts have no anchors or neighbours."""
        erased = {concept.phrase.casefold() for concept in concepts}
        prompts = [
            prompt_of(concept, phrase)
            for concept in concepts
            for phrase in (concept.anchor, *concept.neighbours_phrases)
            if phrase and phrase.casefold() not in erased
        ]
        return list(dict.fromkeys(prompts)) or [""]

    def draw(self, model: DiffusionModel, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Latents ``[pictures, c, h, w]``, of each prompt in turn."""
        prompts = [prompts[k % len(prompts)] for k in range(self.pictures)]
        sampler = Sampler("ddim", self.sampling_steps, self.guidance_scale)
        latents: Tensor = training_latents(model, prompts, sampler, rng)
        return latents

    def accumulate(
        self, model: DiffusionModel, latents: Tensor, text: Conditioning, blank: Conditioning, rng: torch.Generator
    ) -> None:
        """Add up, in the parameters' ``grad``, the signed gradients of one pass over the images to forget."""
        w = self.mask_guidance
        for start in range(0, len(latents), self.batch_size):
            x, t, noise = noisy(model, latents[start : start + self.batch_size], rng)
            named_text = text[torch.arange(start, start + len(x)) % len(text)]
            both = Conditioning.cat([named_text, blank.expand(len(x))])
            named, unnamed = model.predict_noise(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            loss = -functional.mse_loss((1 + w) * named - w * unnamed, noise)
            loss.backward()  # type: ignore[no-untyped-call]


def salient(gradients: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The numbers whose gradients are among the largest in magnitude, over all tensors together: bool, name -> mask."""
    total = sum(gradient.numel() for gradient in gradients.values())
    threshold = kth_largest(list(gradients.values()), max(1, round(share * total)))
    return {name: gradient.abs() >= threshold for name, gradient in gradients.items()}


def kth_largest(tensors: Sequence[Tensor], k: int) -> float:
    """The k-th largest magnitude in float32 tensors, exactly, in memory that does not grow with their number.

    The bits of float32 magnitudes, read as integers, have the order of the magnitudes: the 16 upper ones are found by
    counting, then among the numbers that share them the 16 lower ones.
    """
    upper = torch.zeros(2**16, dtype=torch.int64)
    for bits in map(magnitude_bits, tensors):
        upper += torch.bincount(bits >> 16, minlength=2**16).cpu()
    high, above = bucket(upper, k)
    lower = torch.zeros(2**16, dtype=torch.int64)
    for bits in map(magnitude_bits, tensors):
        lower += torch.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=2**16).cpu()
    low, _ = bucket(lower, k - above)
    return float(torch.tensor(high << 16 | low, dtype=torch.int32).view(torch.float32))


def magnitude_bits(tensor: Tensor) -> Tensor:
    """The bits of the magnitudes of float32 numbers, as int32 ``[n]``."""
    return tensor.float().abs().flatten().view(torch.int32)


def bucket(counts: Tensor, k: int) -> tuple[int, int]:
    """The bucket that holds the k-th largest, and how many are in those above it."""
    reached = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(reached, k))
    return len(counts) - 1 - place, int(reached[place] - counts.flip(0)[place])


def one_of(texts: Conditioning, rng: torch.Generator) -> Conditioning:
    """One of some texts."""
    return texts[int(torch.randint(len(texts), (), generator=rng))]


def prompt_of(concept: Concept, phrase: str, template: str | None = None) -> str:
    """The prompt for a concept, or for a phrase that takes its place: the blank one for the blank phrase.

    ``an image of a church``, ``an image in the style of Van Gogh``, ``a photo of nudity``.
    """
    if not phrase:
        return ""
    if template is None:
        phrase = with_article(phrase) if concept.kind == "object" else phrase
        template = {"style": "an image in the style of {}", "object": "an image of {}"}.get(
            concept.kind, "a photo of {}"
        )
    return template.replace("{}", phrase)
