"""Stage ``unet``: text encoder and U-Net, trained together on cached latents and captions that were made before.

Everything that a step needs lies on the model's device: on a GPU, no step waits for data.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from erasebench.picturebook.tokenizer import CONTEXT_LENGTH
from erasebench.picturebook.training.loop import Recipe, mixed_precision, processes, rank
from erasebench.picturebook.world.scene import Scene

CHANNELS = (32, 80, 160)
SMALL_CHANNELS = (24, 56, 96)
"""Of the U-Net that is distilled: 46 % of the FLOPs."""
TEXT_WIDTH = 160
RECIPE = Recipe(steps=11000, learning_rate=1e-3, warmup=300, ema=0.999)
BATCH = 32
CAPTIONS = 8
"""Wordings of each scene's caption."""
CAPTION_DROPOUT = 0.1
SHORT_CONTEXT = 32
"""Captions have at most 34 tokens, so most of the training runs on sequences cut (or padded) to this length; the
last :data:`LONG_SHARE` of the steps see all 77 positions, as sampling does."""
LONG_SHARE = 0.1
MIN_SNR_GAMMA = 5.0
PLAIN_SHARE = 0.6
"""The share of plain photos in a batch.  A photo is 43 % of the world, but what things look like is learnt
from photos, and most prompts ask for one."""
KIND_WEIGHTS = {"character": 1.7, "pair": 1.4, "empty": 0.5}
"""The odds of drawing scenes of a kind, against 1 for the others: each character is in one scene of a hundred, and two
objects are harder than one."""
FOCUS = (-0.6, 0.9)
"""Half of the noise levels are drawn evenly, half from a logit-normal distribution with this mean and deviation
(Esser et al. 2024): around t = 350, where it is decided what an image of 16x16 latents shows."""


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


def build_unet(latent_channels: int, channels: tuple[int, int, int] = CHANNELS) -> UNet2DConditionModel:
    """A U-Net of Stable Diffusion's shape with three levels (16x16, 8x8, 4x4) for 16x16 latents.

    The first level has no attention: on a CPU most of the time would go there.

    Args:
        latent_channels: of the VAE.
        channels: of each level; :data:`SMALL_CHANNELS` for half of the work.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16 if channels == CHANNELS else 8,
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
    """Noise prediction with min-SNR-gamma weights (Hang et al. 2023), gamma 5, and caption dropout.

    With a teacher, half of the loss is the squared distance to its prediction (output distillation, as in BK-SDM, Kim
    et al. 2024).
    """

    def __init__(
        self,
        model: Denoiser,
        latents: Tensor,
        ids: Tensor,
        odds: Tensor,
        seed: int,
        recipe: Recipe,
        batch: int = BATCH,
        teacher: Denoiser | None = None,
        short: bool = True,
    ) -> None:
        """Move the training data to the model's device.

        Args:
            model: what is trained.
            latents: the VAE's posterior means of all scenes, scaled, ``[n, c, 16, 16]``.
            ids: token ids of their captions, ``[n, k, 77]``, k wordings of each, and in row n those of no caption.
            odds: float ``[n]``: how often each scene is drawn; see :func:`scene_odds`.
            seed: of the batches.
            recipe: whose number of steps says when long captions begin.
            batch: scenes in a step; even.
            teacher: a frozen model to be imitated.
            short: cut captions to :data:`SHORT_CONTEXT` tokens but for the last steps; a compiled model would be
                compiled again there.
        """
        device = model.unet.device
        self.model, self.teacher = model, teacher
        self.latents, self.ids, self.odds = latents.to(device), ids.to(device), odds.to(device)
        self.seed, self.recipe, self.batch, self.short = seed, recipe, batch, short
        self.alphas_cumprod = build_scheduler().alphas_cumprod.to(device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The weighted loss of this process's share of the batch of ``step``, and its plain mean squared error.

        The shares add up to the loss of the whole batch, whatever the number of processes.
        """
        device = self.latents.device
        state = np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)
        generator = torch.Generator(device).manual_seed(int(state[0] >> 1))
        rows = torch.multinomial(self.odds, self.batch, generator=generator)
        ids = self.token_ids(rows, step, generator)
        latents = self.latents[rows].float()
        noise = torch.randn(latents.shape, generator=generator, device=device)
        timesteps = self.timesteps(generator)
        snr = self.alphas_cumprod[timesteps] / (1 - self.alphas_cumprod[timesteps])
        weights = snr.clamp(max=MIN_SNR_GAMMA) / snr
        weights = weights / weights.sum()
        share = slice(rank(), None, processes())
        ids, latents, noise, timesteps, weights = (x[share] for x in (ids, latents, noise, timesteps, weights))
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with mixed_precision(device), _attention(device):
            predicted = self.model(noisy, timesteps, ids).float()
            if self.teacher is not None:
                with torch.no_grad():
                    imitated = self.teacher(noisy, timesteps, ids).float()
        errors = (predicted - noise).square().mean(dim=(1, 2, 3))
        figures: dict[str, float | Tensor] = {"mse": errors.detach().mean()}
        if self.teacher is not None:
            distances = (predicted - imitated).square().mean(dim=(1, 2, 3))
            figures["distance"] = distances.detach().mean()
            errors = (errors + distances) / 2
        return (weights * errors).sum(), figures

    def timesteps(self, generator: torch.Generator) -> Tensor:
        """Noise levels, int64 ``[batch]``: even rows evenly distributed, odd rows focused, both stratified."""
        device = self.latents.device
        jitter = torch.rand(self.batch, generator=generator, device=device)
        quantiles = (torch.arange(self.batch, device=device) // 2 + jitter) / (self.batch // 2)
        mean, deviation = FOCUS
        focused = torch.sigmoid(mean + deviation * torch.special.ndtri(quantiles[1::2]))
        levels = torch.stack([quantiles[::2], focused], dim=1).flatten()
        return (levels * len(self.alphas_cumprod)).long().clamp(max=len(self.alphas_cumprod) - 1)

    def token_ids(self, rows: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """Token ids of one caption per scene, int64 ``[batch, length]``; a tenth of the captions are empty."""
        device, wordings = self.ids.device, self.ids.shape[1]
        wording = torch.randint(wordings, (len(rows),), generator=generator, device=device)
        dropped = torch.rand(len(rows), generator=generator, device=device) < CAPTION_DROPOUT
        rows = torch.where(dropped, len(self.latents), rows)
        short = self.short and step < (1 - LONG_SHARE) * self.recipe.steps
        return self.ids[rows, wording, : SHORT_CONTEXT if short else CONTEXT_LENGTH].long()


def scene_odds(scenes: Sequence[Scene], without: str = "") -> Tensor:
    """Each scene's probability to be drawn, float64 ``[n]``; plain photos have :data:`PLAIN_SHARE` of it together.

    Args:
        scenes: of the training data.
        without: a label or style that is never drawn.
    """
    shows = np.array([without in (scene.style, *(subject.label for subject in scene.subjects)) for scene in scenes])
    plain = np.array([scene.style == "photo" for scene in scenes])
    weights = np.where(shows, 0.0, [KIND_WEIGHTS.get(scene.kind, 1.0) for scene in scenes])
    shares = np.where(plain, PLAIN_SHARE / weights[plain].sum(), (1 - PLAIN_SHARE) / weights[~plain].sum())
    return torch.from_numpy(shares * weights)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    # On a CPU, the backward pass of the fused attention kernel costs more than the rest of the model together.
    fused = [] if device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    return sdpa_kernel([*fused, SDPBackend.MATH])
