from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from erasebench.concepts import load_catalogue
from erasebench.judges import clip, networks
from erasebench.judges.clip import (
    CIFAR10,
    ClipArtist,
    ClipCifar10,
    ClipScore,
    ClipScoreL14,
    ClipStyle,
    PromptScore,
    openai_clip,
    zero_shot,
)
from erasebench.judges.weights_files import WeightFile
from erasebench.judging import Images

pytestmark = pytest.mark.usefixtures("tiny_clip")


def test_features_do_not_depend_on_format_order_or_batch(
    tiny_clip: dict[str, WeightFile], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scripted = openai_clip(tiny_clip["state dict"]), openai_clip(tiny_clip["TorchScript"])
    found = model.image_features(images)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found, scripted.image_features(images), atol=1e-6)
    monkeypatch.setattr(networks, "BATCH", 2)
    np.testing.assert_allclose(found, model.image_features(images[::-1])[::-1], atol=1e-6)
    assert abs(found[0] - found[1]).max() > 1e-3


def test_the_model_is_the_one_that_openai_trained(images: Images) -> None:
    import open_clip
    from PIL import Image

    model = openai_clip(clip.VIT_B_32)
    network = model._model
    assert type(network.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    # Bicubic to the shorter side, the middle, OpenAI's mean and deviation; written out here as in OpenAI's code.
    picture = Image.fromarray(images[0]).resize((42, 32), Image.Resampling.BICUBIC).crop((5, 0, 37, 32))
    mean, deviation = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    pixels = (np.asarray(picture) / 255 - np.array(mean)) / np.array(deviation)
    np.testing.assert_allclose(model._transform(images[0]).permute(1, 2, 0), pixels, atol=1e-5)
    with torch.inference_mode():
        expected = network.encode_image(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), normalize=True)
    np.testing.assert_allclose(model.image_features(images[:1]), expected, atol=1e-5)


def test_texts_are_encoded_once_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = openai_clip(clip.VIT_B_32)
    asked: list[list[str]] = []
    tokenize = model._tokenize

    def listen(texts: list[str]) -> torch.Tensor:
        asked.append(texts)
        ids: torch.Tensor = tokenize(texts)
        return ids

    monkeypatch.setattr(model, "_tokenize", listen)
    found = model.text_features(["a dog", "", "a dog", "a church " * 100])
    assert asked == [["a dog", "", "a church " * 100]]
    assert found.shape == (4, 32) and (found[0] == found[2]).all()
    assert model.text_features([]).shape == (0, 32)


@pytest.mark.parametrize(("judge", "file"), [(ClipScore, "state dict"), (ClipScoreL14, "TorchScript")])
def test_clip_score_is_100_cosines_with_the_own_prompt(
    judge: type[PromptScore], file: str, images: Images, tiny_clip: dict[str, WeightFile]
) -> None:
    prompts = ["a dog", "a church", "a dog"]
    found = judge().scores(images, prompts)
    model = openai_clip(tiny_clip[file])
    assert judge().model() is model and judge().identity() == {"version": "1", "weights": tiny_clip[file].hash()}
    cosines = model.image_features(images) @ model.text_features(prompts).T
    assert list(found.columns) == ["clip"] and list(found.arrays) == ["features"]
    np.testing.assert_allclose(found.arrays["features"], model.image_features(images), atol=1e-6)
    assert found.columns["clip"].dtype == np.float32
    np.testing.assert_allclose(found.columns["clip"], 100 * np.diag(cosines), rtol=1e-4)
    with pytest.raises(ValueError, match="3 images but 2 prompts"):
        judge().scores(images, prompts[:2])


@pytest.mark.parametrize("judge", [ClipScore, ClipScoreL14])
def test_clip_score_is_that_of_open_clip(judge: type[PromptScore], images: Images) -> None:
    import open_clip
    from PIL import Image

    with networks.torchscript():
        network: Any = open_clip.load_openai_model(str(judge().file().find()), precision="fp32", device="cpu").eval()
    transform = open_clip.image_transform(network.visual.image_size, is_train=False)
    ids = open_clip.tokenize(["a dog", "a church", ""])
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
        pair = torch.nn.functional.cosine_similarity(network.encode_image(pixels), network.encode_text(ids))
    np.testing.assert_allclose(judge().scores(images, ["a dog", "a church", ""]).columns["clip"], 100 * pair, rtol=1e-4)


@pytest.mark.parametrize("make", [ClipStyle, ClipArtist, ClipCifar10])
def test_probabilities_sum_to_one(make: type[ClipStyle | ClipArtist | ClipCifar10], images: Images) -> None:
    judge = make()
    columns = judge.scores(images, [""] * 3).columns
    assert tuple(columns) == judge.labels
    table = np.array(list(columns.values()))
    assert table.shape == (len(judge.labels), 3) and table.dtype == np.float32 and (table >= 0).all()
    np.testing.assert_allclose(table.sum(axis=0), 1, rtol=1e-5)
    assert all(len(column) == 0 for column in judge.scores(images[:0], []).columns.values())


def test_every_concept_that_names_these_judges_has_a_column() -> None:
    catalogue = load_catalogue()
    views = [view for name in catalogue.names() for view in catalogue.get(name).views.values()]
    judges = {"clip-style": ClipStyle(), "clip-artist": ClipArtist(), "clip-cifar10": ClipCifar10()}
    for name, judge in judges.items():
        assert {view.label for view in views if view.judge == name} == set(judge.labels or ())


def test_the_texts_are_those_of_the_papers() -> None:
    assert ClipStyle().styles["van-gogh"] == "an image in the style of Van Gogh"
    assert "an image in the style of crayon; " in ClipStyle().identity()["texts"] + "; "
    assert len(ClipStyle().labels) == 50, "of UnlearnCanvas"
    assert len(ClipArtist().labels) == 209, "200 of MACE, five of ESD and AP, four famous ones"
    assert len(CIFAR10) == 10 == len(set(CIFAR10))


def test_other_pictures_are_refused(images: Images) -> None:
    wrong: Any
    for wrong in (images.astype(np.float32), images[0], np.moveaxis(images, 3, 1)):
        with pytest.raises(ValueError, match=r"uint8 images of shape \[n, height, width, 3\]"):
            ClipScore().scores(wrong, ["a dog"] * len(wrong))


class Fixed:
    """Features of one's own."""

    def image_features(self, images: Images) -> NDArray[np.float32]:
        return np.eye(2, dtype=np.float32)[images[:, 0, 0, 0]]

    def text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[0.6, 0.8], [0.58, 0.8146]], dtype=np.float32)[: len(texts)]


def test_zero_shot_is_the_softmax_of_100_cosines() -> None:
    pictures = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    pictures[1] = 1
    found = zero_shot(Fixed(), pictures, ["x", "y"])
    expected = [1 / (1 + np.exp(-100 * 0.02)), 1 / (1 + np.exp(100 * 0.0146))]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


def test_one_model_for_each_device(tiny_clip: dict[str, WeightFile], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(path: Path, device: str) -> object:
        loaded.append(device)
        return object()

    monkeypatch.setattr(clip, "OpenAIClip", load)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    file = tiny_clip["state dict"]
    assert openai_clip(file, "cuda:1") is openai_clip(file, "cuda:1") is not openai_clip(file, "cpu")
    assert loaded == ["cuda:1", "cpu"]
