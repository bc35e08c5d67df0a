from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from erasebench.judges.picturebook import PicturebookClip, load_clip
from erasebench.metrics.clip_score import ClipScore
from erasebench.picturebook.judges.clip import pixel_values, tokenize
from erasebench.picturebook.world.scene import render, sample_scene
from tests.metrics.measurements import measured


def test_the_mean_over_unrelated_prompts_in_the_unit_given() -> None:
    estimate = ClipScore().measure(measured([30.0, 31, 32, 33], prompts=[0, 0, 1, 1], probe="retain"), None)
    assert (estimate.value, estimate.n, estimate.low, estimate.high) == (31.5, 4, 30.5, 32.5)
    assert not ClipScore().measure(measured([30.0, 31]), None).defined, "the concept's own images do not count"


def test_it_is_what_torchmetrics_computes_with_the_same_model() -> None:
    """Its authors average 100 x the cosine of each image and its caption."""
    multimodal: Any = import_module("torchmetrics.functional.multimodal")

    clip = load_clip()

    class Model(torch.nn.Module):
        config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=77))

        def get_image_features(self, pixels: torch.Tensor) -> Any:
            return clip.model.encode_image(pixels)

        def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
            return clip.model.encode_text(ids)

    def process(text: list[str] | None = None, images: list[torch.Tensor] | None = None, **_: Any) -> dict[str, Any]:
        if images is not None:
            return {"pixel_values": pixel_values(np.stack([image.permute(1, 2, 0).numpy() for image in images]))}
        ids = tokenize(clip.tokenizer, text or [])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    images = np.stack([render(sample_scene(seed)).image for seed in range(6)])
    prompts = ["a photo of a church", "a tench", "a crayon drawing of a gas pump", "a fight", "a dog", "a golf ball"]
    with torch.inference_mode():
        expected = multimodal.clip_score(
            [torch.from_numpy(image).permute(2, 0, 1) for image in images], prompts, lambda: (Model(), process)
        )
    scores = PicturebookClip().scores(images, prompts).columns["clip"]
    found = ClipScore().measure(measured(scores.tolist(), probe="retain"), None)
    assert found.value == pytest.approx(float(expected), rel=1e-4)
