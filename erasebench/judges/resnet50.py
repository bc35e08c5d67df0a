"""ResNet-50: which of Imagenette's ten classes a photograph shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from erasebench.judges.imagenet import ImagenetteJudge
from erasebench.judges.weights_files import WeightFile
from erasebench.registry import JUDGES

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = WeightFile("resnet50-11ad3fa6.pth", "https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "11ad3fa6")
"""torchvision's IMAGENET1K_V2, which EAP's published code uses."""


@JUDGES.register("resnet50")
class ResNet50(ImagenetteJudge):
    """torchvision's ResNet-50 (IMAGENET1K_V2, with its own transforms) over the 1000 classes of ImageNet.

    Three columns for each class c of Imagenette:

    * ``c``: p(c) / (p(c) + p(the most probable other class)), in [0, 1].  From .5 on, c is the top-1 class, which is
      what ESD and EAP count.  The probability itself would not do with a fixed threshold: these weights were trained
      with mixed images and smoothed labels, and are often right with a probability below .5.
    * ``c probability``: p(c), the softmax over the 1000 classes.
    * ``c rank``: 1 for the most probable class, so that rank <= 5 is EAP's top-5.
    """

    weights = (WEIGHTS,)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return {"version": "1", "weights": WEIGHTS.hash()}

    def load(self) -> Any:
        """The network with torchvision's weights."""
        import torch
        from torchvision.models import resnet50

        network = resnet50()
        network.load_state_dict(torch.load(WEIGHTS.find(), map_location="cpu", weights_only=True))
        return network

    def transform(self) -> Callable[[Any], Tensor]:
        """The transforms that the weights were evaluated with."""
        from torchvision.models import ResNet50_Weights

        transform: Callable[[Any], Tensor] = ResNet50_Weights.IMAGENET1K_V2.transforms()
        return transform
