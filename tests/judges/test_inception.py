from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from erasebench.judges import inception
from erasebench.judges.inception import Inception
from erasebench.judging import Images


class Layers(torch.nn.Module):
    """As many features as Inception, from the colours of some pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 100, :228].flatten(1).repeat(1, 3)[:, :2048, None, None]


class Network(torch.nn.Module):
    """Shaped like NVIDIA's TorchScript file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def test_features_are_clean_fids(
    folder: Path, accepted: Callable[[object, str], None], images: Images, tmp_path: Path
) -> None:
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.utils import ResizeDataset
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Network()), folder / inception.WEIGHTS.name)
        network = InceptionV3W(str(folder), download=False)
    accepted(inception, "WEIGHTS")
    found = Inception().scores(images, [""] * 3)
    assert found.columns == {} and found.arrays["features"].dtype == np.float32
    assert found.arrays["features"].shape == (3, 2048)
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for path, image in zip(files, images, strict=True):
        Image.fromarray(image).save(path)
    with torch.inference_mode():
        expected = network(torch.stack(list(ResizeDataset(files, mode="clean"))))
    np.testing.assert_allclose(found.arrays["features"], expected, atol=1e-5)
    assert Inception().scores(images[:0], []).arrays["features"].shape == (0, 2048)


def test_the_file_that_clean_fid_left_is_taken(
    folder: Path, accepted: Callable[[object, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inception.WEIGHTS.elsewhere == (Path("/tmp"),)
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / inception.WEIGHTS.name).write_bytes(b"network")
    accepted(inception, "WEIGHTS")
    monkeypatch.setattr(inception, "WEIGHTS", replace(inception.WEIGHTS, elsewhere=(tmp_path / "left",)))
    assert Inception().identity()["weights"] == sha256(b"network").hexdigest()
