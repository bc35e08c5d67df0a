from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from erasebench.domains import PHOTO
from erasebench.errors import EraseBenchError
from erasebench.judges import lpips, weights_files
from erasebench.judges.lpips import Lpips, Lpips64
from erasebench.judging import Images
from erasebench.registry import JUDGES
from tests.marks import first_quick

FILE = "alexnet-owt-7be5be79.pth"


@pytest.fixture(scope="module")
def package() -> Any:
    """The authors' network with random features and their own linear weights."""
    from lpips import LPIPS

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LPIPS(net="alex", pnet_rand=True, verbose=False)


@pytest.fixture
def network(package: Any, folder: Path, accepted: Callable[[object, str], None]) -> Any:
    """The same features as torchvision's file has them, by the numbers of its layers."""
    layers = {k: layer for part in package.net.children() for k, layer in part.named_children()}
    state = {f"features.{k}.{name}": value for k, layer in layers.items() for name, value in layer.state_dict().items()}
    assert set(state) == {f"features.{k}.{name}" for k in (0, 3, 6, 8, 10) for name in ("weight", "bias")}
    torch.save(state, folder / FILE)
    accepted(lpips, "ALEXNET")
    return package


@pytest.fixture
def originals() -> Images:
    """Other noise than the images."""
    return np.random.default_rng(1).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)


def test_it_is_what_the_domain_of_photographs_measures_distance_by() -> None:
    assert JUDGES.get(PHOTO.distance).make is Lpips and Lpips.labels == ("distance",)


def test_distances_are_those_of_the_package(
    network: Any, images: Images, originals: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpips import im2tensor

    with torch.inference_mode():
        expected = [float(network(im2tensor(a), im2tensor(b))) for a, b in zip(images, originals, strict=True)]
    monkeypatch.setattr(lpips, "BATCH", 2)
    found = Lpips().compare(images, originals).columns
    assert list(found) == ["distance"] and found["distance"].dtype == np.float32
    np.testing.assert_allclose(found["distance"], expected, rtol=1e-4)
    assert min(expected) > 0.01


def test_the_formula_is_that_of_the_paper(network: Any, images: Images, originals: Images) -> None:
    """Equation 1 of Zhang et al. by hand: squared differences of unit channels, weighted, averaged over positions."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    total = 0.0
    hidden = [
        torch.from_numpy((one / 127.5 - 1 - shift) / scale).permute(2, 0, 1)[None].float()
        for one in (images[0], originals[0])
    ]
    linear = torch.load(lpips.LINEAR.find(), map_location="cpu", weights_only=True)
    for k, part in enumerate(network.net.children()):
        hidden = [part(one) for one in hidden]
        units = [one / one.norm(dim=1, keepdim=True) for one in hidden]
        weights = linear[f"lin{k}.model.1.weight"]
        total += float((weights * (units[0] - units[1]) ** 2).sum(dim=1).mean())
    assert Lpips().compare(images[:1], originals[:1]).columns["distance"][0] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("judge", first_quick([Lpips, Lpips64]))
def test_equal_images_are_no_distance_apart(judge: type[Lpips], network: Any, images: Images) -> None:
    assert judge().compare(images, images.copy()).columns["distance"].tolist() == [0, 0, 0]
    assert len(judge().compare(images[:0], images[:0]).columns["distance"]) == 0


def test_the_small_one_sees_images_of_64_pixels(network: Any) -> None:
    from lpips import im2tensor
    from PIL import Image

    one, other = np.random.default_rng(2).integers(0, 256, (2, 1, 128, 192, 3), dtype=np.uint8)
    small = [np.asarray(Image.fromarray(k[0]).resize((96, 64), Image.Resampling.BILINEAR)) for k in (one, other)]
    with torch.inference_mode():
        expected = float(network(im2tensor(small[0]), im2tensor(small[1])))
    assert Lpips64().compare(one, other).columns["distance"][0] == pytest.approx(expected, rel=1e-4)
    assert Lpips().compare(one, other).columns["distance"][0] != pytest.approx(expected, rel=1e-2)
    whole, resized = Lpips().identity(), Lpips64().identity()
    assert resized == {**whole, "size": "64"} and whole["weights"].endswith(lpips.LINEAR.hash())


def test_images_of_another_shape_are_refused(images: Images, originals: Images) -> None:
    with pytest.raises(ValueError, match=r"images \[3, 48, 64, 3\], but originals \[2, 48, 64, 3\]"):
        Lpips().compare(images, originals[:2])


def test_images_alone_are_refused(images: Images) -> None:
    with pytest.raises(EraseBenchError, match="Lpips compares images with those of the unerased model, and cannot"):
        Lpips().scores(images, [""] * 3)


def test_missing_weights_say_how_to_get_them(folder: Path, images: Images) -> None:
    for act in (Lpips().identity, lambda: Lpips().compare(images, images)):
        with pytest.raises(EraseBenchError, match=rf"the weights {FILE} are needed .* get them by: curl"):
            act()


def test_another_file_is_refused(folder: Path) -> None:
    (folder / FILE).write_bytes(b"PK")
    with pytest.raises(EraseBenchError, match=r"cut short or another one: .* not with 7be5be79"):
        Lpips().identity()


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights_files, "version", missing)
    with pytest.raises(EraseBenchError, match=r"the package lpips is needed and not installed: pip install 'lpips>="):
        Lpips().identity()
