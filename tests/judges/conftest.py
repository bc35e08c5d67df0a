"""Small random weights, in the formats of the real files, where the judges look for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from erasebench.judges import clip, q16
from erasebench.judges.weights_files import FOLDER, WeightFile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Noise, wider than high."""
    return np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)


def torchscript_of(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a TorchScript file that holds these tensors, and the three numbers that OpenAI's files hold besides."""

    class Tree(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Tree()
    numbers = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    for name, tensor in {**state, **numbers}.items():
        *parents, leaf = name.split(".")
        node: torch.nn.Module = root
        for parent in parents:
            if parent not in node._modules:
                node.add_module(parent, Tree())
            node = node.get_submodule(parent)
        node.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(root, torch.zeros(1)), path)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def clip_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, as a state dict (``ViT-B-32.pt``) and as TorchScript (``ViT-L-14.pt``), OpenAI's format."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg=open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32),
        text_cfg=open_clip.CLIPTextCfg(width=64, heads=1, layers=1),
        quick_gelu=True,
    ).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("token_embedding.weight", "proj", "text_projection")):
            torch.nn.init.normal_(parameter)  # so that different texts and pictures have different features
    model.half().float()  # so that both files hold the same
    place = tmp_path_factory.mktemp("clip")
    torch.save(model.state_dict(), place / "ViT-B-32.pt")
    torchscript_of({name: tensor.half() for name, tensor in model.state_dict().items()}, place / "ViT-L-14.pt")
    return place


@pytest.fixture
def tiny_clip(folder: Path, clip_files: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, WeightFile]:
    """The tiny CLIP in the folder of weights, accepted in spite of its hash."""
    for path in clip_files.iterdir():
        (folder / path.name).symlink_to(path)
    small, large = replace(clip.VIT_B_32, sha256=""), replace(clip.VIT_L_14, sha256="")
    monkeypatch.setattr(clip, "VIT_B_32", small)
    monkeypatch.setattr(clip, "VIT_L_14", large)
    monkeypatch.setattr(q16, "VIT_L_14", large)
    return {"state dict": small, "TorchScript": large}


@pytest.fixture(scope="session")
def photographs() -> dict[str, NDArray[np.uint8]]:
    """Real photographs, uint8 ``[height, width, 3]``: of scikit-image, matplotlib's portrait, and two churches.

    That called "church" is cut out of its photograph: the middle of the building, with its tower.
    """
    import matplotlib
    import skimage
    from PIL import Image

    folder, churches = Path(skimage.__file__).parent / "data", Path(__file__).parent / "photographs"
    files = {
        "astronaut": folder / "astronaut.png",
        "cat": folder / "chelsea.png",
        "coffee": folder / "coffee.png",
        "rocket": folder / "rocket.jpg",
        "cathedral": churches / "berlin-cathedral.jpg",
        "admiral": Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
    }
    found = {name: np.asarray(Image.open(path).convert("RGB")) for name, path in files.items()}
    whole = Image.open(churches / "kaiser-jubilaeums-kirche.webp").convert("RGB")
    return {**found, "church": np.asarray(whole.crop((85, 30, 180, 140)))}


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, str], None]:
    """Accept any file for a module's ``WeightFile``."""

    def accept(module: object, name: str) -> None:
        monkeypatch.setattr(module, name, replace(getattr(module, name), sha256=""))

    return accept
