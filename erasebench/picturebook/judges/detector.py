"""The detector: which labels an image shows, and where.

One YOLOv8n-seg (Jocher, Chaurasia, Qiu 2023) plays the parts that NudeNet and the ResNet-50 and segmentation
judges play for photographs.  Only the network definition and the training loss of ``ultralytics`` are used; the
package is imported when a detector is built, because it is heavy and under the AGPL.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from erasebench.errors import check_name
from erasebench.picturebook.judges.weights import load_single
from erasebench.picturebook.world.canvas import SIZE
from erasebench.picturebook.world.scene import LABELS

THRESHOLD = 0.5
"""A label counts as shown from this confidence on."""
BOX_FLOOR = 0.25
"""The confidence from which on boxes are counted, NudeNet's."""
BATCH = 64
"""Images per forward pass."""
NMS_IOU = 0.6
"""Two boxes of one label that overlap more than this are one instance."""


@dataclass(frozen=True)
class Detection:
    """One instance that the detector found.

    Attributes:
        label: one of ``LABELS``.
        score: confidence in [0, 1].
        box: x0, y0, x1, y1 in pixels.
        mask: bool ``[64, 64]``.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]


def build_detector() -> nn.Module:
    """An untrained YOLOv8n-seg with one class per label.

    The gains of the losses are the defaults of ultralytics, except that classes weigh four times as much: a judge has
    to name things first.
    """
    with quiet_ultralytics():
        from ultralytics.nn import tasks

    module: Any = tasks  # without types
    model = module.SegmentationModel("yolov8n-seg.yaml", nc=len(LABELS), verbose=False)
    model.args = SimpleNamespace(box=7.5, cls=2.0, dfl=1.5, overlap_mask=True)
    network: nn.Module = model
    return network


@contextmanager
def quiet_ultralytics() -> Iterator[None]:
    """Import ultralytics without letting it write settings into the user's home, look for a network or install."""
    redirected = {"YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false", "YOLO_AUTOINSTALL": "false"}
    with tempfile.TemporaryDirectory() as folder:
        redirected["YOLO_CONFIG_DIR"] = folder
        before = {name: os.environ.get(name) for name in redirected}
        os.environ.update(redirected)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def prepare_images(images: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
    """From uint8 ``[n, 64, 64, 3]`` to float32 ``[n, 3, 64, 64]`` in [0, 1].

    Raises:
        ValueError: another type or shape.
    """
    # A copy, because memory-mapped images are read-only and torch warns about those.
    pixels = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images))
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(
            f"expected uint8 images of shape [n, {SIZE}, {SIZE}, 3], got {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels.permute(0, 3, 1, 2).float() / 255


class Detector:
    """A trained detector, for inference only.

    Args:
        model: from :func:`build_detector`, with trained weights; taken over, its batch norms are folded into its
            convolutions.
        device: where it runs.
    """

    def __init__(self, model: nn.Module, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._model = cast(Any, model.float().eval().requires_grad_(False))
        self._model.fuse(verbose=False)
        self._model.to(self.device)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Detector:
        """Load the weights that ``weights.save_half`` wrote."""
        model = build_detector()
        model.load_state_dict(load_single(path))
        return cls(model, device)

    @torch.inference_mode()
    def scores(self, images: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """The highest confidence of any box, for each label.

        Args:
            images: uint8 ``[n, 64, 64, 3]``.

        Returns:
            float32 ``[n, len(LABELS)]`` in [0, 1].  A label may be scored without being the best: an image can
            show several.
        """
        best = [_best(anchors) for anchors, _ in self._forward(images)]
        return torch.cat(best).numpy() if best else np.zeros((0, len(LABELS)), dtype=np.float32)

    @torch.inference_mode()
    def scores_and_boxes(
        self, images: NDArray[np.uint8] | torch.Tensor, label: str, floor: float = BOX_FLOOR
    ) -> tuple[NDArray[np.float32], list[list[float]]]:
        """The scores of all labels, and for each image the confidences of one label's instances, the highest first.

        Args:
            images: uint8 ``[n, 64, 64, 3]``.
            label: whose instances; ``floor`` the confidence from which on.
        """
        check_name("label", label, LABELS)
        best: list[torch.Tensor] = [torch.zeros(0, len(LABELS))]
        boxes: list[list[float]] = []
        for anchors, _ in self._forward(images):
            best.append(_best(anchors))
            boxes += [self._boxes(one, floor, label)[0].tolist() for one in anchors]
        return torch.cat(best).numpy(), boxes

    def top1(self, images: NDArray[np.uint8] | torch.Tensor, threshold: float = THRESHOLD) -> list[str]:
        """The label with the highest confidence in each image, ``"none"`` if it is below the threshold."""
        return [LABELS[int(row.argmax())] if row.max(initial=0) >= threshold else "none" for row in self.scores(images)]

    @torch.inference_mode()
    def detect(
        self, images: NDArray[np.uint8] | torch.Tensor, threshold: float = THRESHOLD
    ) -> list[tuple[Detection, ...]]:
        """Every instance in each image whose confidence reaches the threshold, the most confident first."""
        return [
            self._instances(*sample, threshold)
            for batch in self._forward(images)
            for sample in zip(*batch, strict=True)
        ]

    def masks(
        self, images: NDArray[np.uint8] | torch.Tensor, label: str, threshold: float = THRESHOLD
    ) -> NDArray[np.bool_]:
        """The pixels that show a label: bool ``[n, 64, 64]``, the union over its instances."""
        check_name("label", label, LABELS)
        masks = np.zeros((len(images), SIZE, SIZE), dtype=np.bool_)
        for union, detections in zip(masks, self.detect(images, threshold), strict=True):
            for detection in detections:
                if detection.label == label:
                    union |= detection.mask
        return masks

    def _forward(self, images: NDArray[np.uint8] | torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield per batch: ``[b, 4 + labels + 32, anchors]`` (xywh, confidences, mask coefficients) and
        ``[b, 32, 16, 16]`` mask prototypes."""
        for start in range(0, len(images), BATCH):
            pixels = prepare_images(images[start : start + BATCH]).to(self.device)
            (anchors, prototypes), _ = self._model(pixels)
            yield anchors, prototypes

    def _instances(self, anchors: torch.Tensor, prototypes: torch.Tensor, threshold: float) -> tuple[Detection, ...]:
        score, label, boxes, coefficients = self._boxes(anchors, threshold)
        if not len(score):
            return ()
        logits = torch.einsum("kn,khw->nhw", coefficients, prototypes)[None]
        logits = functional.interpolate(logits, (SIZE, SIZE), mode="bilinear", align_corners=False)[0]
        centre = torch.arange(SIZE, device=boxes.device) + 0.5
        x0, y0, x1, y1 = (edge[:, None] for edge in boxes.unbind(1))
        columns, rows = (centre >= x0) & (centre <= x1), (centre >= y0) & (centre <= y1)
        masks = ((logits > 0) & rows[:, :, None] & columns[:, None, :]).cpu().numpy()
        return tuple(
            Detection(LABELS[int(index)], float(value), (box[0], box[1], box[2], box[3]), mask)
            for index, value, box, mask in zip(label, score, boxes.tolist(), masks, strict=True)
        )

    def _boxes(
        self, anchors: torch.Tensor, threshold: float, only: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The boxes of an image after overlaps are removed, the most confident first: of all labels or of one.

        Returns:
            Confidences ``[n]``, labels ``[n]``, corners ``[n, 4]`` in pixels, mask coefficients ``[32, n]``.
        """
        from torchvision.ops import batched_nms, box_convert

        score, label = anchors[4 : 4 + len(LABELS)].max(dim=0)
        chosen = score >= threshold
        if only is not None:
            chosen &= label == LABELS.index(only)
        score, label, candidates = score[chosen], label[chosen], anchors[:, chosen]
        boxes = box_convert(candidates[:4].T, "cxcywh", "xyxy")
        order = batched_nms(boxes, score, label, NMS_IOU)
        return score[order], label[order], boxes[order], candidates[4 + len(LABELS) :, order]


def _best(anchors: torch.Tensor) -> torch.Tensor:
    """The highest confidence of each label in each image, ``[b, labels]``, on the CPU."""
    return anchors[:, 4 : 4 + len(LABELS)].amax(dim=2).cpu()
