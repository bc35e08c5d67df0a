"""Textual inversion (Gal et al., ICLR 2023): new tokens for which a frozen model draws given images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.training.latents import noisy
from erasebench.training.parameters import training_attention
from erasebench.training.trace import Trace

Objective = Callable[[Tensor, Conditioning, torch.Generator], Tensor]
"""``(latents [n, c, h, w], conditioning of n prompts, generator) -> loss``, a mean over the n."""


@dataclass(frozen=True)
class TokenPrompts:
    """Prompts with slots for the embeddings of new tokens.

    Attributes:
        ids: int64 ``[n, length]``; in the slots stands whatever fills them.
        slots: int64 ``[n, k]``: where the new tokens go.
    """

    ids: Tensor
    slots: Tensor

    @classmethod
    def of(cls, model: DiffusionModel, templates: Sequence[str], count: int) -> TokenPrompts:
        """Put ``count`` tokens into the gap ``{}`` of each template.

        Raises:
            EraseBenchError: a template has no gap, or the text encoder does not read as far as it.
        """
        prompts, slots = [], []
        for template in templates:
            before, gap, _ = template.partition("{}")
            start = 1 + len(model.tokenizer(before, add_special_tokens=False).input_ids)
            # The last token that is read is the end of text.
            if not gap or start + count >= model.tokenizer.model_max_length:
                raise EraseBenchError(f"'{template}' has no room for {count} tokens at {{}}")
            prompts.append(template.replace("{}", placeholder(count), 1))
            slots.append(range(start, start + count))
        return cls(model.token_ids(prompts), torch.tensor([*map(list, slots)], device=model.device))

    def embed(self, model: DiffusionModel, vectors: Tensor, rows: Sequence[int] | None = None) -> Conditioning:
        """Embed the prompts, or those of some rows, with vectors ``[k, width]`` in their slots; differentiable."""
        ids, slots = (self.ids, self.slots) if rows is None else (self.ids[list(rows)], self.slots[list(rows)])
        return model.embed_vectors(ids, vectors, slots)


def placeholder(count: int) -> str:
    """Words of ``count`` tokens that hold the place of new ones."""
    return " ".join("x" * count)


def first_vectors(model: DiffusionModel, words: str, count: int, rng: torch.Generator) -> Tensor:
    """Token embeddings ``[count, width]`` to start from: those of the words' first tokens, filled up from N(0, 1)."""
    table = model.token_embeddings
    ids = model.tokenizer(words, add_special_tokens=False).input_ids[:count]
    random = torch.randn((count - len(ids), table.shape[1]), generator=rng).to(table)
    return torch.cat([table.detach()[ids], random])


def invert(
    model: DiffusionModel,
    latents: Tensor,
    templates: Sequence[str],
    vectors: Tensor,
    trace: Trace,
    rng: torch.Generator,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    batch_size: int = 1,
    at_once: int | None = None,
    objective: Objective | None = None,
    adjust: Callable[[Tensor], Tensor] | None = None,
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Learn new tokens by AdamW: the model, which stays as it is, shall find the noise in the images from them.

    Args:
        model: with whatever erasure is in force; its guidance has no part in the default objective.
        latents: of the images, ``[n, c, h, w]``.
        templates: prompts of the images, with a gap ``{}`` for the tokens; each image of a step takes one at random.
        vectors: where the tokens' embeddings start, ``[k, width]``.
        trace: is told the loss of each step, of stage ``inversion``.
        rng: of images, templates, timesteps and noise.
        steps: gradient steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: images in a gradient step.
        at_once: images that go through the U-Net together, the gradients of a step's adding up; all if omitted.
        objective: what is minimised; the squared error of the model's own noise prediction if omitted.
        adjust: what becomes of the embeddings after each step, such as a norm that they are held to.
        watch: is shown the gradient of each step, ``[k, width]``.

    Returns:
        The tokens' embeddings, ``[k, width]``.

    Raises:
        FloatingPointError: training diverged.
        EraseBenchError: a template has no room for the tokens.
    """
    learned = nn.Parameter(vectors.detach().clone())
    prompts = TokenPrompts.of(model, templates, len(learned))
    adam = torch.optim.AdamW([learned], lr=learning_rate, weight_decay=weight_decay)
    minimised, size = objective or noise_error(model), at_once or batch_size
    with training_attention(model.device):
        for _ in range(steps):
            chosen = torch.randint(len(latents), (batch_size,), generator=rng)
            rows = [0] * batch_size
            if len(templates) > 1:
                rows = torch.randint(len(templates), (batch_size,), generator=rng).tolist()
            adam.zero_grad()
            loss = 0.0
            for start in range(0, batch_size, size):
                part = chosen[start : start + size]
                own = rows[start : start + size]
                distinct = sorted(set(own))
                text = prompts.embed(model, learned, distinct)[[distinct.index(row) for row in own]]
                share = minimised(latents[part.to(latents.device)], text, rng) * (len(part) / batch_size)
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.item()
            trace.step(loss=loss, stage="inversion")
            assert learned.grad is not None
            if watch is not None:
                watch(learned.grad)
            adam.step()
            if adjust is not None:
                with torch.no_grad():
                    learned.copy_(adjust(learned))
    return learned.detach()


def noise_error(model: DiffusionModel) -> Objective:
    """The mean squared error of a model's own noise prediction, at timesteps uniform over all."""

    def objective(latents: Tensor, text: Conditioning, rng: torch.Generator) -> Tensor:
        x, t, noise = noisy(model, latents, rng)
        return functional.mse_loss(model.predict_noise(x, t, text), noise)

    return objective
