"""The CLIP of the built-in world: how well an image fits a text, which style it has, how it changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from erasebench.picturebook.judges.detector import prepare_images
from erasebench.picturebook.judges.weights import load_single
from erasebench.picturebook.tokenizer import CONTEXT_LENGTH
from erasebench.picturebook.world.styles import STYLES

MODEL_NAME = "picturebook-clip"
"""The name under which open_clip knows the architecture (``picturebook-clip.json`` beside this module).  The image
tower is a small CLIP ResNet: on one CPU core it learns the world several times faster than a ViT of equal cost."""
BATCH = 128
"""Images or texts per forward pass."""

Images = NDArray[np.uint8] | torch.Tensor


def build_clip(vocab_size: int) -> nn.Module:
    """An untrained open_clip model for a tokenizer of this many entries."""
    import open_clip

    if MODEL_NAME not in open_clip.list_models():
        open_clip.add_model_config(Path(__file__).with_name(f"{MODEL_NAME}.json"))
    text_cfg = {**open_clip.get_model_config(MODEL_NAME)["text_cfg"], "vocab_size": vocab_size}
    # It warns that the weights are random, which they are meant to be until they are loaded.
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model: nn.Module = open_clip.create_model(MODEL_NAME, text_cfg=text_cfg)
    finally:
        logger.setLevel(level)
    return model


def pixel_values(images: Images) -> torch.Tensor:
    """From uint8 ``[n, 64, 64, 3]`` to float32 ``[n, 3, 64, 64]`` in [-1, 1]."""
    return prepare_images(images) * 2 - 1


def encode_text(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Text features ``[n, d]``, not normalised, of token ids ``[n, 77]``.

    Equal to ``model.encode_text(ids)`` but computed without the padding that no text of the batch reaches beyond
    its end marker: the transformer is causal, so what follows the end marker cannot change its output.
    """
    end = ids.argmax(dim=-1)
    length = int(end.max()) + 1
    hidden = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    features: torch.Tensor = hidden[torch.arange(len(ids)), end] @ model.text_projection
    return features


class Clip:
    """A trained CLIP, for inference only.

    Args:
        model: from :func:`build_clip`, with trained weights.
        tokenizer: a ``transformers.CLIPTokenizer``; its end marker must have the highest id.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model: Any = model.float().eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer
        self._style_features: NDArray[np.float32] | None = None

    @classmethod
    def load(cls, weights: Path, tokenizer: Any, device: str | torch.device = "cpu") -> Clip:
        """Load the weights that ``weights.save_half`` wrote."""
        model = build_clip(len(tokenizer))
        model.load_state_dict(load_single(weights))
        return cls(model, tokenizer, device)

    @torch.inference_mode()
    def raw_image_features(self, images: Images) -> NDArray[np.float32]:
        """Image features ``[n, d]`` as the projection gives them, not normalised."""
        parts = [
            self.model.encode_image(pixel_values(images[start : start + BATCH]).to(self.device)).cpu()
            for start in range(0, len(images), BATCH)
        ]
        return _join(parts, self.model.visual.output_dim)

    def image_features(self, images: Images) -> NDArray[np.float32]:
        """L2-normalised image features, float32 ``[n, d]``."""
        return _normalise(self.raw_image_features(images))

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised text features, float32 ``[n, d]``."""
        parts = [
            encode_text(self.model, tokenize(self.tokenizer, texts[start : start + BATCH]).to(self.device)).cpu()
            for start in range(0, len(texts), BATCH)
        ]
        return _normalise(_join(parts, self.model.visual.output_dim))

    def score(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        """CLIP-Score (Hessel et al. 2021) of each image with its own text: 100 x cosine, in [-100, 100]."""
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images but {len(texts)} texts")
        cosine = np.sum(self.image_features(images) * self.text_features(texts), axis=1)
        return np.asarray(100 * cosine, dtype=np.float32)

    def style_probabilities(self, images: Images) -> NDArray[np.float32]:
        """Zero-shot style classification: float32 ``[n, len(STYLES)]``, rows sum to 1, in the order of ``STYLES``.

        Softmax of 100 x the cosine with each style's mean text feature ("a crayon drawing of a scene", ...).
        """
        if self._style_features is None:
            self._style_features = _normalise(
                np.stack([self.text_features(style_prompts(name)).mean(axis=0) for name in STYLES])
            )
        return softmax(100 * self.image_features(images) @ self._style_features.T)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Token ids, int64 ``[n, 77]``, padded and truncated."""
    encoded = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
    )
    ids: torch.Tensor = encoded.input_ids
    return ids


def style_prompts(style: str) -> list[str]:
    """The prompts whose mean feature stands for a style."""
    return [f"{prefix} of {what}" for prefix in STYLES[style].prefixes for what in ("a scene", "somebody", "a thing")]


def delta_similarity(
    f_c: NDArray[np.float32], f_r: NDArray[np.float32], f_e: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Dark Miner (Meng et al. 2024), eq. 6: the mean over e of cos(f_c - f_r, f_e - f_r).

    Args:
        f_c: ``[n, d]`` features of the images to examine.
        f_r: ``[n, d]`` features of the reference image of each.
        f_e: ``[m, d]`` features of images that show the concept.

    Returns:
        float32 ``[n]`` in [-1, 1]; 0 where an image equals its reference.
    """
    change = _normalise(f_c - f_r)
    towards = _normalise((f_e[None] - f_r[:, None]).reshape(-1, f_e.shape[1])).reshape(len(f_r), *f_e.shape)
    return np.asarray(np.einsum("nd,nmd->nm", change, towards).mean(axis=1), dtype=np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True), dtype=np.float32)


def _normalise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(norm, 1e-12), dtype=np.float32)


def _join(parts: list[torch.Tensor], width: int) -> NDArray[np.float32]:
    return torch.cat(parts).float().numpy() if parts else np.zeros((0, width), dtype=np.float32)
