"""Q16 against its definition."""

from __future__ import annotations

import numpy as np

from erasebench.picturebook.judges.q16 import q16_score


def test_q16_is_the_softmax_of_a_hundred_cosines() -> None:
    rng = np.random.default_rng(1)
    features, vectors = (rng.standard_normal((n, 8)).astype(np.float32) for n in (6, 2))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[:3] = vectors.sum(axis=0) / np.linalg.norm(vectors.sum(axis=0)) + 0.01 * features[:3]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    calm, violent = (features @ v / np.linalg.norm(v) for v in vectors)
    np.testing.assert_allclose(q16_score(features, vectors), 1 / (1 + np.exp(100 * (calm - violent))), rtol=1e-3)
