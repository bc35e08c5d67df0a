"""UCE: Unified Concept Editing in Diffusion Models (Gandikota et al., WACV 2024).

Deviations from the official code, of either variant: everything is computed in float64 on the CPU and rounded once,
because the matrix to invert is ill-conditioned in the code's float32; for a style the paper variant also maps to "art"
(its code does so only when told); and which artists a style preserves is not read from the code's list of 1,734, but
is said with ``preserve="neighbours"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from erasebench.errors import NotApplicable
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import EraseContext, Method, NonNegative, Positive, decided
from erasebench.registry import METHODS
from erasebench.training.closed_forms import edited
from erasebench.training.parameters import select_parameters
from erasebench.training.words import check_anchors

if TYPE_CHECKING:
    from erasebench.concepts import Concept

TEMPLATES = {
    True: ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
    False: ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
}
"""The templates that ``expand_prompts`` adds, for styles and for anything else."""


@METHODS.register("uce")
@dataclass(frozen=True)
class UCE(Method):
    """Edit the keys and values of cross-attention in closed form: concepts come out as their guide, others as before.

    Attributes:
        variant: ``paper``: the code of the paper (unified-concept-editing at f7222e6), which edits the embeddings from
            a concept's last token to the end of the padding, and always preserves the blank prompt.
            ``official-2024``: the present code (28c81ed), which edits the last token's embedding only, and preserves
            nothing by itself.
        lamb: weight of staying close to the old matrix.
        erase_scale: weight of the concepts.
        preserve_scale: weight of what is preserved; if None, the variant's: one over the number of preserved prompts
            but at least 0.1, or 1.
        guide: what concepts are mapped to: one text for all, a list (or a text with commas) of one for each concept in
            their order, or name -> text; a single concept's text may have commas.  If None, and for names that are
            left out, "art" for styles and the blank prompt for anything else.
        preserve: ``variant``: what the variant preserves by itself; ``neighbours``: also the concepts' neighbours.
        technique: ``replace``: values become the guide's.  ``tensor``: the guide's without their component along the
            old ones.
        expand_prompts: also edit five templates around each concept; the present code puts the guide into them too.
    """

    seeded: ClassVar[bool] = False

    variant: Literal["paper", "official-2024"] = "paper"
    lamb: Positive = 0.5
    erase_scale: NonNegative = 1.0
    preserve_scale: NonNegative | None = None
    guide: str | tuple[str, ...] | Mapping[str, str] | None = None
    preserve: Literal["variant", "neighbours"] = "variant"
    technique: Literal["replace", "tensor"] = "replace"
    expand_prompts: bool = False

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Decide each concept's guide, and the variant's weight of what is preserved."""
        prompts = len(self.prompts_to_preserve(concepts))
        scale = max(0.1, 1 / prompts) if self.variant == "paper" else 1.0
        return replace(self, guide=self.guides(concepts)).filled({"preserve_scale": scale})

    def check(self, domain: str, concepts: Sequence[Concept]) -> None:
        """Nothing can be mapped to what is itself erased."""
        check_anchors(concepts, list(zip(concepts, self.guides(concepts), strict=True)))

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts in one step."""
        guided = zip(concepts, self.guides(concepts), strict=True)
        edits = [self.spans(model, *pair) for concept, guide in guided for pair in self.pairs(concept, guide)]
        preserved, scale = self.embeddings_to_preserve(model, concepts), decided(self.preserve_scale)
        weights = {}
        for name, weight in select_parameters(model.unet, "xattn-kv").items():
            old = weight.detach().cpu().double()
            keys = torch.cat([c for c, _ in edits])
            values = torch.cat([self.values(old, c, g) for c, g in edits])
            new = edited(old, keys, values, preserved, self.lamb, self.erase_scale, scale)
            weights[f"unet.{name}"] = new.to(weight.dtype)
        return Erasure(weights)

    def guides(self, concepts: Sequence[Concept]) -> tuple[str, ...]:
        """The guide that each of the concepts is mapped to.

        Raises:
            NotApplicable: there are several guides, but not as many as concepts.
        """
        if self.guide is None or isinstance(self.guide, Mapping):
            guide = self.guide or {}
            return tuple(guide.get(c.name, "art" if c.kind == "style" else "") for c in concepts)
        guides = self.guide
        if isinstance(guides, str):
            guides = (guides,) if len(concepts) == 1 else tuple(part.strip() for part in guides.split(","))
        if len(guides) not in (1, len(concepts)):
            raise NotApplicable(f"guide has {len(guides)} texts for {len(concepts)} concepts: give one, or one each")
        return guides * len(concepts) if len(guides) == 1 else guides

    def pairs(self, concept: Concept, guide: str) -> list[tuple[str, str]]:
        """Prompts to edit, each with the prompt that it is mapped to."""
        pairs = [(concept.phrase, guide)]
        for template in TEMPLATES[concept.kind == "style"] if self.expand_prompts else ():
            pairs.append(
                (template.format(concept.phrase), guide if self.variant == "paper" else template.format(guide))
            )
        return pairs

    def spans(self, model: DiffusionModel, old: str, new: str) -> tuple[Tensor, Tensor]:
        """Embeddings ``[n, width]`` of a concept and those of its guide that they are mapped to, one to one."""
        (c, g), (i, j) = embed(model, [old, new]), last_tokens(model, [old, new])
        length = len(c) - max(i, j) if self.variant == "paper" else 1
        return c[i : i + length], g[j : j + length]

    def prompts_to_preserve(self, concepts: Sequence[Concept]) -> list[str]:
        """Prompts to preserve."""
        prompts = [""] if self.variant == "paper" else []
        if self.preserve == "neighbours":
            prompts += dict.fromkeys(phrase for concept in concepts for phrase in concept.neighbours_phrases)
        return prompts

    def embeddings_to_preserve(self, model: DiffusionModel, concepts: Sequence[Concept]) -> Tensor:
        """Embeddings ``[n, width]`` to preserve."""
        prompts = self.prompts_to_preserve(concepts)
        rows = [embed(model, [prompt])[0] for prompt in prompts]
        if self.variant == "official-2024":
            rows = [row[last_tokens(model, [prompt])] for row, prompt in zip(rows, prompts, strict=True)]
        nothing = torch.zeros(0, model.unet.config.cross_attention_dim, dtype=torch.float64)
        return torch.cat([nothing, *rows])

    def values(self, weight: Tensor, concept: Tensor, guide: Tensor) -> Tensor:
        """``v*``: what the new matrix shall make of a concept's embeddings ``[n, width]``; ``[n, out]``."""
        values: Tensor = guide @ weight.T
        if self.technique == "replace":
            return values
        # The official code takes the span for one long vector: one norm and one component for all of it.
        along: Tensor = concept @ weight.T
        along = along / torch.linalg.vector_norm(along)
        component: Tensor = (values * along).sum()
        return values - component * along


def embed(model: DiffusionModel, prompts: Sequence[str]) -> Tensor:
    """Text embeddings, float64 ``[n, length, width]`` on the CPU."""
    with torch.no_grad():
        return model.embed(prompts).embeddings.cpu().double()


def last_tokens(model: DiffusionModel, prompts: Sequence[str]) -> list[int]:
    """The position of the last token of each prompt's last word; of a blank prompt, that of the start token."""
    encoded = model.tokenizer(list(prompts), truncation=True, max_length=model.tokenizer.model_max_length)
    masks: list[list[int]] = encoded.attention_mask
    return [sum(mask) - 2 for mask in masks]
