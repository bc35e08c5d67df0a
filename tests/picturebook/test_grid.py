"""Loading and the grid, on a tiny untrained pipeline, so that they are tested without the shipped weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import erasebench.picturebook
from erasebench.picturebook import LABELS, grid, load_pipeline
from erasebench.picturebook.grid import concept_prompt, draw, draw_grid
from erasebench.picturebook.world.styles import STYLES


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder of the built-in model's shape, in half precision as it is shipped."""
    torch.manual_seed(0)
    letters = [chr(k) for k in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=77)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("tiny")
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture
def pipeline(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StableDiffusionPipeline]:
    monkeypatch.setattr(erasebench.picturebook, "pipeline_path", lambda: tiny)
    yield load_pipeline()


def test_every_part_is_loaded_in_the_precision_asked_for(pipeline: StableDiffusionPipeline) -> None:
    half = load_pipeline(dtype=torch.float16)
    for loaded, dtype in ((pipeline, torch.float32), (half, torch.float16)):
        assert {p.dtype for part in (loaded.unet, loaded.vae, loaded.text_encoder) for p in part.parameters()} == {
            dtype
        }
    assert pipeline.safety_checker is None


def test_a_picture_depends_on_its_own_prompt_and_seed_only(pipeline: StableDiffusionPipeline) -> None:
    def difference(one: Image.Image, two: Image.Image) -> int:
        return int(np.abs(np.asarray(one, int) - np.asarray(two, int)).max())

    church, again, other = draw(pipeline, ["a church", "a church", "a church"], [0, 0, 1], steps=2)
    assert church.size == (64, 64)
    # Rounding depends on the batch, and on the place in it.
    assert difference(church, again) <= 1
    assert difference(church, other) > 20
    beside_another = draw(pipeline, ["a horn", "a church"], [5, 0], steps=2)[1]
    assert difference(church, beside_another) <= 1


def test_every_concept_and_style_has_its_own_prompt() -> None:
    prompts = [concept_prompt(label, style) for label in LABELS for style in STYLES]
    assert len(set(prompts)) == len(LABELS) * len(STYLES)
    assert concept_prompt("english-springer") == "a photo of an English springer"
    assert concept_prompt("paul-marsh", "crayon") == "a crayon drawing of Paul Marsh"


def test_the_grid_is_deterministic(
    pipeline: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "_CELLS", grid._CELLS[: 2 * grid.COLUMNS])
    first, second = tmp_path / "new" / "first.png", tmp_path / "second.png"
    draw_grid(first, pipeline, steps=1)
    draw_grid(second, pipeline, steps=1)
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as sheet:
        assert sheet.width >= 8 * 128 and sheet.height >= 2 * 128
