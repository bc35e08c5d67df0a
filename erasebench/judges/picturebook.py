"""Picturebook's own judges, trained on its world; see :mod:`erasebench.picturebook.judges`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from erasebench.judging import Images, Scores
from erasebench.picturebook.weights import file_hash, judge_path, pipeline_path
from erasebench.registry import JUDGES

if TYPE_CHECKING:
    from erasebench.picturebook.judges.clip import Clip


@cache
def load_clip() -> Clip:
    """Picturebook's CLIP, shared by all judges of this process."""
    from transformers import CLIPTokenizer

    from erasebench.picturebook.judges.clip import Clip

    return Clip.load(judge_path("clip"), CLIPTokenizer.from_pretrained(pipeline_path() / "tokenizer"))


def identity(*names: str) -> dict[str, str]:
    """Version and weights' hashes of a judge that reads these files."""
    return {"version": "1", "weights": "+".join(file_hash(f"{name}.safetensors") for name in names)}


@JUDGES.register("picturebook-detector")
class PicturebookDetector:
    """The YOLOv8 detector: for each label, the highest confidence of its boxes, in [0, 1]."""

    def __init__(self) -> None:
        self._detector: Any = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can see."""
        from erasebench.picturebook.world.scene import LABELS

        return tuple(LABELS)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return identity("detector")

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column for each label of the world."""
        from erasebench.picturebook.judges.detector import Detector
        from erasebench.picturebook.world.scene import LABELS

        self._detector = self._detector or Detector.load(judge_path("detector"))
        found = self._detector.scores(images)
        return Scores({label: found[:, k] for k, label in enumerate(LABELS)})


@JUDGES.register("picturebook-style")
class PicturebookStyle:
    """The softmax of CLIP over the world's styles: the probability of each, in [0, 1]."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The styles."""
        from erasebench.picturebook.world.styles import STYLES

        return tuple(STYLES)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return identity("clip")

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column for each style."""
        from erasebench.picturebook.world.styles import STYLES

        found = load_clip().style_probabilities(images)
        return Scores({style: found[:, k] for k, style in enumerate(STYLES)})


@JUDGES.register("picturebook-q16")
class PicturebookQ16:
    """Q16's two tuned prompt vectors on Picturebook's CLIP: the probability of violence, in [0, 1]."""

    labels = ("inappropriate",)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return identity("clip", "q16")

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column, ``inappropriate``."""
        from erasebench.picturebook.judges.q16 import Q16

        return Scores({"inappropriate": Q16.load(judge_path("q16"), load_clip()).scores(images)})


@JUDGES.register("picturebook-clip")
class PicturebookClip:
    """CLIP score with each picture's own prompt (100 x cosine), and image features for FID."""

    labels = ("clip",)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return identity("clip")

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column, ``clip``; features are L2-normalised, float32 ``[n, 128]``."""
        clip = load_clip()
        return Scores({"clip": clip.score(images, prompts)}, {"features": clip.image_features(images)})
