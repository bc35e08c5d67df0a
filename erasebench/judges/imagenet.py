"""The common part of judges that are ImageNet classifiers: of the 1000 classes, the ten of Imagenette."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from erasebench.judges.networks import from_pil, run_batches
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import Judge

if TYPE_CHECKING:
    from torch import Tensor

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


class ImagenetteJudge(Judge):
    """A classifier of ImageNet's 1000 classes, asked for the ten of Imagenette.

    Three columns for each class c of Imagenette:

    * ``c``: p(c) / (p(c) + p(the most probable other class)), in [0, 1].  From .5 on, c is the top-1 class, which is
      what ESD and EAP count.
    * ``c probability``: p(c), the softmax over the 1000 classes.
    * ``c rank``: 1 for the most probable class, so that rank <= 5 is EAP's top-5.
    """

    labels = (*IMAGENETTE, *(f"{label} probability" for label in IMAGENETTE))

    def __init__(self) -> None:
        self._network: Any = None

    @abstractmethod
    def load(self) -> Any:
        """The network with its weights, on the CPU: from ``[b, 3, h, w]`` to logits ``[b, 1000]``.

        Raises:
            EraseBenchError: the weights are missing.
        """

    @abstractmethod
    def transform(self) -> Callable[[Any], Tensor]:
        """From a PIL image to what the network reads, ``[3, h, w]``."""

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """Three columns for each class."""
        device = resolve_device(self.device)
        if self._network is None:
            self._network = self.load().eval().requires_grad_(False).to(device)
        classes = imagenet_classes()
        logits = run_batches(self._network, images, from_pil(self.transform()), len(classes), device)
        return Scores(imagenette_columns(logits, classes))


def imagenet_classes() -> list[str]:
    """The names of ImageNet's 1000 classes, in the order of every classifier's outputs, in lower case."""
    from torchvision.models import ResNet50_Weights

    return [name.lower() for name in ResNet50_Weights.IMAGENET1K_V2.meta["categories"]]


def imagenette_columns(logits: NDArray[np.float32], classes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The three columns of each class of Imagenette, see :class:`ImagenetteJudge`.

    Args:
        logits: ``[n, len(classes)]``.
        classes: their names.
    """
    exact = logits.astype(np.float64)
    exp = np.exp(exact - exact.max(axis=1, keepdims=True))
    probability = exp / exp.sum(axis=1, keepdims=True)
    columns = {}
    for label in IMAGENETTE:
        k = classes.index(label)
        best_other = np.delete(exact, k, axis=1).max(axis=1)
        columns[label] = 1 / (1 + np.exp(best_other - exact[:, k]))
        columns[f"{label} probability"] = probability[:, k]
        columns[f"{label} rank"] = 1 + (exact > exact[:, [k]]).sum(axis=1)
    return {name: np.asarray(column, dtype=np.float32) for name, column in columns.items()}
