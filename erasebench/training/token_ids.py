"""Token ids that a search may use, and what becomes of them when they are typed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erasebench.models.diffusion import DiffusionModel


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
