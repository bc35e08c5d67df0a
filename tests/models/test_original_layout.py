"""Weights by the names of single files: against diffusers' own converters, and against names that are published."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from erasebench.models.original_layout import (
    OPEN_CLIP,
    UNET,
    VAE,
    from_original_layout,
    to_original_layout,
    unet_names,
    vae_names,
)
from erasebench.models.single_file import KINDS
from erasebench.picturebook import pipeline_path
from tests.tiny import Layout, tiny_model

FOLDERS = {kind.folder: kind.configuration for kind in KINDS if kind.folder != "sd2-768-v"}


@pytest.fixture(params=[*FOLDERS, "picturebook"])
def parts(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """U-Net and VAE without values, in full size."""
    folder = FOLDERS.get(request.param, pipeline_path())
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        return unet, AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))


def test_diffusers_reads_the_names_back(parts: tuple[Any, Any]) -> None:
    unet, vae = parts
    own: dict[str, Tensor] = unet.state_dict()
    stored = {UNET + original: own[name] for name, original in unet_names(own).items()}
    assert len(stored) == len(own)
    read = convert_ldm_unet_checkpoint(stored, unet.config)
    assert set(read) == set(own) and all(read[name] is own[name] for name in own)
    names = vae_names(vae.state_dict())
    # Every weight is one of its own number.
    numbered = {name: torch.full((1, 1), float(k)) for k, name in enumerate(names)}
    read = convert_ldm_vae_checkpoint({VAE + original: numbered[name] for name, original in names.items()}, vae.config)
    assert {name: float(value) for name, value in read.items()} == {n: float(v) for n, v in numbered.items()}


def test_names_are_the_published_ones() -> None:
    """Those by which other programs tell kinds of files apart, and where numbering is intricate."""
    configuration = UNet2DConditionModel.load_config(FOLDERS["sd1"] / "unet")
    with torch.device("meta"):
        names = unet_names(UNet2DConditionModel.from_config(configuration).state_dict())
    expected = {
        "conv_in.weight": "input_blocks.0.0.weight",
        "conv_out.bias": "out.2.bias",
        "time_embedding.linear_2.bias": "time_embed.2.bias",
        "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight": (
            "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
        ),
        "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
        "down_blocks.3.resnets.1.conv2.weight": "input_blocks.11.0.out_layers.3.weight",
        "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
        "mid_block.resnets.1.time_emb_proj.weight": "middle_block.2.emb_layers.1.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
        "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
        "up_blocks.3.resnets.2.conv_shortcut.weight": "output_blocks.11.0.skip_connection.weight",
    }
    assert {name: names[name] for name in expected} == expected


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_a_model_is_read_back(layout: Layout) -> None:
    model = tiny_model(layout)
    own = {name.replace("text_model.", ""): value for name, value in model.parameters().items()}
    stored = to_original_layout(model)
    assert stored["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    stored["model_ema.decay"] = stored["betas"] = torch.ones(1)
    read = from_original_layout(stored, list(model.parameters()))
    assert set(read) == set(own)
    assert all(torch.equal(read[name], own[name]) for name in own)


def test_what_stable_diffusion_2_does_not_use_is_left_out() -> None:
    model = tiny_model("sd2")
    stored = to_original_layout(model)
    assert f"{OPEN_CLIP}transformer.resblocks.1.attn.in_proj_weight" in stored
    assert not any("resblocks.2." in name for name in stored)
    wanted = from_original_layout(stored, list(model.parameters()))
    more = {
        f"{OPEN_CLIP}transformer.resblocks.2.mlp.c_fc.weight": torch.ones(1),
        f"{OPEN_CLIP}text_projection": torch.ones(1),
        f"{OPEN_CLIP}logit_scale": torch.ones(()),
    }
    assert set(from_original_layout(stored | more, list(model.parameters()))) == set(wanted)


def test_an_unknown_key_is_kept_to_be_refused() -> None:
    key = f"{UNET}input_blocks.99.0.weight"
    assert set(from_original_layout({key: torch.ones(1)}, list(tiny_model().parameters()))) == {key}
