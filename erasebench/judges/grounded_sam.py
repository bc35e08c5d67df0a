"""Grounded-SAM: which pixels of a photograph show what a phrase names, by Grounding DINO's boxes and SAM's masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erasebench.errors import EraseBenchError, one_line
from erasebench.files import hash_file_once
from erasebench.judges.networks import check_images
from erasebench.judges.weights_files import Progress, Weights, missing, weights_folder
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

THRESHOLD = 0.3
"""A box counts from this confidence on (MACE's)."""


@dataclass(frozen=True)
class ModelFolder(Weights):
    """A model of the Hugging Face hub that the user has to fetch.

    Attributes:
        repository: its name there.
        files: those of its files that are read.
    """

    repository: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        """Its origin."""
        return f"{self.repository} from the Hugging Face hub"

    def find(self) -> Path:
        """The model's folder.

        Raises:
            EraseBenchError: a file is missing; the message gives the command that fetches them all.
        """
        folder = weights_folder() / self.repository.rpartition("/")[2]
        for name in self.files:
            if not (folder / name).is_file():
                fetch = f"hf download {self.repository} {' '.join(self.files)} --local-dir '{folder}'"
                raise missing(f"of {self.repository}", folder / name, fetch)
        return folder

    def fetch(self, folder: Path, on_progress: Progress) -> Path:
        """Download the files from the hub, by its own client, which continues what broke off and shows its progress.

        Raises:
            EraseBenchError: the hub cannot be reached.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        target = folder / self.repository.rpartition("/")[2]
        try:
            snapshot_download(self.repository, allow_patterns=list(self.files), local_dir=target)
        except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise EraseBenchError(f"cannot fetch {self} into {target}: {one_line(error)}") from error
        return target

    def hash(self) -> str:
        """The SHA-256 of the files' hashes.

        Raises:
            EraseBenchError: as :meth:`find`.
        """
        folder = self.find()
        return hashlib.sha256("".join(hash_file_once(folder / name) for name in self.files).encode()).hexdigest()


GROUNDING_DINO = ModelFolder(
    "IDEA-Research/grounding-dino-base",
    (
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ),
)
SAM = ModelFolder("facebook/sam-vit-huge", ("config.json", "model.safetensors", "preprocessor_config.json"))


@JUDGES.register("grounded-sam")
class GroundedSAM(Judge):
    """A segmenter: for each image, the pixels that show the phrase given as its prompt (Ren et al. 2024).

    Grounding DINO (Liu et al. 2023) finds the phrase's boxes, SAM (Kirillov et al. 2023) gives one mask for each; the
    result is their union.  The models and the threshold are those that MACE's code takes with transformers; unlike
    there, SAM gives one mask a box instead of three to be averaged, and masks are not smoothed to polygons.

    The hub gives no hash that could be checked here: those of the files are part of the identity.
    """

    labels = ("area",)
    weights = (GROUNDING_DINO, SAM)

    def identity(self) -> dict[str, str]:
        """Version, threshold and weights: of Grounding DINO, then of SAM."""
        return {"version": "1", "threshold": str(THRESHOLD), "weights": f"{GROUNDING_DINO.hash()}+{SAM.hash()}"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column, ``area``: the share of an image that its mask covers; ``mask``: float32 ``[n, height, width]``.

        Args:
            images: uint8 ``[n, height, width, 3]``.
            prompts: the phrase to look for in each image.
        """
        check_images(images)
        masks = np.zeros(images.shape[:3], dtype=np.float32)
        for mask, image, phrase in zip(masks, images, prompts, strict=True):
            mask[:] = self._segment(image, phrase)
        return segmented(masks)

    def _segment(self, image: NDArray[np.uint8], phrase: str) -> NDArray[np.float32]:
        import torch

        read_boxes, detector, read_masks, segmenter = self._models
        height, width = image.shape[:2]
        # Grounding DINO was trained on lower-case phrases that end with a full stop.
        inputs = read_boxes(images=image, text=f"{phrase.lower().rstrip('.')}.", return_tensors="pt").to(
            detector.device
        )
        with torch.inference_mode():
            (detections,) = read_boxes.post_process_grounded_object_detection(
                detector(**inputs), inputs.input_ids, threshold=THRESHOLD, target_sizes=[(height, width)]
            )
            if not len(detections["boxes"]):
                return np.zeros((height, width), dtype=np.float32)
            boxes = [detections["boxes"].tolist()]
            read = read_masks(images=image, input_boxes=boxes, return_tensors="pt").to(segmenter.device, torch.float32)
            logits = segmenter(
                pixel_values=read["pixel_values"], input_boxes=read["input_boxes"], multimask_output=False
            ).pred_masks
        (masks,) = read_masks.post_process_masks(logits.cpu(), read["original_sizes"], read["reshaped_input_sizes"])
        union: NDArray[np.float32] = masks.flatten(0, 1).any(0).float().numpy()
        return union

    @cached_property
    def _models(self) -> tuple[Any, Any, Any, Any]:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor, SamModel, SamProcessor

        parts: list[Any] = []
        for folder, processor, model in (
            (GROUNDING_DINO.find(), GroundingDinoProcessor, GroundingDinoForObjectDetection),
            (SAM.find(), SamProcessor, SamModel),
        ):
            network: Any = model.from_pretrained(folder, local_files_only=True)
            parts += [
                processor.from_pretrained(folder, local_files_only=True),
                network.to(resolve_device(self.device)).eval(),
            ]
        return parts[0], parts[1], parts[2], parts[3]


def segmented(masks: NDArray[np.float32]) -> Scores:
    """The scores of a segmenter: ``area`` and ``mask``, of masks ``[n, height, width]`` of zeros and ones."""
    return Scores({"area": masks.mean(axis=(1, 2), dtype=np.float32)}, {"mask": masks})
