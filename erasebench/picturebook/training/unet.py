"""Stage ``unet``: text encoder and U-Net, trained together on cached latents and fresh captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from erasebench.picturebook.tokenizer import CONTEXT_LENGTH
from erasebench.picturebook.training.data import Renders
from erasebench.picturebook.training.loop import Recipe, mixed_precision, processes, rank
from erasebench.picturebook.world.scene import Scene

CHANNELS = (32, 80, 160)
TEXT_WIDTH = 160
RECIPE = Recipe(steps=11000, learning_rate=1e-3, warmup=300, ema=0.999)
BATCH = 32
CAPTION_DROPOUT = 0.1
SHORT_CONTEXT = 32
"""Captions have at most 34 tokens, so most of the training runs on sequences cut (or padded) to this length; the
last :data:`LONG_SHARE` of the steps see all 77 positions, as sampling does."""
LONG_SHARE = 0.1
MIN_SNR_GAMMA = 5.0
PLAIN_SHARE = 0.6
"""How many pictures of a batch are plain photos.  A photo is 43 % of the world, but what things look like is learnt
from photos, and most prompts ask for one."""
KIND_WEIGHTS = {"character": 1.7, "pair": 1.4, "empty": 0.5}
"""How often scenes of a kind are drawn, against 1 for the others: each character is in one scene of a hundred, and two
objects are harder than one."""
FOCUS = (-0.6, 0.9)
"""Half of the noise levels are drawn evenly, half from a logit-normal distribution with this mean and deviation
(Esser et al. 2024): around t = 350, where it is decided what a picture of 16x16 latents shows."""


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A three-layer CLIP text model with the tokenizer's special tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=5,
            max_position_embeddings=CONTEXT_LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(latent_channels: int) -> UNet2DConditionModel:
    """A U-Net of Stable Diffusion's shape with three levels (16x16, 8x8, 4x4) for 16x16 latents.

    The first level has no attention: on a CPU most of the time would go there.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,  # diffusers reads this as the number of heads, for U-Nets like this one
        cross_attention_dim=TEXT_WIDTH,
    )


def build_scheduler() -> DDIMScheduler:
    """DDIM with the noise schedule and conventions of Stable Diffusion 1.x."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


class Denoiser(nn.Module):
    """Text encoder and U-Net as one module, so that one optimiser and one moving average serve both."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """Predicted noise ``[n, c, 16, 16]`` of noisy latents, given token ids ``[n, length]``."""
        predicted: Tensor = self.unet(noisy, timesteps, self.text_encoder(ids).last_hidden_state).sample
        return predicted


class UnetObjective:
    """Noise prediction with min-SNR-gamma weights (Hang et al. 2023), gamma 5, and caption dropout."""

    def __init__(
        self,
        model: Denoiser,
        tokenizer: CLIPTokenizer,
        renders: Renders,
        latents: Tensor,
        seed: int,
        recipe: Recipe,
    ) -> None:
        """``latents`` are the VAE's posterior means of ``renders``, scaled, ``[n, c, 16, 16]``."""
        self.model, self.tokenizer, self.renders = model, tokenizer, renders
        self.latents = latents
        self.seed, self.recipe = seed, recipe
        self.odds = _odds([renders.scene(i) for i in range(len(renders))])
        self.alphas_cumprod = build_scheduler().alphas_cumprod

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The weighted loss of this process's share of the batch of ``step``, and its plain mean squared error.

        The shares add up to the loss of the whole batch, whatever the number of processes.
        """
        rng = np.random.default_rng([self.seed, step])
        rows = rng.choice(len(self.renders), size=BATCH, replace=False, p=self.odds)
        device = self.model.unet.device
        ids = self.token_ids(rows, rng, step)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        latents = self.latents[rows].float()
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = self.timesteps(generator)
        snr = self.alphas_cumprod[timesteps] / (1 - self.alphas_cumprod[timesteps])
        weights = snr.clamp(max=MIN_SNR_GAMMA) / snr
        weights = weights / weights.sum()
        share = slice(rank(), None, processes())
        ids, latents, noise, timesteps, weights = (
            x[share].to(device) for x in (ids, latents, noise, timesteps, weights)
        )
        alpha = self.alphas_cumprod.to(device)[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        # On a CPU, the backward pass of the fused attention kernel costs more than the rest of the model together.
        attention = SDPBackend.MATH if device.type == "cpu" else SDPBackend.FLASH_ATTENTION
        with mixed_precision(device), sdpa_kernel([attention, SDPBackend.MATH]):
            predicted = self.model(noisy, timesteps, ids).float()
        errors = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (weights * errors).sum(), {"mse": float(errors.detach().mean())}

    def timesteps(self, generator: torch.Generator) -> Tensor:
        """Noise levels, int64 ``[BATCH]``: even rows evenly distributed, odd rows focused, both stratified."""
        quantiles = (torch.arange(BATCH) // 2 + torch.rand(BATCH, generator=generator)) / (BATCH // 2)
        mean, deviation = FOCUS
        focused = torch.sigmoid(mean + deviation * torch.special.ndtri(quantiles[1::2]))
        levels = torch.stack([quantiles[::2], focused], dim=1).flatten()
        return (levels * len(self.alphas_cumprod)).long().clamp(max=len(self.alphas_cumprod) - 1)

    def token_ids(self, rows: NDArray[np.int64], rng: np.random.Generator, step: int) -> Tensor:
        """Token ids of one caption per picture, int64 ``[n, length]``; a tenth of the captions are empty."""
        epoch = step * BATCH // len(self.renders)
        captions = self.renders.captions(rows, epoch)
        dropped = rng.random(len(captions)) < CAPTION_DROPOUT
        captions = ["" if drop else text for drop, text in zip(dropped, captions, strict=True)]
        long = step >= (1 - LONG_SHARE) * self.recipe.steps
        ids: Tensor = self.tokenizer(
            captions,
            padding="max_length",
            truncation=True,
            max_length=CONTEXT_LENGTH if long else SHORT_CONTEXT,
            return_tensors="pt",
        ).input_ids
        return ids


def _odds(scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """Each scene's probability to be drawn, ``[n]``; plain photos have :data:`PLAIN_SHARE` of it together."""
    plain = np.array([scene.style == "photo" for scene in scenes])
    weights = np.array([KIND_WEIGHTS.get(scene.kind, 1.0) for scene in scenes])
    shares = np.where(plain, PLAIN_SHARE / weights[plain].sum(), (1 - PLAIN_SHARE) / weights[~plain].sum())
    return np.asarray(shares * weights)
