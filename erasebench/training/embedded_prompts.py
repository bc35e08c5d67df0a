"""Embeddings of the prompts around a phrase, and the sums of them that closed forms need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel


@dataclass(frozen=True)
class EmbeddedPrompts:
    """The prompts around one phrase to erase.

    Attributes:
        phrase: what is erased.
        text: the prompts, embedded: ``n`` of them.
        own: bool ``[n, length]``: the phrase's own tokens.
        ends: bool ``[n, length]``: tokens with the id of the end of text.
        moment: ``sum e e^T`` over all tokens of all prompts, float64 ``[width, width]`` (MACE's eq. 7).
        around: ``sum e_f e_f^T`` over the tokens around the phrase (its eq. 2).
        mapped: ``sum e_g e_f^T`` of the same tokens around the mapping (its eq. 2).
    """

    phrase: str
    text: Conditioning
    own: Tensor
    ends: Tensor
    moment: Tensor
    around: Tensor
    mapped: Tensor

    @classmethod
    def of(cls, model: DiffusionModel, templates: Sequence[str], phrase: str, mapping: str) -> EmbeddedPrompts:
        """Embed a phrase and what it is mapped to in templates, whose ``{}`` they fill."""
        prompts = [template.format(phrase) for template in templates]
        with torch.no_grad():
            text = model.embed(prompts)
            other = model.embed([template.format(mapping) for template in templates]).embeddings.cpu().double()
        every = text.embeddings.cpu().double()
        ids = model.token_ids(prompts)
        own = torch.zeros_like(ids, dtype=torch.bool)
        keys, values = [], []
        for row, (template, e, g) in enumerate(zip(templates, every, other, strict=True)):
            start, stop = span(model, template, phrase)
            own[row, start:stop] = True
            key, value = coexisting(e, g, (start, stop), span(model, template, mapping))
            keys.append(key)
            values.append(value)
        every = every.flatten(0, 1)
        f, mapped = torch.cat(keys), torch.cat(values)
        ends = ids == model.tokenizer.eos_token_id
        return cls(phrase, text, own, ends, every.T @ every, f.T @ f, mapped.T @ f)


def span(model: DiffusionModel, template: str, phrase: str) -> tuple[int, int]:
    """The start and stop of a phrase's tokens in a template that holds it, the start token counted."""
    before, _, _ = template.partition("{}")
    length = model.tokenizer.model_max_length
    first, own = (len(model.tokenizer(text, add_special_tokens=False).input_ids) for text in (before, phrase))
    return min(1 + first, length), min(1 + first + own, length)


def coexisting(
    concept: Tensor, mapping: Tensor, span_concept: tuple[int, int], span_mapping: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The embeddings of the words around a concept, and of the same words around its mapping, one to one.

    Args:
        concept: embeddings ``[length, width]`` of a prompt with the concept.
        mapping: those of the prompt with the mapping in its place.
        span_concept: where the concept's own tokens start and stop.
        span_mapping: where the mapping's do; both start at the same place.

    Returns:
        ``e_f`` and ``e_g`` (eq. 1), each ``[n, width]``: what stands before, and what stands behind up to the end of
        the padding, as far as both have it.
    """
    start, rest = span_concept[0], len(concept) - max(span_concept[1], span_mapping[1])
    parts = [
        torch.cat([e[:start], e[stop : stop + rest]])
        for e, (_, stop) in ((concept, span_concept), (mapping, span_mapping))
    ]
    return parts[0], parts[1]


def text_moment(model: DiffusionModel, prompts: Sequence[str]) -> tuple[Tensor, int]:
    """``sum e e^T`` over all tokens of the prompts, padding included: float64 ``[width, width]``; and their number."""
    width = model.unet.config.cross_attention_dim
    total, count = torch.zeros(width, width, dtype=torch.float64), 0
    for start in range(0, len(prompts), 64):
        with torch.no_grad():
            e = model.embed(prompts[start : start + 64]).embeddings.cpu().double().flatten(0, 1)
        total += e.T @ e
        count += len(e)
    return total, count
