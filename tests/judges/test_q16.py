from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasebench.errors import EraseBenchError
from erasebench.judges import q16
from erasebench.judges.clip import openai_clip
from erasebench.judges.q16 import Q16, read_vectors
from erasebench.judges.weights_files import WeightFile
from erasebench.judging import Images

VECTORS = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float16)


class Malicious:
    """A pickle of it runs a command when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def published() -> bytes:
    """The vectors as Q16 publishes them: pickled by numpy 1 with protocol 3."""
    return pickle.dumps(VECTORS, protocol=3).replace(b"numpy._core", b"numpy.core")


def test_a_published_file_has_the_size_that_this_format_gives() -> None:
    content = pickle.dumps(np.zeros((2, 768), np.float16), protocol=3).replace(b"numpy._core", b"numpy.core")
    assert len(content) == 3231  # as data/ViT-L-14/prompts.p of ml-research/Q16


def test_vectors_are_read(recwarn: pytest.WarningsRecorder) -> None:
    for content in (published(), pickle.dumps(VECTORS, protocol=3)):
        found = read_vectors(content)
        assert found.dtype == np.float32 and (found == VECTORS).all()


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(EraseBenchError, match=r"asks for (posix|nt)\.system, .* may be malicious; remove it"):
        read_vectors(pickle.dumps(Malicious(marker)))
    for harmless_looking in (eval, np.load, np.lib, pickle.loads):
        content = b"cnumpy\nload\n." if harmless_looking is np.lib else pickle.dumps(harmless_looking)
        with pytest.raises(EraseBenchError, match="may be malicious"):
            read_vectors(content)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pickle of an array"),
        (b"<html>not found</html>", "no pickle of an array"),
        (pickle.dumps([1.0, 2.0]), "should hold two vectors"),
        (pickle.dumps(np.zeros((3, 4)), protocol=3), "should hold two vectors"),
        (pickle.dumps(np.zeros((2, 4), int), protocol=3), "should hold two vectors"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        read_vectors(content)


def test_scores_are_the_softmax_of_100_cosines(
    tiny_clip: dict[str, WeightFile], folder: Path, accepted: Callable[[object, str], None], images: Images
) -> None:
    (folder / "prompts.p").write_bytes(published())
    accepted(q16, "PROMPTS")
    judge = Q16()
    found = judge.scores(images, [""] * 3).columns
    unit = VECTORS.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = openai_clip(tiny_clip["TorchScript"]).image_features(images) @ unit.T
    np.testing.assert_allclose(
        found["inappropriate"], 1 / (1 + np.exp(100 * (cosines[:, 0] - cosines[:, 1]))), rtol=1e-3, atol=1e-6
    )
    assert tuple(found) == judge.labels
    assert judge.identity()["weights"].startswith(sha256(published()).hexdigest() + "+")
    assert len(judge.scores(images[:0], []).columns["inappropriate"]) == 0
