"""The result of an erasure method: the change, never a whole model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.models.guidance import Guidance, from_json, to_json
from erasebench.traces import TRACE, read_trace, write_trace

WEIGHTS, GUIDANCE, RECORD = "erasure.safetensors", "guidance.json", "record.safetensors"
_UP, _DOWN = ".low_rank_up", ".low_rank_down"


@dataclass(frozen=True)
class Erasure:
    """A change of a model.

    Attributes:
        weights: parameters that take new values: ``"unet.<name>"`` or ``"text_encoder.<name>"`` -> tensor.
        low_rank: parameters to which ``up @ down`` is added: name -> (up ``[out, r]``, down ``[r, in]``); of a
            convolution, the weight counts as ``[out, in * height * width]``.
        guidance: how noise predictions are combined from now on, if not by classifier-free guidance.
        trace: figures of each training step, such as its loss, for curves; words where a method finds some.
        record: what else a method found and is worth keeping, such as mined embeddings: name -> tensor.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    low_rank: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    guidance: Guidance | None = None
    trace: tuple[Mapping[str, float | str], ...] = ()
    record: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def parameters_changed(self) -> int:
        """The count of numbers that the change holds; of low-rank changes, those of the factors."""
        factors = (factor for pair in self.low_rank.values() for factor in pair)
        return sum(tensor.numel() for tensor in (*self.weights.values(), *factors))

    def save(self, folder: Path) -> None:
        """Write the change into a folder: safetensors, and JSON for a guidance rule."""
        tensors = dict(self.weights)
        for name, (up, down) in self.low_rank.items():
            tensors |= {name + _UP: up, name + _DOWN: down}
        _save_tensors(tensors, folder / WEIGHTS)
        if self.record:
            _save_tensors(self.record, folder / RECORD)
        if self.guidance is not None:
            (folder / GUIDANCE).write_text(json.dumps(to_json(self.guidance)), encoding="utf-8")
        if self.trace:
            write_trace(folder / TRACE, self.trace)

    @classmethod
    def load(cls, folder: Path) -> Erasure:
        """Read what :meth:`save` wrote."""
        tensors = load_file(folder / WEIGHTS)
        ups = [name.removesuffix(_UP) for name in tensors if name.endswith(_UP)]
        low_rank = {name: (tensors.pop(name + _UP), tensors.pop(name + _DOWN)) for name in ups}
        rule = folder / GUIDANCE
        guidance = from_json(json.loads(rule.read_text(encoding="utf-8"))) if rule.exists() else None
        record = load_file(folder / RECORD) if (folder / RECORD).exists() else {}
        return cls(tensors, low_rank, guidance, read_trace(folder / TRACE), record)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def check_finite(erasure: Erasure) -> None:
    """Raise ``FloatingPointError`` if any number of the change is NaN or infinite."""
    parts = [*erasure.weights.items(), *((n, f) for n, pair in erasure.low_rank.items() for f in pair)]
    for name, tensor in parts:
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"the erasure holds NaN or infinite numbers in {name}")


def check_fits(erasure: Erasure, parameters: Mapping[str, Tensor]) -> None:
    """Raise :class:`EraseBenchError` unless every tensor of an erasure has a parameter of its shape."""
    changes = [(name, list(tensor.shape), False) for name, tensor in erasure.weights.items()]
    for name, (up, down) in erasure.low_rank.items():
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != len(down):
            raise EraseBenchError(
                f"the erasure's factors of {name} have shapes {list(up.shape)} and {list(down.shape)}: no product"
            )
        changes.append((name, [len(up), down.shape[1]], True))
    for name, shape, flat in changes:
        if name not in parameters:
            raise EraseBenchError(f"the erasure changes {name}, which the model does not have")
        own = parameters[name].shape
        if shape != ([own[0], own[1:].numel()] if flat else list(own)):
            raise EraseBenchError(f"the erasure's {name} has shape {shape}, the model's {list(own)}")
