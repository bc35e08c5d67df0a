"""Sampling at the size of Stable Diffusion XL's base model, 1024 x 1024 pixels, with random weights."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts.measuring import attempt, rounded, warmed_up
from benchmarks.gpu.parts.sd import FULL as STABLE_DIFFUSION
from benchmarks.gpu.parts.sd import (
    GUIDANCE,
    TERA,
    WARM_UP_STEPS,
    Size,
    Yardsticks,
    measure_batch,
    measure_ceilings,
    prompts_of,
)
from benchmarks.gpu.parts.sd import TINY as TINY_STABLE_DIFFUSION
from erasebench.models.loading import resolve_dtype
from erasebench.models.sdxl import TIME_IDS, StableDiffusionXL
from erasebench.picturebook import pipeline_path, quiet
from erasebench.picturebook.training.unet import build_scheduler


@dataclass(frozen=True)
class TwoEncoders:
    """Sizes of a pipeline with two text encoders.

    Attributes:
        size: as of Stable Diffusion; its text encoder is the first here.
        second: what differs from the defaults of ``CLIPTextConfig`` in the second.
    """

    size: Size
    second: dict[str, Any]


FULL = TwoEncoders(
    replace(
        STABLE_DIFFUSION,
        unet={
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_time_embed_dim": 256,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        },
        batches=(1, 4),
    ),
    {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
    },
)
TINY = TwoEncoders(
    replace(
        TINY_STABLE_DIFFUSION,
        unet={**TINY_STABLE_DIFFUSION.unet, "cross_attention_dim": 32, "addition_time_embed_dim": 4},
        batches=(1, 2),
    ),
    {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
    },
)


def build_pipeline(sizes: TwoEncoders, device: torch.device) -> Any:
    """The parts of a pipeline with random weights, made on the device; Picturebook's tokenizer, twice."""
    tokenizer = CLIPTokenizer.from_pretrained(pipeline_path() / "tokenizer")
    special = {
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    conditions = {
        "addition_embed_type": "text_time",
        "projection_class_embeddings_input_dim": sizes.second["projection_dim"]
        + TIME_IDS * sizes.size.unet["addition_time_embed_dim"],
    }
    levels = len(sizes.size.vae["block_out_channels"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device(device):
            text = CLIPTextModel(CLIPTextConfig(**sizes.size.text, hidden_act="quick_gelu", **special))
            second = CLIPTextModelWithProjection(CLIPTextConfig(**sizes.second, **special))
            unet = UNet2DConditionModel(**sizes.size.unet, **conditions)
            vae = AutoencoderKL(
                **{**sizes.size.vae, "sample_size": 8 * sizes.size.unet["sample_size"]},
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                latent_channels=4,
                scaling_factor=0.13025,
            )
    for network in (text, second, unet, vae):
        network.train(False)
    return SimpleNamespace(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=text,
        text_encoder_2=second,
        unet=unet,
        vae=vae,
        scheduler=build_scheduler(),
        config={"force_zeros_for_empty_prompt": True},
    )


def count_tflop(sizes: TwoEncoders) -> dict[str, float]:
    """TFLOP of a U-Net pass, of decoding, and of an image: guidance takes two passes a step.  Nothing is computed."""
    meta = torch.device("meta")
    pipeline = build_pipeline(sizes, meta)
    side = sizes.size.unet["sample_size"]
    latents = torch.empty(1, 4, side, side, device=meta)
    text = torch.empty(1, 77, sizes.size.unet["cross_attention_dim"], device=meta)
    added = {
        "text_embeds": torch.empty(1, sizes.second["projection_dim"], device=meta),
        "time_ids": torch.empty(1, TIME_IDS, device=meta),
    }
    timestep = torch.zeros((), device=meta)
    with FlopCounterMode(display=False) as unet, torch.no_grad():
        pipeline.unet(latents, timestep, encoder_hidden_states=text, added_cond_kwargs=added)
    with FlopCounterMode(display=False) as decoder, torch.no_grad():
        pipeline.vae.decode(latents)
    passes, decoding = unet.get_total_flops() / TERA, decoder.get_total_flops() / TERA
    return {"unet_pass": passes, "decoder": decoding, "image": 2 * sizes.size.steps * passes + decoding}


def measure_loop(sizes: TwoEncoders, device: torch.device, yardsticks: Yardsticks) -> dict[str, Any]:
    """One image by the stock pipeline, as the published codes draw all of theirs; in float16 where there is a GPU.

    The VAE overflows in float16, and is in bfloat16 here.
    """
    pipeline = build_pipeline(sizes, device)
    half, wide = (torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.float32, torch.float32)
    for name in ("text_encoder", "text_encoder_2", "unet"):
        torch.nn.Module.to(getattr(pipeline, name), half)
    parts = {name: part for name, part in vars(pipeline).items() if name != "config"}
    stock: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    stock.set_progress_bar_config(disable=True)
    torch.nn.Module.to(pipeline.vae, wide)

    def draw(steps: int) -> None:
        latents = stock(
            prompts_of(1)[0], num_inference_steps=steps, guidance_scale=GUIDANCE, output_type="latent"
        ).images
        with torch.no_grad():
            pipeline.vae.decode(latents.to(wide) / pipeline.vae.config.scaling_factor)

    duration, figures = warmed_up(device, lambda: draw(WARM_UP_STEPS), lambda: draw(sizes.size.steps))
    return {**yardsticks.figures(1 / duration), **figures}


def run(part: Part) -> None:
    """Measure the peers' loop and sampling in batches."""
    quiet()
    gc.freeze()
    sizes, device = (TINY if part.tiny else FULL), part.device
    tflop = count_tflop(sizes)
    part.record("tflop", {name: rounded(value) for name, value in tflop.items()})
    yardsticks = Yardsticks(tflop["image"])
    ceilings = attempt(part, "ceilings", 0.0, lambda: measure_ceilings(sizes.size, device))
    if ceilings:
        yardsticks.peak = ceilings["matrix_product_tflops"]
    loop = attempt(part, "sampling.peers_loop.1", 0.0, lambda: measure_loop(sizes, device, yardsticks))
    if loop:
        yardsticks.loop = loop["images_per_second"]
    precision = resolve_dtype("auto", device.type)
    part.record("precision", precision)
    model = StableDiffusionXL(build_pipeline(sizes, device), "photo", device, getattr(torch, precision))
    needed = loop["seconds"] if loop else 0.0
    for batch in sizes.size.batches:
        attempt(
            part,
            f"sampling.eager.{batch}",
            batch * needed,
            partial(measure_batch, sizes.size, model, yardsticks, batch),
        )
