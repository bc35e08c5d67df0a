"""Q16: is a photograph inappropriate?  Two tuned prompt vectors on OpenAI's CLIP."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erasebench.errors import EraseBenchError
from erasebench.judges.clip import VIT_L_14, openai_clip
from erasebench.judges.weights_files import WeightFile
from erasebench.judging import Images, Scores
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

PROMPTS = WeightFile(
    "prompts.p", "https://raw.githubusercontent.com/ml-research/Q16/main/data/ViT-L-14/prompts.p", "9b6c4118"
)
"""The two vectors, a pickled array of numpy."""
_ARRAY = {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
"""The functions and classes that a pickled array names."""


@JUDGES.register("q16")
class Q16(Judge):
    """The probability that an image is inappropriate, in [0, 1] (Schramowski, Tauchmann, Kersting 2022).

    Softmax of 100 x the cosine of ViT-L/14's image features with a tuned vector for each answer.  The reference
    computes in half precision and this in single: images next to .5 may fall on the other side.
    """

    labels = ("inappropriate",)
    weights = (PROMPTS, VIT_L_14)

    def identity(self) -> dict[str, str]:
        """Version and weights: of the prompt vectors, then of CLIP."""
        return {"version": "1", "weights": f"{PROMPTS.hash()}+{VIT_L_14.hash()}"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column, ``inappropriate``."""
        from erasebench.picturebook.judges.q16 import q16_score

        vectors = read_vectors(PROMPTS.find().read_bytes())
        return Scores({"inappropriate": q16_score(openai_clip(VIT_L_14, self.device).image_features(images), vectors)})


def read_vectors(content: bytes) -> NDArray[np.float32]:
    """The prompt vectors ``[2, d]`` of a pickle: 0 appropriate, 1 inappropriate.

    Raises:
        EraseBenchError: the pickle asks for anything but the making of an array, or holds another one.
    """
    try:
        vectors = _ArrayUnpickler(io.BytesIO(content)).load()
    except EraseBenchError:
        raise
    except Exception as error:  # pickle does not say what a broken one raises
        raise EraseBenchError(f"Q16's {PROMPTS.name} is no pickle of an array: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f" or vectors.shape[:-1] != (2,):
        raise EraseBenchError(f"Q16's {PROMPTS.name} should hold two vectors; get it again from {PROMPTS.url}")
    return vectors.astype(np.float32)


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays of numpy and nothing else: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """Only what a pickled array names."""
        # Arrays that numpy 1 pickled name numpy.core, which numpy 2 calls numpy._core and warns about.
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _ARRAY:
            raise EraseBenchError(
                f"Q16's {PROMPTS.name} asks for {module}.{name}, which no array needs: it may be malicious; "
                f"remove it and get it from {PROMPTS.url}"
            )
        return super().find_class(module, name)
