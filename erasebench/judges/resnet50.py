"""ResNet-50: which of Imagenette's ten classes a photograph shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from erasebench.judges.networks import from_pil, run_batches
from erasebench.judges.weights_files import WeightFile
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

WEIGHTS = WeightFile("resnet50-11ad3fa6.pth", "https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "11ad3fa6")
"""torchvision's IMAGENET1K_V2, which EAP's published code uses."""
IMAGENETTE = (
    "tench",
    "english springer",
    "cassette player",
    "chain saw",
    "church",
    "french horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
)


@JUDGES.register("resnet50")
class ResNet50(Judge):
    """torchvision's ResNet-50 (IMAGENET1K_V2, with its own transforms) over the 1000 classes of ImageNet.

    Three columns for each class c of Imagenette:

    * ``c``: p(c) / (p(c) + p(the most probable other class)), in [0, 1].  From .5 on, c is the top-1 class, which is
      what ESD and EAP count.  The probability itself would not do with a fixed threshold: these weights were trained
      with mixed pictures and smoothed labels, and are often right with a probability below .5.
    * ``c probability``: p(c), the softmax over the 1000 classes.
    * ``c rank``: 1 for the most probable class, so that rank <= 5 is EAP's top-5.
    """

    labels = IMAGENETTE
    weights = (str(WEIGHTS),)

    def __init__(self) -> None:
        self._network: Any = None

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return {"version": "1", "weights": WEIGHTS.hash()}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """Three columns for each class."""
        from torchvision.models import ResNet50_Weights

        preset, device = ResNet50_Weights.IMAGENET1K_V2, resolve_device(self.device)
        classes = [name.lower() for name in preset.meta["categories"]]
        self._network = self._network or _load(device)
        logits = run_batches(self._network, images, from_pil(preset.transforms()), len(classes), device)
        logits = logits.astype(np.float64)
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability = exp / exp.sum(axis=1, keepdims=True)
        columns = {}
        for label in IMAGENETTE:
            k = classes.index(label)
            best_other = np.delete(logits, k, axis=1).max(axis=1)
            columns[label] = 1 / (1 + np.exp(best_other - logits[:, k]))
            columns[f"{label} probability"] = probability[:, k]
            columns[f"{label} rank"] = 1 + (logits > logits[:, [k]]).sum(axis=1)
        return Scores({name: np.asarray(column, dtype=np.float32) for name, column in columns.items()})


def _load(device: str) -> Any:
    import torch
    from torchvision.models import resnet50

    network = resnet50()
    network.load_state_dict(torch.load(WEIGHTS.find(), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(device)
