"""The common part of judges that are torch networks: images in batches through a network, and numbers back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from erasebench.judging import Images

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Images, or texts, per forward pass."""


def check_images(images: Images) -> None:
    """Raise ``ValueError`` unless the images are uint8 ``[n, height, width, 3]``."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"expected uint8 images of shape [n, height, width, 3], got {images.dtype} {list(images.shape)}"
        )


def run_batches(
    network: Callable[[Tensor], Tensor],
    images: Images,
    transform: Callable[[NDArray[np.uint8]], Tensor],
    width: int,
    device: str,
) -> NDArray[np.float32]:
    """The output of a network for each image, float32 ``[n, width]``.

    Args:
        network: from ``[b, 3, h, w]`` on the device to ``[b, width]``.
        images: uint8 ``[n, height, width, 3]``.
        transform: from one image ``[height, width, 3]`` to what the network reads, ``[3, h, w]``.
        width: of the result, which may have no rows.
        device: where the network is.
    """
    import torch

    check_images(images)
    parts = [np.zeros((0, width), dtype=np.float32)]
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.stack([transform(image) for image in images[start : start + BATCH]])
            parts.append(network(batch.to(device)).float().cpu().numpy())
    return np.concatenate(parts)


def from_pil(transform: Callable[[Any], Tensor]) -> Callable[[NDArray[np.uint8]], Tensor]:
    """A transform of PIL images, such as torchvision's, as one of arrays."""
    from PIL import Image

    return lambda image: transform(Image.fromarray(np.ascontiguousarray(image)))


@contextmanager
def torchscript() -> Iterator[None]:
    """Load TorchScript files, as OpenAI's CLIP and clean-fid's Inception are, without torch's word that it is old."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
        yield
