"""CLIP, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erasebench.judging import Images
from erasebench.picturebook.judges.clip import Clip, delta_similarity, encode_text, pixel_values, tokenize
from erasebench.picturebook.world.styles import STYLES

TEXTS = ["a photo of a church", "a dog", "a crayon drawing of a dog on the beach", "", "a fight " * 60]


def test_text_features_are_those_of_open_clip(clip: Clip) -> None:
    ids = tokenize(clip.tokenizer, TEXTS)
    assert ids.shape == (5, 77)
    with torch.inference_mode():
        # A short batch is truncated, a batch with the long text is not.
        for part in (ids[:3], ids):
            torch.testing.assert_close(
                encode_text(clip.model, part), clip.model.encode_text(part), rtol=1e-4, atol=1e-5
            )


def test_clip_score_is_a_hundred_times_the_cosine(clip: Clip, images: Images) -> None:
    with torch.inference_mode():
        image = clip.model.encode_image(pixel_values(images)).double()
        text = clip.model.encode_text(tokenize(clip.tokenizer, TEXTS)).double()
    expected = [100 * float(i @ t / i.norm() / t.norm()) for i, t in zip(image, text, strict=True)]
    np.testing.assert_allclose(clip.score(images, TEXTS), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(clip.image_features(images), axis=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="5 images but 4 texts"):
        clip.score(images, TEXTS[:4])


def test_style_probabilities_sum_to_one(clip: Clip, images: Images) -> None:
    probabilities = clip.style_probabilities(images)
    assert probabilities.shape == (5, len(STYLES))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_delta_similarity_is_the_mean_cosine_of_the_changes() -> None:
    rng = np.random.default_rng(0)
    f_c, f_r, f_e = (rng.standard_normal((n, 6)).astype(np.float32) for n in (4, 4, 3))
    expected = []
    for c, r in zip(f_c, f_r, strict=True):
        cosines = [(c - r) @ (e - r) / np.linalg.norm(c - r) / np.linalg.norm(e - r) for e in f_e]
        expected.append(sum(cosines) / len(cosines))
    np.testing.assert_allclose(delta_similarity(f_c, f_r, f_e), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(delta_similarity(f_r, f_r, f_e), 0)
    np.testing.assert_allclose(delta_similarity(f_e[:1], f_r[:1], f_e[:1]), 1, rtol=1e-6)
