"""Mined embeddings, and predictions for embeddings of several lengths."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from erasebench.files import read_hashed, write_hashed
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel


@dataclass
class Mined:
    """The state that the loops so far have left behind; all that the next one needs.

    Attributes:
        concepts: whose embedding each loop mined: an index.
        scores: what verifying gave each loop's embedding.
        embeddings: the pool P_E, each ``[length, width]``.
        banks: latents drawn for each embedding ``[bank, c, h, w]``, if there is a bank.
        adapters: the adapters' factors; none before the first loop.
        trace: figures of each step.
        seconds: time spent.
    """

    concepts: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    banks: list[Tensor] = field(default_factory=list)
    adapters: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    trace: list[Mapping[str, float | str]] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write all in one file, whole or not at all."""
        stream = io.BytesIO()
        torch.save(vars(self), stream)
        write_hashed(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Mined:
        """The state that :meth:`save` wrote; an empty one if it never did, or if the file is damaged."""
        data = read_hashed(path)
        if data is None:
            return cls()
        try:
            return cls(**torch.load(io.BytesIO(data), device, weights_only=True))
        except (RuntimeError, TypeError):
            # Of another version: all that is lost is time.
            return cls()


def predict_each(model: DiffusionModel, x_t: Tensor, t: Tensor, texts: Sequence[Conditioning]) -> list[Tensor]:
    """The predicted noise for each of several texts: one U-Net call for each length."""
    predictions: dict[int, Tensor] = {}
    for length in dict.fromkeys(text.length for text in texts):
        group = [k for k, text in enumerate(texts) if text.length == length]
        together = Conditioning.cat([texts[k] for k in group])
        noises = model.predict_noise(torch.cat([x_t] * len(group)), torch.cat([t] * len(group)), together)
        predictions |= zip(group, noises.chunk(len(group)), strict=True)
    return [predictions[k] for k in range(len(texts))]
