from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from erasebench import cli
from erasebench.concepts import load_catalogue
from erasebench.errors import EraseBenchError
from erasebench.judges.imagenet import IMAGENETTE
from erasebench.judges.yolov8_imagenette import (
    NAME,
    SPLITS,
    WEIGHTS,
    WORDNET,
    YoloImagenette,
    build_network,
    class_folders,
)
from erasebench.judging import Images

FILE = f"{NAME}.safetensors"


def squares(folder: Path, names: tuple[str, ...] = WORDNET) -> None:
    """Images of one colour for each class."""
    from PIL import Image

    for split, count in zip(SPLITS, (2, 1), strict=True):
        for k, name in enumerate(names):
            (folder / split / name).mkdir(parents=True)
            for image in range(count):
                colour = (25 * k, 255 - 25 * k, 40 * (k % 5))
                Image.new("RGB", (40, 32), colour).save(folder / split / name / f"{image}.png")


def run(*args: object) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        cli.main([str(arg) for arg in args])
    return end.value.code


@pytest.fixture
def weights(folder: Path) -> torch.nn.Module:
    """Random weights, where the judge looks for them."""
    torch.manual_seed(0)
    network: torch.nn.Module = build_network().eval()
    save_file(network.state_dict(), folder / FILE, {"judge": NAME})
    return network


@pytest.mark.slow
def test_it_is_trained_and_judges(folder: Path, images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    squares(folder / "imagenette")
    files = sorted(folder.rglob("*"))
    assert run("train-judge", NAME, "--images", folder / "imagenette", "--epochs", 1, "--device", "cpu") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(": top-1 ")[0] for line in told] == [
        "epoch 1 of 1",
        "the best epoch, which is kept",
        f"wrote {folder / FILE}",
    ]
    assert sorted(folder.rglob("*")) == sorted([*files, folder / FILE]), "nothing is written beside the images"
    columns = YoloImagenette().scores(images, [""] * 3).columns
    assert tuple(columns) == IMAGENETTE
    table = np.array(list(columns.values()))
    assert table.dtype == np.float32 and table.min() >= 0
    np.testing.assert_allclose(table.sum(axis=0), 1, rtol=1e-5)
    untrained = {name: value for name, value in build_network().state_dict().items() if name.endswith("running_mean")}
    from safetensors.torch import load_file

    trained = load_file(folder / FILE)
    assert any(not torch.equal(trained[name], value) for name, value in untrained.items())


def test_scores_are_those_of_ultralytics(weights: torch.nn.Module, images: Images) -> None:
    from PIL import Image
    from ultralytics.data.augment import classify_transforms

    with torch.inference_mode():
        pixels = torch.stack([classify_transforms(224)(Image.fromarray(image)) for image in images])
        expected = weights(pixels)[0].numpy()
    columns = YoloImagenette().scores(images, [""] * 3).columns
    for k, label in enumerate(IMAGENETTE):
        np.testing.assert_allclose(columns[label], expected[:, k], rtol=1e-4)
    assert {len(column) for column in YoloImagenette().scores(images[:0], []).columns.values()} == {0}


def test_classes_are_in_the_order_of_wordnet() -> None:
    from torchvision.models import ResNet50_Weights

    assert list(WORDNET) == sorted(WORDNET)
    known = [name.lower() for name in ResNet50_Weights.IMAGENET1K_V2.meta["categories"]]
    assert [known.index(label) for label in IMAGENETTE] == sorted(known.index(label) for label in IMAGENETTE)


def test_it_can_stand_in_for_resnet50() -> None:
    catalogue = load_catalogue()
    views = [view for name in catalogue.names() for view in catalogue.get(name).views.values()]
    assert {view.label for view in views if view.judge == "resnet50"} <= set(YoloImagenette.labels)


@pytest.mark.parametrize("names", [WORDNET, IMAGENETTE])
def test_folders_may_have_either_name(names: tuple[str, ...], tmp_path: Path) -> None:
    squares(tmp_path, names)
    assert class_folders(tmp_path) == {split: [tmp_path / split / name for name in names] for split in SPLITS}


def test_images_that_are_missing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squares(tmp_path, WORDNET[:9])
    (tmp_path / "train" / "parachute").mkdir()
    assert run("train-judge", NAME, "--images", tmp_path) == 2
    assert f"error: {tmp_path / 'train' / 'parachute'}, images of the class 'parachute'" in capsys.readouterr().err
    assert run("train-judge", NAME, "--images", tmp_path / "nowhere") == 2
    assert "n01440764, images of the class 'tench', is missing or empty" in capsys.readouterr().err
    assert run("train-judge", "yolov8", "--images", tmp_path) == 2
    assert f"unknown judge that can be trained 'yolov8'; nearest: {NAME}" in capsys.readouterr().err


def test_missing_weights_say_how_to_make_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = (
        rf"the weights {FILE} are needed and not part of erasebench: .* get them by: erasebench train-judge {NAME} "
        rf"--images IMAGENETTE --out '{folder / FILE}'"
    )
    with pytest.raises(EraseBenchError, match=message):
        YoloImagenette().identity()
    assert run("fetch", NAME) == 2
    assert "get them by: erasebench train-judge" in capsys.readouterr().err


def test_the_users_file_is_in_the_identity(weights: torch.nn.Module, folder: Path) -> None:
    from hashlib import sha256

    assert YoloImagenette().identity() == {"version": "1", "weights": sha256((folder / FILE).read_bytes()).hexdigest()}
    assert run("fetch", NAME) == 0


def test_half_a_file_and_another_one_are_refused(weights: torch.nn.Module, folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    for wrong in (whole[:-1], whole[:4], b"", b"PK\x03\x04 a pickle"):
        (folder / FILE).write_bytes(wrong)
        with pytest.raises(
            EraseBenchError, match=r"is cut short or no file that .* wrote; remove it, then: erasebench"
        ):
            YoloImagenette().identity()
    save_file({"linear.weight": torch.zeros(2)}, folder / FILE)
    with pytest.raises(EraseBenchError, match="cut short or no file that"):
        YoloImagenette().scores(np.zeros((1, 8, 8, 3), np.uint8), [""])
    assert str(WEIGHTS) == f"{FILE}, made by: erasebench train-judge {NAME} --images IMAGENETTE"
