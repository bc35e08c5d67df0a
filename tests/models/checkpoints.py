"""Checkpoints of a tiny model, LoRAs among them, and what is read of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from erasebench.methods.checkpoint import Checkpoint
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from tests.tiny import concept, erase_context, state

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONVOLUTION = "mid_block.resnets.0.conv1"
QUERY = "encoder.layers.0.self_attn.q_proj"


def erase(path: Path, model: DiffusionModel, **settings: Any) -> Erasure:
    erasure: Erasure = Checkpoint(str(path), **settings).erase(model, [concept("church")], erase_context())
    return erasure


def outputs(model: DiffusionModel, erasure: Erasure | None = None) -> Tensor:
    """What the model predicts for a text, through both of its parts."""
    with torch.no_grad(), model.erased(erasure or Erasure()):
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        return model.predict_noise(x, torch.tensor([300]), model.embed(["church"]))


def changed(model: DiffusionModel, *names: str) -> dict[str, Tensor]:
    """The named parameters with something added."""
    own = state(model)
    return {name: own[name] + 0.5 for name in names}


def factors(model: DiffusionModel, name: str, rank: int = 2) -> tuple[Tensor, Tensor]:
    """Up and down of a LoRA, with the kernel of a convolution in the latter."""
    shape = model.parameters()[f"{name}.weight"].shape
    rng = torch.Generator().manual_seed(len(name))
    tail = (1,) * (len(shape) - 2)
    return torch.randn(shape[0], rank, *tail, generator=rng), torch.randn(rank, *shape[1:], generator=rng)


def with_lora(model: DiffusionModel, names: Mapping[str, float]) -> Erasure:
    """The weights that a LoRA gives, each times its factor, computed one by one."""
    own, weights = state(model), {}
    for name, factor in names.items():
        up, down = factors(model, name)
        change = torch.einsum("or,r...->o...", up.flatten(1), down)
        weights[f"{name}.weight"] = own[f"{name}.weight"] + factor * change
    return Erasure(weights)


def kohya(name: str) -> str:
    part, _, rest = name.partition(".")
    body = rest if part == "unet" or rest.startswith("text_model.") else f"text_model.{rest}"
    return f"lora_{'unet' if part == 'unet' else 'te'}_{body.replace('.', '_')}"


def store(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write a file in the format that its name says."""
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(contiguous, path)
    else:
        torch.save(contiguous, path)
    return path
