"""Distortions keep their shape, and follow their generator."""

from __future__ import annotations

import numpy as np

from erasebench.judging import Images
from erasebench.picturebook.training.distortions import degrade, negatives, shuffle_patches


def test_distortions_keep_shape_and_follow_the_generator(images: Images) -> None:
    for seed in range(30):
        first, second = (degrade(images[0], np.random.default_rng(seed)) for _ in range(2))
        assert first.dtype == np.uint8 and first.shape == (64, 64, 3)
        np.testing.assert_array_equal(first, second)
    first, second = (negatives(images, 60, np.random.default_rng(4)) for _ in range(2))
    assert first.dtype == np.uint8 and first.shape == (60, 64, 64, 3)
    np.testing.assert_array_equal(first, second)
    mixed = shuffle_patches(images[0], 8, np.random.default_rng(0))
    assert not np.array_equal(mixed, images[0])
    np.testing.assert_array_equal(np.sort(mixed, axis=None), np.sort(images[0], axis=None))
