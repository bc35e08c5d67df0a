"""Judge weights on disk."""

from __future__ import annotations

from pathlib import Path

import torch

from erasebench.picturebook.judges.weights import load_single, save_half


def test_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    state = {"weight": torch.tensor([[1.0, 0.1]]), "steps": torch.tensor(70_000)}
    save_half(state, tmp_path / "new" / "x.safetensors")
    loaded = load_single(tmp_path / "new" / "x.safetensors")
    assert loaded["weight"].dtype == torch.float32
    assert torch.equal(loaded["weight"], state["weight"].half().float()) and loaded["steps"] == 70_000
