"""The memory that a model takes, counted from its files: nothing is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass

from erasebench.errors import EraseBenchError
from erasebench.memory import GB, USABLE_SHARE, free_memory
from erasebench.models.loading import ModelSource
from erasebench.models.original_layout import PARTS
from erasebench.models.single_file import read_header

NUMBERS = {"float32": 4, "bfloat16": 2}
"""Bytes of a weight, by precision; all are held in float32."""
MAPS = {"float32": 58, "bfloat16": 29}
"""Bytes that one image takes at the most, by precision, for each pixel and channel of the VAE decoder's last level.

In bfloat16 Stable Diffusion 1.4's size takes 4.88 GiB on an H200, of which the weights are 3.97 and the rest is this;
of float32, twice as much is assumed."""


@dataclass(frozen=True)
class Footprint:
    """The memory that a model takes.

    Attributes:
        weights: bytes of all weights, and of the copy of the U-Net that samples.
        image: bytes beside them for one image of the model's own size.
        size: of this, pixels a side.
        multiple: that a size has to be of.
    """

    weights: int
    image: int
    size: int
    multiple: int

    @classmethod
    def of(cls, source: ModelSource, dtype: str) -> Footprint:
        """The footprint of a model.

        Args:
            source: the model.
            dtype: the precision that it computes in.
        """
        unet, vae = (
            json.loads((source.folder / part / "config.json").read_text(encoding="utf-8")) for part in ("unet", "vae")
        )
        levels = len(vae["block_out_channels"]) - 1
        size = unet["sample_size"] * 2**levels
        numbers = count_weights(source)
        copy = NUMBERS[dtype] * numbers["unet"]
        image = MAPS[dtype] * vae["block_out_channels"][0] * size**2
        return cls(
            NUMBERS["float32"] * sum(numbers.values()) + copy,
            image,
            size,
            2 ** (levels + len(unet["block_out_channels"]) - 1),
        )

    def needed(self, size: int | None = None) -> int:
        """Bytes for the weights and one image of a size, the model's own if None."""
        return self.weights + round(self.image * ((size or self.size) / self.size) ** 2)

    def largest(self, free: float) -> int:
        """The largest size whose images fit, pixels a side; 0 if none does."""
        room = max(0.0, free - self.weights) / self.image
        return math.floor(self.size * math.sqrt(room) / self.multiple) * self.multiple


def count_weights(source: ModelSource) -> dict[str, int]:
    """The numbers that a model's files hold of each of its networks."""
    counts = dict.fromkeys(source.family.networks, 0)
    for path in source.weight_files:
        for name, shape in read_header(path)[0].items():
            part = _part(name) if source.file else path.parent.name
            if part:  # single files also hold what is not loaded, such as moving averages
                counts[part] += math.prod(shape)
    return counts


def _part(name: str) -> str | None:
    """The network that a weight of a single file is of."""
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), None)


def check_memory(
    source: ModelSource,
    device: str,
    dtype: str,
    gigabytes: float | None,
    size: int | None = None,
    choices: Collection[str] = ("--size", "--dtype"),
) -> None:
    """Raise unless the device, if it is a GPU, has room for a model and one image.

    Args:
        source: the model.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        dtype: the precision that it computes in.
        gigabytes: of the GPU that this process may have; the whole card if None.
        size: of the image, pixels a side; the model's own if None.
        choices: options that the user may set, and that can be advised.

    Raises:
        EraseBenchError: it has not; the message says what would fit.
    """
    if device == "cpu":
        return
    footprint, free = Footprint.of(source, dtype), USABLE_SHARE * free_memory(device, gigabytes)
    needed = footprint.needed(size)
    if needed <= free:
        return
    side, max_side = size or footprint.size, footprint.largest(free) if "--size" in choices else 0
    fitting = [f"--size {max_side}"] if max_side else []
    if "--dtype" in choices and dtype != "bfloat16" and Footprint.of(source, "bfloat16").needed(size) <= free:
        fitting.append("--dtype bfloat16")
    if gigabytes is not None and needed <= USABLE_SHARE * free_memory(device):
        fitting.append(f"--max-memory {math.ceil(needed / USABLE_SHARE / GB * 10) / 10}")
    what = f"--max-memory leaves {free / GB:.2f} GB" if gigabytes is not None else f"it has {free / GB:.2f} GB free"
    raise EraseBenchError(
        f"{device} is too small for this model: its weights and one image of {side} x {side} pixels take about "
        f"{needed / GB:.2f} GB, and {what}; what would fit: {', '.join([*fitting, 'a larger card', '--device cpu'])}"
    )
