"""Judge weights on disk: safetensors in half precision, computed with in single precision."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def save_half(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state dict; floating-point tensors as float16, all others as they are."""
    halved = {k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous() for k, v in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halved, path)


def load_single(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict on the CPU; float16 tensors come back as float32."""
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in load_file(path).items()}
