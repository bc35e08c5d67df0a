"""Searches for hard prompts: discrete tokens in free slots of a prompt, found by gradients.

A step puts tokens into the slots, compares what the erased model predicts from the prompt with what it should predict,
and hands the gradient with respect to the tokens' embeddings on to what the tokens are chosen by.  Prompts of a batch
share nothing but the passes through the networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.training.simplex import draw_indices, project_on_simplex
from erasebench.training.target import Target, draw_noise
from erasebench.training.token_ids import OpenPrompt
from erasebench.training.trace import check_loss

LOSSES = 200
"""The number of points of a loss curve that are kept."""


def vocabulary(model: DiffusionModel) -> Tensor:
    """Embeddings ``[n, width]`` of the tokens that the tokenizer knows; a table may have more rows."""
    return model.token_embeddings.detach()[: len(model.tokenizer)]


def nearest_tokens(vectors: Tensor, unit_table: Tensor) -> Tensor:
    """The tokens whose embeddings have the largest cosines with vectors.

    Args:
        vectors: ``[..., width]``.
        unit_table: embeddings of all tokens, of unit length ``[n, width]``.

    Returns:
        int64 ``[...]``.
    """
    return (functional.normalize(vectors, dim=-1) @ unit_table.T).argmax(-1)


def divide(rows: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Divide rows into parts as long as others are."""
    return [*torch.split(rows, [len(part) for part in parts])]


class FreeTokens(ABC):
    """The means by which the free tokens of prompts are chosen: a parameter for each prompt.

    Attributes:
        parameters: one for each prompt.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.parameters = [nn.Parameter(value) for value in values]
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.parameters)

    @abstractmethod
    def draw(self, rows: Sequence[int]) -> list[Tensor]:
        """Tokens to predict from in this step: int64 ``[k]`` for each of some prompts."""

    @abstractmethod
    def best(self, rows: Sequence[int]) -> list[Tensor]:
        """Tokens that the search would choose now: int64 ``[k]`` for each of some prompts."""

    @abstractmethod
    def pull(self, gradient: Tensor) -> Tensor:
        """The parameters' gradients from those of the drawn tokens' embeddings ``[m, width]``."""

    def step(self, rows: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """Take a step by the gradients of the drawn tokens' embeddings, ``[k, width]`` for each of some prompts."""
        pulled = divide(self.pull(torch.cat([*gradients])), gradients)
        # A parameter without a gradient, and what the optimizer keeps for it, stay as they are.
        self.optimizer.zero_grad(set_to_none=True)
        for row, gradient in zip(rows, pulled, strict=True):
            self.parameters[row].grad = gradient
        self.optimizer.step()


class SimplexTokens(FreeTokens):
    """Rows of token probabilities: a draw is made of each at each step, and the likeliest tokens are the best.

    Gradients reach the probabilities straight through the draw, each clipped to [-1, 1].

    Args:
        model: under attack.
        rngs: of each prompt's draws.
        count: k, free tokens of a prompt.
        learning_rate: of Adam; ``weight_decay`` likewise.
        weight_decay: added to the gradient, as Adam does.
        project: what puts rows on the simplex after each step.
    """

    def __init__(
        self,
        model: DiffusionModel,
        rngs: Sequence[torch.Generator],
        count: int,
        learning_rate: float,
        weight_decay: float,
        project: Callable[[Tensor], Tensor] = project_on_simplex,
    ) -> None:
        self._table, self._rngs, self._project = vocabulary(model), rngs, project
        size = len(self._table)
        super().__init__([project(self._table.new_full((count, size), 1 / size)) for _ in rngs])
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate, weight_decay=weight_decay)

    def draw(self, rows: Sequence[int]) -> list[Tensor]:
        """One draw of each row of probabilities."""
        weights = self._stacked(rows)
        count = weights.shape[1]
        uniform = [torch.rand(count, generator=self._rngs[row], dtype=torch.float64) for row in rows]
        return [*draw_indices(weights, torch.stack(uniform))]

    def best(self, rows: Sequence[int]) -> list[Tensor]:
        """The likeliest tokens."""
        return [*self._stacked(rows).argmax(-1)]

    def pull(self, gradient: Tensor) -> Tensor:
        """``clip(gradient E^T)``, with the table of embeddings E: of every token, as if it had been drawn in part."""
        return functional.hardtanh(gradient @ self._table.T)

    def step(self, rows: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """Take a step, and put the rows back on the simplex."""
        super().step(rows, gradients)
        with torch.no_grad():
            for row, projected in zip(rows, self._project(self._stacked(rows)), strict=True):
                self.parameters[row].copy_(projected)

    def _stacked(self, rows: Sequence[int]) -> Tensor:
        return torch.stack([self.parameters[row].detach() for row in rows])


class NearestTokens(FreeTokens):
    """Free vectors, each of which stands for the token whose embedding is nearest by cosine.

    Gradients with respect to that embedding are applied to the vector (Wen et al., NeurIPS 2023).

    Args:
        model: under attack.
        rngs: of each prompt's first tokens.
        counts: free tokens of each prompt.
        learning_rate: of the optimizer; ``weight_decay`` likewise.
        weight_decay: added to the gradient by Adam, taken off the vectors by AdamW.
        optimizer: of the vectors.
    """

    def __init__(
        self,
        model: DiffusionModel,
        rngs: Sequence[torch.Generator],
        counts: Sequence[int],
        learning_rate: float,
        weight_decay: float,
        optimizer: type[torch.optim.Adam] | type[torch.optim.AdamW],
    ) -> None:
        table = vocabulary(model)
        self._unit = functional.normalize(table, dim=-1)
        first = [
            torch.randint(len(table), (count,), generator=rng).to(table.device)
            for rng, count in zip(rngs, counts, strict=True)
        ]
        super().__init__([table[tokens] for tokens in first])
        self.optimizer = optimizer(self.parameters, lr=learning_rate, weight_decay=weight_decay)

    def draw(self, rows: Sequence[int]) -> list[Tensor]:
        """The nearest tokens."""
        return self.best(rows)

    def best(self, rows: Sequence[int]) -> list[Tensor]:
        """The nearest tokens."""
        vectors = [self.parameters[row].detach() for row in rows]
        return divide(nearest_tokens(torch.cat(vectors), self._unit), vectors)

    def pull(self, gradient: Tensor) -> Tensor:
        """The same."""
        return gradient


def compare(
    target: Target,
    prompts: Sequence[OpenPrompt],
    tokens: Sequence[Tensor],
    latents: Tensor,
    timesteps: Tensor,
    targets: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Compare what the erased model predicts from prompts with tokens in their slots with what it should predict.

    Args:
        target: under attack.
        prompts: ``n`` of them.
        tokens: int64 ``[k]`` for each.
        latents: noisy ones, ``[n, c, h, w]``.
        timesteps: ``[n]``.
        targets: what should be predicted, ``[n, c, h, w]``.

    Returns:
        The mean squared error of each prompt ``[n]``, and its gradients with respect to the embeddings of the tokens,
        ``[k, width]`` for each prompt.
    """
    model = target.model

    def part_of(part: slice) -> tuple[Tensor, list[Tensor]]:
        ids = torch.stack([one.filled(own) for one, own in zip(prompts[part], tokens[part], strict=True)])
        rows = torch.tensor([row for row, prompt in enumerate(prompts[part]) for _ in prompt.slots], device=ids.device)
        places = torch.tensor([slot for prompt in prompts[part] for slot in prompt.slots], device=ids.device)
        vectors = model.token_vectors(ids).detach()
        free = vectors[rows, places].requires_grad_()
        vectors = vectors.index_put((rows, places), free)
        conditioning = model.embed_vectors(ids, vectors, range(ids.shape[1]))
        predicted = target.predict(latents[part], timesteps[part], conditioning)
        losses = (predicted - targets[part]).square().flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(losses.sum(), free)
        return losses.detach(), divide(gradient, tokens[part])

    losses, gradients = zip(*model.batch_sizes.searched.batches(len(prompts), part_of), strict=True)
    return torch.cat(losses), [gradient for own in gradients for gradient in own]


@dataclass
class Trail:
    """The course of the search for one prompt.

    Attributes:
        losses: of each step.
        gradient: the largest norm of a step's gradient with respect to the free tokens' embeddings.
        first_success: after how many steps the test fired first.
        note: for readers.
    """

    losses: list[float] = field(default_factory=list)
    gradient: float | None = None
    first_success: int | None = None
    note: str = ""

    def add(self, loss: float, gradient: float) -> None:
        """Note a step.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        check_loss(loss, len(self.losses) + 1)
        self.losses.append(loss)
        self.gradient = max(self.gradient or 0.0, gradient)

    def to_found(self, prompt: AdversarialPrompt) -> Found:
        """The same with the prompt that was found."""
        losses = thinned(self.losses, LOSSES)
        return Found(prompt, self.first_success, len(self.losses), losses, self.gradient, self.note)


def thinned(values: Sequence[float], limit: int) -> tuple[float, ...]:
    """At most so many values: means of equally many in a row, of fewer at the end."""
    stride = -(-len(values) // limit) or 1
    parts = [values[start : start + stride] for start in range(0, len(values), stride)]
    return tuple(sum(part) / len(part) for part in parts)


def spread_timesteps(count: int, timesteps: int) -> list[int]:
    """So many of the timesteps, in the middles of equal intervals: 10, 30, ..., 990 for 50 of 1,000."""
    interval = timesteps // count
    return [*range(interval // 2, timesteps, interval)][:count]


@dataclass(frozen=True)
class Lessons:
    """Noisy latents of some prompts, and what should be predicted from them, for some steps.

    Attributes:
        latents: ``[steps, n, c, h, w]``.
        timesteps: ``[steps, n]``.
        targets: ``[steps, n, c, h, w]``.
    """

    latents: Tensor
    timesteps: Tensor
    targets: Tensor


def prepare(
    target: Target,
    rows: Sequence[int],
    clean: Tensor,
    timesteps: Tensor,
    rngs: Sequence[torch.Generator],
    teacher: Conditioning | None,
) -> Lessons:
    """Draw the noise of some steps at once, and predict it by the unerased model if that is the teacher.

    Args:
        target: under attack.
        rows: which prompts take part.
        clean: latents of all prompts' images, ``[prompts, c, h, w]``.
        timesteps: ``[steps, rows]``.
        rngs: of all prompts' noise.
        teacher: what the unerased model predicts from, for all prompts; None: the noise itself is wanted.
    """
    steps, device = len(timesteps), target.model.device
    shape = (steps, *clean.shape[1:])
    noise = draw_noise([rngs[row] for row in rows], shape).to(device).transpose(0, 1)
    t = timesteps.to(device)
    repeated = clean[[*rows] * steps]
    x = target.model.add_noise(repeated, noise.flatten(0, 1), t.flatten())
    targets = noise
    if teacher is not None:
        predicted = target.predict_unerased(x, t.flatten(), teacher[[*rows] * steps])
        targets = predicted.view(steps, len(rows), *clean.shape[1:])
        # Classifier-free guidance takes two passes.
        target.spend(rows, steps * (2 if target.guided else 1))
    return Lessons(x.view(steps, len(rows), *clean.shape[1:]), t, targets)


def embed_unerased(target: Target) -> Conditioning:
    """The prompts themselves by the unerased text encoder."""
    with torch.no_grad(), target.as_unerased() as model:
        return model.embed([prompt.text for prompt in target.prompts])


def practise(
    target: Target,
    rows: Sequence[int],
    prompts: Sequence[OpenPrompt],
    tokens: FreeTokens,
    lessons: Lessons,
    trails: Sequence[Trail],
    progress: Callable[[float], None],
) -> None:
    """Take a gradient step for each of the lessons.

    Args:
        target: under attack.
        rows: which prompts take part.
        prompts: those, with free slots.
        tokens: of all prompts, by row.
        lessons: of those that take part.
        trails: of all prompts, by row.
        progress: is told the mean loss of each step.

    Raises:
        FloatingPointError: the search diverged.
    """
    for x, t, targets in zip(lessons.latents, lessons.timesteps, lessons.targets, strict=True):
        losses, gradients = compare(target, prompts, tokens.draw(rows), x, t, targets)
        norms = torch.stack([gradient.norm() for gradient in gradients])
        for row, loss, norm in zip(rows, losses.tolist(), norms.tolist(), strict=True):
            trails[row].add(loss, norm)
        tokens.step(rows, gradients)
        target.spend(rows, target.passes_of_prediction)
        progress(float(losses.mean()))
