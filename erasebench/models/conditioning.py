"""The conditioning of a diffusion model: what its text encoder makes of prompts, batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """A batch of embedded prompts.

    Sampling, methods and attacks pass it around; only those whose very subject is the embedding read it.

    Attributes:
        embeddings: one for each token, ``[n, length, width]``.
        pooled: one for the whole prompt, ``[n, width]``, where a family of models has them.
        mask: bool ``[n, length]``: tokens that the model attends to, where a family leaves some out.
    """

    embeddings: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def cat(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Put batches of one length behind each other.

        Raises:
            ValueError: there are none, or some have pooled embeddings or masks and others have not.
        """

        def joined(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if any(tensor is None for tensor in tensors):
                if all(tensor is None for tensor in tensors):
                    return None
                raise ValueError(f"some parts have {name} and others have not")
            return torch.cat(tensors)

        if not parts:
            raise ValueError("there is nothing to put together")
        return cls(torch.cat([part.embeddings for part in parts]), joined("pooled"), joined("mask"))

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def length(self) -> int:
        """Tokens of each prompt."""
        return self.embeddings.shape[1]

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Conditioning:
        """Some of the prompts, as a batch: by number (a batch of one), slice, numbers, or bool ``[n]``.

        Raises:
            IndexError: there is no such prompt.
        """
        if isinstance(rows, int):
            rows = [rows]
        elif isinstance(rows, Tensor) and rows.ndim == 0:
            rows = rows[None]
        elif not isinstance(rows, slice | Tensor):
            rows = list(rows)
        return self._each(lambda tensor: tensor[rows])

    def __iter__(self) -> Iterator[Conditioning]:
        return iter(self.chunk(len(self))) if len(self) else iter(())

    def chunk(self, count: int) -> tuple[Conditioning, ...]:
        """Divide the batch into ``count`` equal parts.

        Raises:
            ValueError: it cannot be divided so.
        """
        if len(self) % count:
            raise ValueError(f"{len(self)} prompts cannot be divided into {count} equal parts")
        size = len(self) // count
        return tuple(self[start : start + size] for start in range(0, len(self), size))

    def expand(self, count: int) -> Conditioning:
        """Stand for one prompt ``count`` times, in the same memory.

        Raises:
            RuntimeError: it holds several prompts.
        """
        return self._each(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def mixed(self, weights: Tensor) -> Conditioning:
        """Make one prompt of all: the sum of their embeddings, weighted by ``[n]``.

        Raises:
            ValueError: they have masks.
        """
        if self.mask is not None:
            raise ValueError("prompts that leave out tokens cannot be mixed")
        return self._each(lambda tensor: torch.tensordot(weights, tensor, dims=1)[None])

    def to(self, device: torch.device | str) -> Conditioning:
        """Move to a device."""
        return self._each(lambda tensor: tensor.to(device))

    def detach(self) -> Conditioning:
        """The same without its gradients."""
        return self._each(Tensor.detach)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        pooled, mask = (part if part is None else change(part) for part in (self.pooled, self.mask))
        return Conditioning(change(self.embeddings), pooled, mask)


def padded_ids(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Token ids of texts, int64 ``[n, length]``, padded and truncated to the tokenizer's own length."""
    length = tokenizer.model_max_length
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids
