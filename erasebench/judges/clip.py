"""OpenAI's CLIP on photographs: how well an image fits its prompt, which style it has, which CIFAR-10 class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from erasebench.concepts import load_catalogue
from erasebench.judges.networks import BATCH, from_pil, run_batches, torchscript
from erasebench.judges.weights_files import WeightFile
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
VIT_B_32 = WeightFile("ViT-B-32.pt", f"{_OPENAI}/{_B32}/ViT-B-32.pt", _B32)
VIT_L_14 = WeightFile("ViT-L-14.pt", f"{_OPENAI}/{_L14}/ViT-L-14.pt", _L14)
SCALE = np.float32(100)
"""Cosines are multiplied by this before a softmax, and to give a CLIP score; the scale that CLIP learnt."""
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class ClipModel(Protocol):
    """A model for zero-shot classification: L2-normalised features, float32 ``[n, d]``."""

    def image_features(self, images: Images) -> NDArray[np.float32]:
        """Of images."""
        ...

    def text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of texts."""
        ...


class ClipJudge(Protocol):
    """A judge of CLIP scores that lends its model."""

    device: str

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        ...

    def model(self) -> ClipModel:
        """CLIP."""
        ...


class OpenAIClip:
    """One of OpenAI's models, in single precision (Radford et al. 2021).

    Args:
        weights: OpenAI's own file.  open_clip builds the model from it, with QuickGELU, as it was trained.
        device: where it runs.
    """

    def __init__(self, weights: Path, device: str) -> None:
        import open_clip

        self.device = device
        with torchscript():
            self._model: Any = open_clip.load_openai_model(str(weights), precision="fp32", device=self.device)
        self._model.eval().requires_grad_(False)
        self._transform = from_pil(open_clip.image_transform(self._model.visual.image_size, is_train=False))
        self._tokenize = open_clip.tokenizer.SimpleTokenizer()

    def image_features(self, images: Images) -> NDArray[np.float32]:
        """L2-normalised features, float32 ``[n, d]``."""
        return run_batches(
            lambda batch: self._model.encode_image(batch, normalize=True),
            images,
            self._transform,
            self._model.visual.output_dim,
            self.device,
        )

    def text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised features, float32 ``[n, d]``; a text is cut after 77 tokens."""
        import torch

        distinct = list(dict.fromkeys(texts))
        features: list[NDArray[np.float32]] = []
        with torch.inference_mode():
            for start in range(0, len(distinct), BATCH):
                ids = self._tokenize(distinct[start : start + BATCH]).to(self.device)
                features.extend(self._model.encode_text(ids, normalize=True).float().cpu().numpy())
        row = dict(zip(distinct, features, strict=True))
        return np.array([row[text] for text in texts]).reshape(len(texts), self._model.visual.output_dim)


def openai_clip(file: WeightFile, device: str = "auto") -> OpenAIClip:
    """One of OpenAI's models, shared by all judges of this process that run on the same device.

    Raises:
        EraseBenchError: the weights are missing.
    """
    return _load(file.find(), resolve_device(device))


@cache
def _load(path: Path, device: str) -> OpenAIClip:
    return OpenAIClip(path, device)


def zero_shot(clip: ClipModel, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
    """The probability of each text: softmax of 100 x cosine, float32 ``[n, len(texts)]``; rows sum to 1."""
    from erasebench.picturebook.judges.clip import softmax

    cosine = clip.image_features(images) @ clip.text_features(texts).T
    return softmax(SCALE * cosine)


class PromptScore(Judge):
    """A judge of how well an image fits its own prompt: 100 x cosine by one of OpenAI's models."""

    labels = ("clip",)

    @abstractmethod
    def file(self) -> WeightFile:
        """The weight file of the model."""

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return {"version": "1", "weights": self.file().hash()}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column, ``clip``; features are L2-normalised, float32 ``[n, d]``."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
        clip = self.model()
        features = clip.image_features(images)
        cosine = np.sum(features * clip.text_features(prompts), axis=1)
        return Scores({"clip": np.asarray(SCALE * cosine, dtype=np.float32)}, {"features": features})

    def model(self) -> OpenAIClip:
        """CLIP, on the judge's device."""
        return openai_clip(self.file(), self.device)


@JUDGES.register("clip")
class ClipScore(PromptScore):
    """CLIP score of each image with its own prompt: 100 x cosine, ViT-B/32 (as MACE, EAP and Dark Miner print it).

    Features have 512 dimensions.
    """

    weights = (VIT_B_32,)

    def file(self) -> WeightFile:
        """ViT-B/32."""
        return VIT_B_32


@JUDGES.register("clip-l14")
class ClipScoreL14(PromptScore):
    """CLIP score of each image with its own prompt: 100 x cosine, ViT-L/14, the default of RECE and torchmetrics.

    Another scale than that of ViT-B/32, said to be lower by some five points on the same images: the two are not
    comparable.  Features have 768 dimensions.
    """

    weights = (VIT_L_14,)

    def file(self) -> WeightFile:
        """ViT-L/14."""
        return VIT_L_14


class _ByTexts(Judge):
    """The probability of each of the catalogue's styles that name this judge, in [0, 1].

    What a style gets depends on which others there are.
    """

    weights = (VIT_B_32,)
    name: ClassVar[str]

    @cached_property
    def styles(self) -> dict[str, str]:
        """The text for each label."""
        catalogue = load_catalogue()
        known = (catalogue.get(name) for name in catalogue.names())
        return {
            view.label: f"an image in the style of {concept.phrase}"
            for concept in known
            for view in concept.views.values()
            if view.judge == self.name
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self.styles)

    def identity(self) -> dict[str, str]:
        """Version, weights and texts."""
        return {"version": "1", "weights": VIT_B_32.hash(), "texts": "; ".join(self.styles.values())}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column for each style."""
        probabilities = zero_shot(openai_clip(VIT_B_32, self.device), images, list(self.styles.values()))
        return Scores(dict(zip(self.styles, probabilities.T, strict=True)))


@JUDGES.register("clip-style")
class ClipStyle(_ByTexts):
    """Zero-shot style of an image: the probability of each of UnlearnCanvas' 50 styles, in [0, 1].

    Softmax over "an image in the style of ..." (Meng et al. 2024, Dark Miner, who do not say which of UnlearnCanvas'
    60 styles they take; these are the 50 of its evaluation).
    """

    name = "clip-style"


@JUDGES.register("clip-artist")
class ClipArtist(_ByTexts):
    """Zero-shot artist of an image: the probability of each artist of the packaged catalogue, in [0, 1].

    Softmax over "an image in the style of ...", as of styles; no paper judges these artists so.
    """

    name = "clip-artist"


@JUDGES.register("clip-cifar10")
class ClipCifar10(Judge):
    """Zero-shot CIFAR-10 class of an image: the probability of each of the ten, in [0, 1].

    Softmax over "a photo of the ...".  Its mean is what MACE (Lu et al. 2024) calls accuracy; from .5 on, a class is
    the most probable one.
    """

    labels = CIFAR10
    weights = (VIT_B_32,)

    def identity(self) -> dict[str, str]:
        """Version and weights."""
        return {"version": "1", "weights": VIT_B_32.hash()}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column for each class."""
        probabilities = zero_shot(
            openai_clip(VIT_B_32, self.device), images, [f"a photo of the {name}" for name in CIFAR10]
        )
        return Scores(dict(zip(CIFAR10, probabilities.T, strict=True)))
