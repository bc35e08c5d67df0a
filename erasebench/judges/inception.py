"""Inception features of photographs, for FID."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erasebench.judges.networks import run_batches, torchscript
from erasebench.judges.weights_files import WeightFile
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

WEIGHTS = WeightFile(
    "inception-2015-12-05.pt",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    elsewhere=(Path("./" if platform.system() == "Windows" else "/tmp"),),  # where clean-fid puts it
)
WIDTH = 2048


@JUDGES.register("inception")
class Inception(Judge):
    """clean-fid's Inception features ("clean" mode, Parmar, Zhang, Zhu 2022), as MACE's and RECE's FID use them.

    No column, but an array ``features``, float32 ``[n, 2048]``.
    """

    labels: tuple[str, ...] = ()
    weights = (WEIGHTS,)

    def __init__(self) -> None:
        self._network: Any = None

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return {"version": "1", "weights": WEIGHTS.hash()}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """The array ``features``."""
        import torch
        from cleanfid.resize import build_resizer

        device = resolve_device(self.device)
        if self._network is None:
            from cleanfid.inception_torchscript import InceptionV3W

            with torchscript():
                self._network = InceptionV3W(str(WEIGHTS.find().parent), download=False).eval().to(device)
        resize = build_resizer("clean")

        def transform(image: NDArray[np.uint8]) -> Any:
            return torch.from_numpy(resize(image)).permute(2, 0, 1)

        return Scores({}, {"features": run_batches(self._network, images, transform, WIDTH, device)})
