"""FMN: Forget-Me-Not (Zhang et al., CVPR workshops 2024), with attention re-steering.

The code's own model is Stable Diffusion 2.1, where padding is not EOS.  On Stable Diffusion 1.x ``use_pooler`` takes in
all of the padding, as the code would: another method, in effect.

Deviations from the official code: the pictures of a concept are drawn by the unerased model, and their latents are
used without a round trip through the VAE, uncropped and unflipped; a step draws its pictures with replacement; textual
inversion is of noise, also for a model that predicts v, runs in the model's precision and starts from the concept's
first tokens, which the code is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.method import EraseContext, check_positive, check_sampling
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.attention import cross_attention_maps
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
class ForgetMeNot:
    """Fine-tune the model until its cross-attention passes the concept's tokens by.

    Attributes:
        parameters: what is trained: everything, or the cross-attention (the code's ``only_optimize_ca``).
        steps: gradient steps.
        learning_rate: of AdamW.
        batch_size: pictures in a gradient step.
        weight_decay: of AdamW.
        gradient_clip: largest norm of a gradient.
        use_pooler: also re-steer attention to EOS, wherever its id stands.
        textual_inversion: first learn embeddings of four new tokens from the concept's pictures, and use them in place
            of the concept's own.
        inversion_steps: gradient steps of textual inversion, of one picture each.
        inversion_learning_rate: of its AdamW.
        inversion_weight_decay: of its AdamW.
        pictures: how many to draw of each concept.
        sampling_steps: of DDIM, for the pictures.
        guidance_scale: of classifier-free guidance, for the pictures.
    """

    parameters: Literal["full", "xattn"] = "full"
    steps: int = 35
    learning_rate: float = 2e-6
    batch_size: int = 1
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    use_pooler: bool = True
    textual_inversion: bool = True
    inversion_steps: int = 500
    inversion_learning_rate: float = 1e-3
    inversion_weight_decay: float = 0.1
    pictures: int = 8
    sampling_steps: int = 50
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        check_sampling(self)
        check_positive(self, "steps", "learning_rate", "batch_size", "gradient_clip", "inversion_steps")
        check_positive(self, "inversion_learning_rate", "pictures")
        for name in ("weight_decay", "inversion_weight_decay"):
            if not getattr(self, name) >= 0:
                raise EraseBenchError(f"{name} must be at least 0, not {getattr(self, name)}")

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts; each picture of a step is of one drawn at random."""
        rng = torch.Generator("cpu").manual_seed(context.seed)
        total = self.steps + (self.inversion_steps * len(concepts) if self.textual_inversion else 0)
        trace = Trace(context, total)
        record, latents, texts, masks = {}, [], [], []
        for concept in concepts:
            latents.append(self.draw(model, concept, rng))
            phrase, inverted = concept.phrase, None
            if self.textual_inversion:
                inverted = self.invert(model, concept, latents[-1], trace, rng)
                phrase, record[concept.name] = PLACEHOLDER, inverted
            prompt = template(concept).format(phrase)
            positions = concept_positions(model, prompt, phrase, self.use_pooler)
            masks.append(positions.expand(self.pictures, -1))
            with torch.no_grad(), replaced_tokens(model, prompt, inverted):
                texts.append(model.encode([prompt]).expand(self.pictures, -1, -1))
        data = torch.cat(latents), torch.cat(texts), torch.cat(masks)
        weights = TwoWeights(select_parameters(model.unet, self.parameters))
        with weights, training_attention(model.device), cross_attention_maps(model.unet) as maps:
            parameters = weights.parameters
            adam = torch.optim.AdamW(parameters.values(), lr=self.learning_rate, weight_decay=self.weight_decay)
            for _ in range(self.steps):
                chosen = torch.randint(len(data[0]), (self.batch_size,), generator=rng)
                x, text, mask = (rows[chosen.to(rows.device)] for rows in data)
                x, t, _ = noisy(model, x, rng)
                maps.clear()
                model.predict(x, t, text)
                loss = resteering_loss(maps, mask)
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
        """Latents ``[pictures, c, h, w]`` of the concept's pictures."""
        prompts = [template(concept).format(concept.phrase)] * self.pictures
        sampler = Sampler("ddim", self.sampling_steps, self.guidance_scale)
        latents: Tensor = training_latents(model, prompts, sampler, rng)
        return latents

    def invert(
        self, model: DiffusionModel, concept: Concept, latents: Tensor, trace: Trace, rng: torch.Generator
    ) -> Tensor:
        """Textual inversion (Gal et al., ICLR 2023): token embeddings ``[4, width]`` for which the model draws the
        pictures ``latents [n, c, h, w]``.

        They start from those of the concept's first tokens, filled up from N(0, 1).
        """
        embedding = model.text_encoder.get_input_embeddings().weight
        ids = model.tokenizer(concept.phrase, add_special_tokens=False).input_ids[:INVERTED_TOKENS]
        random = torch.randn((INVERTED_TOKENS - len(ids), embedding.shape[1]), generator=rng).to(embedding)
        vectors = nn.Parameter(torch.cat([embedding.detach()[ids], random]))
        prompt = template(concept).format(PLACEHOLDER)
        rate = self.inversion_learning_rate
        adam = torch.optim.AdamW([vectors], lr=rate, weight_decay=self.inversion_weight_decay)
        with training_attention(model.device), replaced_tokens(model, prompt, vectors):
            for _ in range(self.inversion_steps):
                chosen = torch.randint(len(latents), (1,), generator=rng)
                x, t, noise = noisy(model, latents[chosen.to(latents.device)], rng)
                loss = functional.mse_loss(model.predict_noise(x, t, model.encode([prompt])), noise)
                trace.step(loss=loss.item(), stage="inversion")
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                with torch.no_grad():
                    vectors.copy_(pulled(vectors, min(1.0, NORM_PULL * rate)))
        return vectors.detach()


PLACEHOLDER = " ".join("x" * INVERTED_TOKENS)
"""Words whose tokens stand where the inverted ones go."""


def template(concept: Concept) -> str:
    """The prompt of a concept's pictures, with a gap for its name."""
    return "a photo in the style of {}" if concept.kind == "style" else "a photo of {}"


def concept_positions(model: DiffusionModel, prompt: str, phrase: str, use_pooler: bool) -> Tensor:
    """Which of a prompt's tokens, bool ``[1, length]``, are the concept's or, if so wished, have the id of EOS.

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


@contextmanager
def replaced_tokens(model: DiffusionModel, prompt: str, vectors: Tensor | None) -> Iterator[None]:
    """Let vectors ``[4, width]`` take the place of the token embeddings of :data:`PLACEHOLDER` in a prompt, the only
    one that is encoded meanwhile; None changes nothing."""
    if vectors is None:
        yield
        return
    positions = torch.tensor(token_positions(model, prompt, PLACEHOLDER), device=model.device)

    def replace(layer: Any, inputs: Any, output: Tensor) -> Tensor:
        return output.index_copy(1, positions, vectors.to(output).expand(len(output), -1, -1))

    handle = model.text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
