from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from erasebench.concepts import load_catalogue
from erasebench.errors import EraseBenchError
from erasebench.judges import resnet50
from erasebench.judges.imagenet import IMAGENETTE
from erasebench.judges.resnet50 import ResNet50
from erasebench.judging import Images


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A network of random weights, and the file that holds them."""
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    made: torch.nn.Module = build().eval()
    path = tmp_path_factory.mktemp("resnet50") / "weights.pth"
    torch.save(made.state_dict(), path)
    return made, path


@pytest.fixture
def network(
    built: tuple[torch.nn.Module, Path], folder: Path, accepted: Callable[[object, str], None]
) -> torch.nn.Module:
    """Random weights whose output changes with the picture."""
    made, path = built
    (folder / "resnet50-11ad3fa6.pth").symlink_to(path)
    accepted(resnet50, "WEIGHTS")
    return made


def test_every_concept_that_names_this_judge_has_a_column() -> None:
    from torchvision.models import ResNet50_Weights

    catalogue = load_catalogue()
    views = [view for name in catalogue.names() for view in catalogue.get(name).views.values()]
    assert {view.label for view in views if view.judge == "resnet50"} == set(IMAGENETTE) < set(ResNet50.labels)
    assert set(IMAGENETTE) <= {name.lower() for name in ResNet50_Weights.IMAGENET1K_V2.meta["categories"]}


def test_scores_are_those_of_torchvision(network: torch.nn.Module, images: Images) -> None:
    from PIL import Image
    from torchvision.models import ResNet50_Weights

    preset = ResNet50_Weights.IMAGENET1K_V2
    with torch.inference_mode():
        pixels = torch.stack([preset.transforms()(Image.fromarray(image)) for image in images])
        expected = network(pixels).softmax(dim=1).numpy()
    columns = ResNet50().scores(images, [""] * 3).columns
    assert len(columns) == 30 and {column.dtype for column in columns.values()} == {np.dtype(np.float32)}
    for label in IMAGENETTE:
        k = [name.lower() for name in preset.meta["categories"]].index(label)
        best_other = np.delete(expected, k, axis=1).max(axis=1)
        np.testing.assert_allclose(columns[f"{label} probability"], expected[:, k], rtol=1e-3)
        np.testing.assert_allclose(columns[label], expected[:, k] / (expected[:, k] + best_other), rtol=1e-3)
        rank = 1 + (expected > expected[:, [k]]).sum(axis=1)
        np.testing.assert_array_equal(columns[f"{label} rank"], rank)


def test_no_pictures_no_scores(network: torch.nn.Module, images: Images) -> None:
    assert {len(column) for column in ResNet50().scores(images[:0], []).columns.values()} == {0}


def test_half_a_download_is_refused(folder: Path) -> None:
    (folder / "resnet50-11ad3fa6.pth").write_bytes(b"PK")
    with pytest.raises(EraseBenchError, match=r"cut short or another one: .* not with 11ad3fa6"):
        ResNet50().identity()
