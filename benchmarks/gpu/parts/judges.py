"""How many images a second every judge sees, at 512 x 512 pixels, with random weights, so that nothing is downloaded.

Files of random weights, in the formats of the real ones, stand where judges look for theirs, and each judge is made as
a run makes it: with its own preparation of images, mostly by PIL on one core of the CPU, and in its own batches.
Judges whose weights come with packages have the real ones, where the package is installed.
"""

from __future__ import annotations

import gc
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts.measuring import attempt, rounded, warmed_up
from benchmarks.gpu.parts.sd import prompts_of
from erasebench.errors import EraseBenchError
from erasebench.judges import clip, inception, lpips, q16, resnet50, yolov8_imagenette
from erasebench.judges.networks import torchscript
from erasebench.judges.weights_files import FOLDER, PackageFile, WeightFile, weights_folder
from erasebench.picturebook import quiet
from erasebench.plugins import Judge, PairedJudge
from erasebench.stages.judge import make_judge

DOMAIN, LABEL = "photo", "church"
SEED = 0

EXCLUDED: Mapping[str, str] = {
    "grounded-sam": "with random weights Grounding DINO finds no boxes, without which SAM does nothing",
    "giphy-celebrities": "runs a program of the user's",
    "q16-or-nudenet": "is q16 and nudenet, one after the other",
    "clip-artist": "does what clip-style does",
    **dict.fromkeys(
        (
            "picturebook-clip",
            "picturebook-detector",
            "picturebook-distance",
            "picturebook-q16",
            "picturebook-segmenter",
            "picturebook-style",
        ),
        "sees Picturebook's images, which are small",
    ),
}
"""Judges that are not measured."""


@dataclass(frozen=True)
class Transformers:
    """Sizes of OpenAI's models: of ``CLIPVisionCfg`` and ``CLIPTextCfg``, and the width that both share."""

    width: int
    vision: Mapping[str, int]
    text: Mapping[str, int]


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        images: that a judge sees.
        side: pixels of one.
        warm_up: images that it sees before.
        small: of the CLIP that most judges use; ``large`` of that of ``clip-l14`` and ``q16``.
    """

    images: int
    side: int
    warm_up: int
    small: Transformers
    large: Transformers


FULL = Size(
    images=128,
    side=512,
    warm_up=64,
    small=Transformers(512, {"layers": 12, "width": 768, "patch_size": 32}, {"width": 512, "heads": 8, "layers": 12}),
    large=Transformers(768, {"layers": 24, "width": 1024, "patch_size": 14}, {"width": 768, "heads": 12, "layers": 12}),
)
TINY_CLIP = Transformers(32, {"layers": 1, "width": 64, "patch_size": 112}, {"width": 64, "heads": 1, "layers": 1})
TINY = Size(images=2, side=64, warm_up=1, small=TINY_CLIP, large=TINY_CLIP)


class Inception(nn.Module):
    """torchvision's network but for its last layer, as large as the one in NVIDIA's TorchScript file, and shaped so."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        network = inception_v3(init_weights=False, aux_logits=False)
        self.layers = nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``[n, 2048, 1, 1]`` of images ``[n, 3, 299, 299]``."""
        features: Tensor = self.layers(x)
        return features


def write_clip(size: Transformers, path: Path, device: torch.device) -> None:
    """One of OpenAI's models, as a state dict in half precision."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    with device:
        vision, text = CLIPVisionCfg(image_size=224, **size.vision), CLIPTextCfg(**size.text)
        model = CLIP(size.width, vision, text, quick_gelu=True)
    torch.save(model.half().cpu().state_dict(), path)


def write_prompts(size: Transformers, path: Path) -> None:
    """Q16's two vectors."""
    vectors = np.random.default_rng(SEED).standard_normal((2, size.width)).astype(np.float32)
    path.write_bytes(pickle.dumps(vectors))


def write_inception(path: Path) -> None:
    """TorchScript of a network of Inception's size."""
    with torchscript():
        torch.jit.save(torch.jit.script(Inception().eval()), path)


def write_classifier(name: str, path: Path) -> None:
    """One of torchvision's classifiers."""
    import torchvision

    torch.save(getattr(torchvision.models, name)().state_dict(), path)


def write_yolo(path: Path) -> None:
    """What ``erasebench train-judge yolov8-imagenette`` writes."""
    save_file(yolov8_imagenette.build_network().state_dict(), path, {"judge": yolov8_imagenette.NAME})


Write = Callable[[Size, torch.device, Path], None]

WRITERS: Mapping[str, Write] = {
    clip.VIT_B_32.name: lambda size, device, path: write_clip(size.small, path, device),
    clip.VIT_L_14.name: lambda size, device, path: write_clip(size.large, path, device),
    q16.PROMPTS.name: lambda size, device, path: write_prompts(size.large, path),
    inception.WEIGHTS.name: lambda size, device, path: write_inception(path),
    resnet50.WEIGHTS.name: lambda size, device, path: write_classifier("resnet50", path),
    lpips.ALEXNET.name: lambda size, device, path: write_classifier("alexnet", path),
    yolov8_imagenette.WEIGHTS.name: lambda size, device, path: write_yolo(path),
}
"""File that judges read -> what writes random weights into it."""
MEASURED = (
    "clip",
    "clip-l14",
    "q16",
    "resnet50",
    "inception",
    "nudenet",
    "lpips",
    "yolov8-imagenette",
    "clip-style",
    "clip-phrase",
    "clip-cifar10",
    "lpips-64",
    "open-nsfw",
    "efficientnet-lite0",
)
"""In this order."""


@contextmanager
def random_weights() -> Iterator[None]:
    """A folder of weights in which any file is taken for the right one."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {FOLDER: folder}),
        mock.patch.object(WeightFile, "find", lambda file: weights_folder() / file.name),
    ):
        yield


def missing_part(judge: Judge) -> str:
    """Which package with a judge's weights is missing; '' if none is."""
    for weights in judge.weights:
        if isinstance(weights, PackageFile):
            try:
                weights.find()
            except EraseBenchError as error:
                return str(error)
    return ""


def measure_judge(judge: Judge, size: Size, device: torch.device) -> dict[str, Any]:
    """Images a second, once the judge is loaded and has seen some; and memory."""
    for weights in judge.weights:
        path = weights_folder() / str(getattr(weights, "name", ""))
        if path.name in WRITERS and not path.exists():
            WRITERS[path.name](size, device, path)
    images = np.random.default_rng(SEED).integers(0, 256, (size.images, size.side, size.side, 3), dtype=np.uint8)

    def see(count: int) -> object:
        if isinstance(judge, PairedJudge):
            return judge.compare(images[:count], images[::-1][:count])
        return judge.scores(images[:count], prompts_of(count))

    duration, figures = warmed_up(device, lambda: see(size.warm_up), lambda: see(size.images))
    # CLIP is kept for all judges that share it; here, each is to be measured alone.
    clip._load.cache_clear()
    return {"images_per_second": rounded(size.images / duration), "images": size.images, **figures}


def run(part: Part) -> None:
    """Measure every judge, and say which are not."""
    quiet()
    gc.freeze()
    size, device = (TINY if part.tiny else FULL), part.device
    needed = 0.0
    with random_weights():
        for name in MEASURED:
            judge = make_judge(name, LABEL, DOMAIN, str(device))
            reason = missing_part(judge)
            if reason:
                part.record(f"judging.{name}", f"not measured: {reason}")
                continue
            row = attempt(part, f"judging.{name}", needed, partial(measure_judge, judge, size, device))
            if row:
                needed = max(needed, row["seconds"] + row["warm_up_seconds"])
    for name, reason in EXCLUDED.items():
        part.record(f"not_measured.{name}", reason)
