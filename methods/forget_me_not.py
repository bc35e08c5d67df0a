"""FMN: Forget-Me-Not (Zhang et al., CVPR workshops 2024), with attention re-steering.

The code's own model is Stable Diffusion 2.1, where padding is not EOS.  On Stable Diffusion 1.x ``use_pooler`` takes in
all of the padding, as the code would: another method, in effect.

Deviations from the official code: the images of a concept are drawn by the unerased model, and their latents are
used without a round trip through the VAE, uncropped and unflipped; a step draws its images with replacement; textual
inversion is of noise, also for a model that predicts v, runs in the model's precision and starts from the concept's
first tokens, which the code is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.attention import cross_attention_maps
from erasebench.training.inversion import TokenPrompts, first_vectors, invert, placeholder
from erasebench.training.latents import noisy, training_latents
from erasebench.training.parameters import TwoWeights, select_parameters, training_attention
from erasebench.training.trace import Trace
from erasebench.training.words import token_positions

if TYPE_CHECKING:
    from erasebench.concepts import Concept

INVERTED_TOKENS = 4
NORM, NORM_PULL = 0.4, 100.0
"""After each step of textual inversion the norm of an embedding goes towards the first number, by the second times the
learning rate of the way (at most all of it)."""


@METHODS.register("fmn")
@dataclass(frozen=True)
class ForgetMeNot(Method):
    """Fine-tune the model until its cross-attention passes the concept's tokens by.

    Attributes:
        parameters: what is trained: everything, or the cross-attention (the code's ``only_optimize_ca``).
        steps: gradient steps.
        learning_rate: of AdamW.
        batch_size: images in a gradient step.
        weight_decay: of AdamW.
        gradient_clip: largest norm of a gradient.
        use_pooler: also re-steer attention to EOS, wherever its id stands.
        textual_inversion: first learn embeddings of four new tokens from the concept's images, and use them in place
            of the concept's own.
        inversion_steps: gradient steps of textual inversion, of one image each.
        inversion_learning_rate: of its AdamW.
        inversion_weight_decay: of its AdamW.
        pictures: how many images to draw of each concept.
        sampling_steps: of DDIM, for the images.
        guidance_scale: of classifier-free guidance, for the images.
    """

    parameters: Literal["full", "xattn"] = "full"
    steps: Count = 35
    learning_rate: Positive = 2e-6
    batch_size: Count = 1
    weight_decay: NonNegative = 0.01
    gradient_clip: Positive = 1.0
    use_pooler: bool = True
    textual_inversion: bool = True
    inversion_steps: Count = 500
    inversion_learning_rate: Positive = 1e-3
    inversion_weight_decay: NonNegative = 0.1
    pictures: Count = 8
    sampling_steps: SamplingSteps = 50
    guidance_scale: NonNegative = 7.5

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts; each image of a step is of one drawn at random."""
        rng = torch.Generator("cpu").manual_seed(context.seed)
        total = self.steps + (self.inversion_steps * len(concepts) if self.textual_inversion else 0)
        trace = Trace(context, total)
        record, latents, texts, masks = {}, [], [], []
        for concept in concepts:
            latents.append(self.draw(model, concept, rng))
            phrase, inverted = concept.phrase, None
            if self.textual_inversion:
                inverted = self.invert(model, concept, latents[-1], trace, rng)
                phrase, record[concept.name] = placeholder(INVERTED_TOKENS), inverted
            prompt = template(concept).format(phrase)
            positions = concept_positions(model, prompt, phrase, self.use_pooler)
            masks.append(positions.expand(self.pictures, -1))
            with torch.no_grad():
                if inverted is None:
                    text = model.embed([prompt])
                else:
                    text = TokenPrompts.of(model, [template(concept)], INVERTED_TOKENS).embed(model, inverted)
                texts.append(text.expand(self.pictures))
        images, embedded, mask_of = torch.cat(latents), Conditioning.cat(texts), torch.cat(masks)
        weights = TwoWeights(select_parameters(model.unet, self.parameters))
        with weights, training_attention(model.device), cross_attention_maps(model.unet) as maps:
            parameters = weights.parameters
            adam = torch.optim.AdamW(parameters.values(), lr=self.learning_rate, weight_decay=self.weight_decay)
            for _ in range(self.steps):
                chosen = torch.randint(len(images), (self.batch_size,), generator=rng)
                x, t, _ = noisy(model, images[chosen], rng)
                maps.clear()
                model.predict(x, t, embedded[chosen])
                loss = resteering_loss(maps, mask_of[chosen])
                trace.step(loss=loss.item(), stage="attention")
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters.values(), self.gradient_clip)
                adam.step()
            # What follows the last cross-attention has no gradient.
            reached = [name for name, parameter in parameters.items() if parameter.grad is not None]
        changed = {f"unet.{name}": weights.trained[name] for name in reached}
        return Erasure(changed, trace=tuple(trace.rows), record=record)

    def draw(self, model: DiffusionModel, concept: Concept, rng: torch.Generator) -> Tensor:
        """Latents ``[pictures, c, h, w]`` of the concept's images."""
        prompts = [template(concept).format(concept.phrase)] * self.pictures
        sampler = Sampler("ddim", self.sampling_steps, self.guidance_scale)
        latents: Tensor = training_latents(model, prompts, sampler, rng)
        return latents

    def invert(
        self, model: DiffusionModel, concept: Concept, latents: Tensor, trace: Trace, rng: torch.Generator
    ) -> Tensor:
        """Textual inversion (Gal et al., ICLR 2023): token embeddings ``[4, width]`` for which the model draws the
        images ``latents [n, c, h, w]``.

        They start from those of the concept's first tokens, filled up from N(0, 1).
        """
        rate = self.inversion_learning_rate
        return invert(
            model,
            latents,
            [template(concept)],
            first_vectors(model, concept.phrase, INVERTED_TOKENS, rng),
            trace,
            rng,
            steps=self.inversion_steps,
            learning_rate=rate,
            weight_decay=self.inversion_weight_decay,
            adjust=lambda vectors: pulled(vectors, min(1.0, NORM_PULL * rate)),
        )


def template(concept: Concept) -> str:
    """The prompt of a concept's images, with a gap for its name."""
    return "a photo in the style of {}" if concept.kind == "style" else "a photo of {}"


def concept_positions(model: DiffusionModel, prompt: str, phrase: str, use_pooler: bool) -> Tensor:
    """The mask, bool ``[1, length]``, of a prompt's tokens that are the concept's or, if so wished, have the id of EOS.

    Raises:
        EraseBenchError: none is the concept's: it is blank or too long.
    """
    positions = token_positions(model, prompt, phrase)
    if not positions:
        raise EraseBenchError(f"'{phrase}' has no tokens among those that the text encoder reads of '{prompt}'")
    ids = model.token_ids([prompt])
    mask = (ids == model.tokenizer.eos_token_id) if use_pooler else torch.zeros_like(ids, dtype=torch.bool)
    mask[:, positions] = True
    return mask


def resteering_loss(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """One Frobenius norm, not squared, over the attention that every layer, head and pixel pays to the concept.

    Args:
        maps: of each layer the attention probabilities ``[n, heads, pixels, length]``.
        mask: the concept's tokens, bool ``[n, length]``.
    """
    paid = [probabilities.movedim(-1, 1)[mask].flatten().float() for probabilities in maps]
    loss: Tensor = torch.linalg.vector_norm(torch.cat(paid))
    return loss


def pulled(vectors: Tensor, share: float) -> Tensor:
    """Vectors ``[n, width]`` whose norms have gone a share of the way to :data:`NORM`."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    longer: Tensor = vectors / norms * (norms + share * (NORM - norms))
    return longer
