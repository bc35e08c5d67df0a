"""Token ids that a search may use, prompts with free slots for them, and what becomes of both when they are typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from erasebench.adversarial import AdversarialPrompt
from erasebench.models.diffusion import DiffusionModel

Position = Literal["prefix", "suffix", "middle", "insert"]
"""The place of free tokens: before the prompt's own, behind them, in their middle, or one by one at equal intervals."""


def ordinary_ids(model: DiffusionModel) -> Tensor:
    """The tokenizer's ids but for those of start, end and padding: int64 ``[n]`` on the CPU, ascending."""
    special = set(model.tokenizer.all_special_ids)
    return torch.tensor(sorted(set(model.tokenizer.get_vocab().values()) - special))


def as_read(model: DiffusionModel, text: str) -> tuple[int, ...]:
    """The ids that a text is read as: start and end included, padding not, truncated to the text encoder's length."""
    ids: list[int] = model.tokenizer(text, truncation=True, max_length=model.tokenizer.model_max_length).input_ids
    return tuple(ids)


def typed(model: DiffusionModel, ids: Sequence[int]) -> str:
    """The text of some ids; it may be read as others, where they are no whole words or no whole characters."""
    text: str = model.tokenizer.decode(list(ids))
    return text


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt with free slots among its tokens.

    Attributes:
        ids: int64 ``[length]``: start, the prompt's tokens around the slots, end, padding.
        slots: positions of the free tokens.
        size: tokens from start to end, both included.
    """

    ids: Tensor
    slots: tuple[int, ...]
    size: int

    def filled(self, tokens: Tensor) -> Tensor:
        """Token ids ``[length]`` with tokens ``[k]`` in the slots."""
        ids = self.ids.clone()
        ids[list(self.slots)] = tokens.to(ids)
        return ids


def count_tokens(model: DiffusionModel, text: str) -> int:
    """Tokens of a text, start and end included; one more than the model reads stands for any larger number."""
    limit = int(model.tokenizer.model_max_length) + 1
    return len(model.tokenizer(text, truncation=True, max_length=limit).input_ids)


def positions(count: int, free: int, position: Position) -> list[int]:
    """The positions of ``free`` tokens when they are put among ``count`` others; both counted from 0 on."""
    match position:
        case "prefix":
            return [*range(free)]
        case "suffix":
            return [*range(count, count + free)]
        case "middle":
            return [*range(count // 2, count // 2 + free)]
        case "insert":
            interval = count // (free + 1)
            return [interval * (k + 1) + k for k in range(free)]


def before_every(count: int, every: int) -> list[int]:
    """The positions of free tokens of which one is put before every few others, and one behind the last full few."""
    return [*range(0, count + count // every + 1, every + 1)]


def open_prompt(model: DiffusionModel, text: str, slots: Sequence[int]) -> OpenPrompt | None:
    """Make room for free tokens in a prompt; as much of the padding is dropped.

    Args:
        model: whose tokenizer reads the text.
        text: of the prompt; '' for free tokens alone.
        slots: where the free tokens come to stand, counted from the first token after the start.

    Returns:
        None if the text encoder does not read so many tokens.
    """
    (padded,) = model.token_ids([text])
    size = count_tokens(model, text)
    if size + len(slots) > len(padded):
        return None
    own, places = iter(padded[1 : size - 1].tolist()), frozenset(slots)
    end = int(model.tokenizer.eos_token_id)
    middle = [end if k in places else next(own) for k in range(size - 2 + len(slots))]
    tail = padded[size - 1 : len(padded) - len(slots)].tolist()
    ids = torch.tensor([int(padded[0]), *middle, *tail], device=padded.device)
    return OpenPrompt(ids, tuple(slot + 1 for slot in slots), size + len(slots))


def read(model: DiffusionModel, prompt: OpenPrompt, tokens: Tensor) -> AdversarialPrompt:
    """The text of a prompt with tokens ``[k]`` in its slots, and how it is read again.

    Start and end tokens within the text are left out.
    """
    ids = prompt.filled(tokens).tolist()[: prompt.size]
    special = {model.tokenizer.bos_token_id, model.tokenizer.eos_token_id}
    text = typed(model, [token for token in ids[1:-1] if token not in special])
    return replace(as_it_is(model, text), ids=tuple(ids))


def as_it_is(model: DiffusionModel, text: str) -> AdversarialPrompt:
    """A text as it is typed, with the tokens that it is read as."""
    ids = as_read(model, text)
    return AdversarialPrompt(text, ids=ids, reread=ids)
