"""Images through a network, in batches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from erasebench.judges import networks
from erasebench.judges.networks import check_images, from_pil, run_batches, torchscript
from erasebench.judging import Images


def as_tensor(image: Images) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float()


def means(batch: torch.Tensor) -> torch.Tensor:
    return batch.mean((2, 3))


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_rows_are_those_of_the_images_in_order(batch: int, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def network(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        assert torch.is_inference_mode_enabled()
        return means(pixels).half()

    monkeypatch.setattr(networks, "BATCH", batch)
    found = run_batches(network, images, as_tensor, 3, "cpu")
    assert found.dtype == np.float32 and max(sizes) <= batch and sum(sizes) == len(images)
    np.testing.assert_allclose(found, images.mean(axis=(1, 2)), rtol=1e-3)


def test_no_images_are_no_rows(images: Images) -> None:
    found = run_batches(means, images[:0], as_tensor, 3, "cpu")
    assert found.shape == (0, 3) and found.dtype == np.float32


def test_images_of_another_type_or_shape_are_refused(images: Images) -> None:
    check_images(images)
    wrong: Any
    for wrong in (images.astype(np.float32), images[0], np.moveaxis(images, 3, 1), images[..., :1]):
        with pytest.raises(ValueError, match=r"expected uint8 images of shape \[n, height, width, 3\], got"):
            check_images(wrong)
        with pytest.raises(ValueError, match="expected uint8 images"):
            run_batches(means, wrong, as_tensor, 3, "cpu")


def test_a_transform_of_pil_images_takes_arrays(images: Images) -> None:
    def transform(image: Image.Image) -> torch.Tensor:
        assert isinstance(image, Image.Image)
        return as_tensor(np.array(image))

    mirrored = images[0, :, ::-1]  # not contiguous
    assert torch.equal(from_pil(transform)(mirrored), as_tensor(mirrored.copy()))


def test_only_torchs_word_on_torchscript_is_left_out() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with torchscript():
            warnings.warn("`torch.jit.load` is deprecated. Please switch", DeprecationWarning, stacklevel=1)
            warnings.warn("`torch.load` is deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("`torch.jit.load` is deprecated. Please switch", DeprecationWarning, stacklevel=1)
    assert [str(one.message).partition(" ")[0] for one in seen] == ["`torch.load`", "`torch.jit.load`"]
