"""LPIPS: how far an image is from the unerased model's image of the same prompt and seed."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from erasebench.judges.networks import check_images, from_pil
from erasebench.judges.weights_files import PackageFile, WeightFile
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import PairedJudge
from erasebench.registry import JUDGES

ALEXNET = WeightFile(
    "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79"
)
"""torchvision's, trained on ImageNet."""
LINEAR = PackageFile("lpips", "lpips>=0.1.4", "lpips", "weights/v0.1/alex.pth", "df73285e")
"""The authors' code, and how much each channel counts, as they fitted it to people's judgements."""
BATCH = 16
"""Pairs of images per forward pass."""


@JUDGES.register("lpips")
class Lpips(PairedJudge):
    """LPIPS v0.1 on AlexNet between an image and the unerased model's, at full size (Zhang et al. 2018), from 0 on.

    So it is measured for artists by Bui et al. (2024, Adversarial Preservation) and Gong et al. (2024, RECE): high
    where a style is erased, low where it is kept.  Computed by the authors' package, from pixels in [-1, 1].
    """

    labels = ("distance",)
    weights = (ALEXNET, LINEAR)
    size: ClassVar[int | None] = None
    """Pixels to which the shorter side is resized first; None for images as they are."""

    def __init__(self) -> None:
        self._network: Any = None

    def identity(self) -> dict[str, str]:
        """Version of the package, weights, and the size."""
        size = {} if self.size is None else {"size": str(self.size)}
        return {"version": f"1, lpips {LINEAR.version()}", "weights": f"{ALEXNET.hash()}+{LINEAR.hash()}", **size}

    def compare(self, images: Images, originals: Images) -> Scores:
        """One column, ``distance``; 0 for equal images."""
        import torch
        from torchvision import transforms

        check_images(images)
        if images.shape != originals.shape:
            raise ValueError(f"images {list(images.shape)}, but originals {list(originals.shape)}")
        device = resolve_device(self.device)
        if self._network is None:
            self._network = load_network().to(device)
        resize = [] if self.size is None else [transforms.Resize(self.size)]
        transform = from_pil(transforms.Compose([*resize, transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]))
        distances = [np.zeros(0, dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                pair = (
                    torch.stack([transform(image) for image in part[start : start + BATCH]]).to(device)
                    for part in (images, originals)
                )
                distances.append(self._network(*pair).flatten().float().cpu().numpy())
        return Scores({"distance": np.concatenate(distances)})


@JUDGES.register("lpips-64")
class Lpips64(Lpips):
    """LPIPS of images whose shorter side is first resized to 64 pixels, as in ESD's script (Gandikota et al. 2023).

    Resized by torchvision: bilinear, with antialiasing.  Not comparable with LPIPS at full size.
    """

    size = 64


def load_network() -> Any:
    """The authors' network with torchvision's AlexNet, on the CPU: from two ``[b, 3, h, w]`` to ``[b, 1, 1, 1]``.

    Raises:
        EraseBenchError: the weights are missing.
    """
    linear, trained = LINEAR.find(), ALEXNET.find()
    import torch
    from lpips import LPIPS

    with warnings.catch_warnings():
        # It builds AlexNet, here without weights, by arguments that torchvision no longer likes.
        warnings.filterwarnings("ignore", "The parameter 'pretrained'|Arguments other than a weight enum")
        network = LPIPS(net="alex", version="0.1", pnet_rand=True, model_path=str(linear), verbose=False)
    state = torch.load(trained, map_location="cpu", weights_only=True)
    # Its slices keep the numbers of torchvision's layers: slice2.3.weight is features.3.weight.
    names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    network.net.load_state_dict({name: state[theirs] for name, theirs in names.items()})
    return network.eval().requires_grad_(False)
