from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from erasebench.errors import EraseBenchError
from erasebench.models import footprint
from erasebench.models.footprint import Footprint, check_memory, count_weights
from erasebench.models.loading import ModelSource, find_model, load_stock
from erasebench.models.original_layout import to_original_layout
from tests.models.stock import stock_pipeline
from tests.tiny import Layout

GB = 10**9


def test_weights_are_those_that_are_loaded() -> None:
    source = find_model("picturebook")
    pipeline = load_stock(source)
    loaded = sum(p.numel() for part in source.family.networks for p in getattr(pipeline, part).parameters())
    copied = sum(p.numel() for p in pipeline.unet.parameters())
    assert Footprint.of(source, "float32").weights == 4 * loaded + 4 * copied
    assert Footprint.of(source, "bfloat16").weights == 4 * loaded + 2 * copied
    assert Footprint.of(source, "float32").size == 64


@pytest.mark.parametrize("layout", get_args(Layout))
def test_a_single_file_counts_as_its_folder(layout: Layout, tmp_path: Path) -> None:
    pipeline = stock_pipeline(layout)
    pipeline.save_pretrained(tmp_path / "model")
    unloaded = {"model_ema.decay": torch.ones(9), "alphas_cumprod": torch.ones(1000)}
    save_torch(to_original_layout(pipeline) | unloaded, tmp_path / "a.safetensors")
    whole = find_model(str(tmp_path / "model"))
    single = replace(whole, file=tmp_path / "a.safetensors")
    parts = {part: sum(p.numel() for p in getattr(pipeline, part).parameters()) for part in whole.family.networks}
    assert count_weights(whole) == count_weights(single) == parts
    assert Footprint.of(single, "bfloat16") == Footprint.of(whole, "bfloat16")


def test_copies_in_half_precision_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("model.safetensors", "model.fp16.safetensors", "model-00002-of-00002.safetensors"):
        save_file({"a": np.zeros((2, 3), np.float16), "b": np.zeros(4, np.float16)}, tmp_path / "unet" / name)
    assert count_weights(somewhere(tmp_path)) == {"unet": 20, "text_encoder": 0, "vae": 0}


def somewhere(folder: Path) -> ModelSource:
    return ModelSource("somewhere", folder, "photo", "", 50, 7.5)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    """A pipeline of Stable Diffusion 1.4's sizes: weights of 4.2 GB (4.8 in float32), images of 1 GB (2 in float32).

    A GPU has 10 GB free.
    """
    monkeypatch.setattr(footprint, "count_weights", lambda source: dict.fromkeys(source.family.networks, 300 * 10**6))
    each = GB / 128 / 512**2
    monkeypatch.setattr(footprint, "MAPS", {"bfloat16": each, "float32": 2 * each})
    monkeypatch.setattr(footprint, "free_memory", lambda device, gigabytes=None: (gigabytes or 10) * GB)
    configs = {
        "unet": {"sample_size": 64, "block_out_channels": [320, 640, 1280, 1280]},
        "text_encoder": {},
        "vae": {"block_out_channels": [128, 256, 512, 512]},
    }
    for part, config in configs.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    return somewhere(tmp_path)


@pytest.mark.parametrize(("device", "dtype", "size", "gigabytes"), [
    ("cuda", "bfloat16", None, None),
    ("cuda", "float32", None, 8),
    ("cuda", "bfloat16", 1024, None),
    ("cuda", "bfloat16", None, 5.8),  # 5.2 of them are planned with
    ("cpu", "bfloat16", 4096, None),
])  # fmt: skip
def test_what_fits_is_let_through(
    source: ModelSource, device: str, dtype: str, size: int | None, gigabytes: float | None
) -> None:
    check_memory(source, device, dtype, gigabytes, size)


@pytest.mark.parametrize(("dtype", "size", "gigabytes", "said"), [
    ("bfloat16", 2048, None, ["2048 x 2048 pixels take about 20.20 GB, and it has 9.00 GB free", ": --size 1088, a "]),
    ("bfloat16", None, 5, [" 512 x 512 ", "--max-memory leaves 4.50 GB", "--size 256, --max-memory 5.8, a larger"]),
    ("float32", None, 6, ["take about 6.80 GB", "--size 256, --dtype bfloat16, --max-memory 7.6, a larger"]),
    ("bfloat16", None, 4, [" 3.60 GB", "fit: --max-memory 5.8, a larger card, --device cpu"]),
])  # fmt: skip
def test_a_card_that_is_too_small_is_an_error_that_says_what_would_fit(
    source: ModelSource, dtype: str, size: int | None, gigabytes: float | None, said: list[str]
) -> None:
    with pytest.raises(EraseBenchError) as caught:
        check_memory(source, "cuda:1", dtype, gigabytes, size)
    with pytest.raises(EraseBenchError, match=r"fit: (--max-memory [\d.]+, )?a larger card, --device cpu$"):
        check_memory(source, "cuda:1", dtype, gigabytes, size, choices=())
    text = str(caught.value)
    assert text.startswith("cuda:1 is too small for this model: its weights and one image of ") and "\n" not in text
    assert all(part in text for part in said), text


def test_only_what_can_be_had_is_said_to_fit(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EraseBenchError, match=r"fit: --max-memory 5.8, a larger card, --device cpu$"):
        check_memory(source, "cuda", "bfloat16", 5, choices=["--dtype"])
    monkeypatch.setattr(footprint, "free_memory", lambda device, gigabytes=None: 5 * GB)
    with pytest.raises(EraseBenchError, match=r"fit: a larger card, --device cpu$"):
        check_memory(source, "cuda", "bfloat16", 5, choices=["--dtype"])


@pytest.mark.parametrize("multiple", [0, 1])
def test_the_largest_size_fits_and_the_next_does_not(source: ModelSource, multiple: int) -> None:
    made = Footprint.of(source, "bfloat16")
    for free in (5 * GB, 9 * GB, 24 * GB):
        most = made.largest(free)
        assert most % made.multiple == 0 and (made.needed(most + multiple * made.multiple) <= free) == (multiple == 0)
