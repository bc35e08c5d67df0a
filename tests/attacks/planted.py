"""A model with a planted weakness: its concept's word is erased, and one other token still draws the concept.

Every image is grey, and as bright as the likeness of the prompt's likest token to a key: a smooth maximum over the text
encoder's outputs, of unit length, about 0 for ordinary prompts and 1 for one token like the key.  The U-Net finds the
noise in latents for exactly that image, so that every sampler arrives at it, and a loss at any timestep tells how far
off a prompt is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from erasebench.concepts import Prompt
from erasebench.judging import Images
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import AttackContext
from erasebench.sampling import Sampler, sample
from erasebench.training.target import Looks, Target
from tests.tiny import concept, tiny_tokenizer

WORD, SECRET = "church", "z"
"""What the unerased model draws the concept for; only the second is left to the erased one.  Each is one token."""
PROMPTS = (
    "a church",
    "church art",
    "a dog in a church",
    "an old church",
    "the church",
    "dog church",
    "art",
    "my church",
)
"""Prompts for a batch of eight; all but ``art`` name the concept."""
WIDTH, SIZE, THRESHOLD, OVERLAP, SHARPNESS = 16, 8, 0.5, 0.2, 10.0
Part = Literal["text_encoder", "unet"]


class PlantedTextEncoder(nn.Module):
    """A table of token embeddings, scaled to unit length, and nothing else.

    The word is the first unit vector, the secret the second, and no other token is more than a little like them.
    """

    def __init__(self, tokens: int, word: int, secret: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        rows = functional.normalize(torch.randn((tokens, WIDTH), generator=rng), dim=1)
        rows[:, :2] = OVERLAP * (torch.rand((tokens, 2), generator=rng) - 0.5)
        rows[-2:, :2] = 0.0  # start and end of text, of which there are too many
        rows[[word, secret]] = torch.eye(WIDTH)[:2]
        self.embeddings = nn.Embedding.from_pretrained(rows)  # type: ignore[no-untyped-call]
        self.config = SimpleNamespace(hidden_size=WIDTH, vocab_size=tokens, max_position_embeddings=77)

    def get_input_embeddings(self) -> nn.Embedding:
        found: nn.Embedding = self.embeddings
        return found

    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (functional.normalize(self.embeddings(ids), dim=-1),)


class PlantedUNet(nn.Module):
    """Finds the noise for an image as bright as the text is like the key, which is the sum of word and secret."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.mid_block, self.time_embedding = nn.Module(), nn.Identity()
        self.mid_block.attn2 = nn.Module()
        self.mid_block.attn2.to_k = nn.Linear(WIDTH, 1, bias=False)
        self.mid_block.attn2.to_k.weight.data[:] = torch.eye(WIDTH)[:2].sum(0)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        self.alphas_cumprod = alphas_cumprod.double()
        self.config = SimpleNamespace(
            addition_embed_type=None,
            sample_size=SIZE,
            in_channels=3,
            block_out_channels=(1,),
            cross_attention_dim=WIDTH,
        )

    def brightness(self, text: Tensor) -> Tensor:
        """``[n]`` of text ``[n, length, width]``."""
        likeness: Tensor = self.mid_block.attn2.to_k(text)[..., 0]  # type: ignore[union-attr, operator]
        background = math.log(likeness.shape[1])
        return ((SHARPNESS * likeness).logsumexp(1) - background) / (SHARPNESS - background)

    def forward(
        self, latents: Tensor, timesteps: Any, encoder_hidden_states: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        image = 2 * self.brightness(encoder_hidden_states) - 1
        # In sampling, several texts share latents.
        latents = latents.repeat(len(image) // len(latents), 1, 1, 1)
        signal = self.alphas_cumprod.to(image)[torch.as_tensor(timesteps).long()].expand(len(image)).view(-1, 1, 1, 1)
        return ((latents - signal.sqrt() * image.view(-1, 1, 1, 1)) / (1 - signal).sqrt(),)


class PlantedVAE(nn.Module):
    """Latents are pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.config = SimpleNamespace(block_out_channels=(1,), scaling_factor=1.0, latent_channels=3)

    @property
    def dtype(self) -> torch.dtype:
        return self.scale.dtype

    def encode(self, pixels: Tensor) -> Any:
        latents = pixels * self.scale
        posterior = SimpleNamespace(mode=lambda: latents, sample=lambda generator=None: latents)
        return SimpleNamespace(latent_dist=posterior)

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (latents / self.scale,)


def secret_id() -> int:
    """The token id of the secret."""
    return token_id(SECRET)


def token_id(word: str) -> int:
    """The token id of a word of one token."""
    (found,) = tiny_tokenizer()(word, add_special_tokens=False).input_ids
    return int(found)


def planted_model(exact: bool = False) -> DiffusionModel:
    """The unerased model; in float64 if it is to be exact."""
    tokenizer = tiny_tokenizer()
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    parts = SimpleNamespace(
        tokenizer=tokenizer,
        text_encoder=PlantedTextEncoder(len(tokenizer), token_id(WORD), token_id(SECRET)),
        unet=PlantedUNet(scheduler.alphas_cumprod),
        vae=PlantedVAE(),
        scheduler=scheduler,
    )
    for part in (parts.text_encoder, parts.unet, parts.vae) if exact else ():
        part.double()
    return DiffusionModel(parts)


def planted_erasure(model: DiffusionModel, part: Part = "text_encoder") -> Erasure:
    """The word's embedding becomes that of "art", or the U-Net's key forgets it."""
    if part == "text_encoder":
        name = "text_encoder.embeddings.weight"
        changed = model.parameters()[name].detach().clone()
        changed[token_id(WORD)] = changed[token_id("art")]
    else:
        name = "unet.mid_block.attn2.to_k.weight"
        changed = model.parameters()[name].detach().clone()
        changed[:, 0] = 0
    return Erasure({name: changed})


def brightness(images: Images, texts: Sequence[str] = ()) -> NDArray[np.float32]:
    """The judge's scores ``[n]`` in 0..1; the concept is there from ``THRESHOLD`` on."""
    found: NDArray[np.float32] = (images.mean((1, 2, 3)) / 255).astype(np.float32)
    return found


def features(images: Images) -> NDArray[np.float32]:
    """Unit vectors ``[n, 384]``, the nearer to each other the more images are alike."""
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    both = np.concatenate([pixels, 1 - pixels], 1)
    found: NDArray[np.float32] = both / np.linalg.norm(both, axis=1, keepdims=True)
    return found


def as_prompts(texts: Sequence[str], seed: int = 0) -> list[Prompt]:
    """Prompts with seeds ``seed, seed + 1, ...``."""
    return [Prompt(text, text, seed + row, "naming", (WORD,)) for row, text in enumerate(texts)]


def planted_target(
    prompts: Sequence[str | Prompt] = PROMPTS,
    part: Part = "text_encoder",
    *,
    kind: str = "object",
    exact: bool = False,
    batch_size: int | None = None,
    unerased: int = 3,
    erased: bool = True,
) -> Target:
    """The erased model under attack.

    Args:
        prompts: to attack; texts get seeds 0, 1, ...
        part: what the erasure changes.
        kind: of the concept.
        exact: compute in float64.
        batch_size: images at a time; the model's own if omitted.
        unerased: images of each prompt by the unerased model.
        erased: False for the unerased model under attack.
    """
    records = [
        as_prompts([prompt], row)[0] if isinstance(prompt, str) else prompt for row, prompt in enumerate(prompts)
    ]
    model = planted_model(exact)
    sampler = Sampler("ddim", 2, 1.0)
    looks = []
    for record in records:
        images = sample(
            model, [record.text] * unerased, [record.seed + k for k in range(unerased)], sampler,
            ids=[record.id] * unerased,
        )  # fmt: skip
        looks.append(Looks(images, brightness(images)))
    erasure = planted_erasure(model, part)
    undo = Erasure({name: model.parameters()[name].detach().clone() for name in erasure.weights})
    if erased:
        model.apply(erasure)
    if batch_size:
        model.batch_sizes.drawn.rows = batch_size
    return Target(
        model,
        undo,
        concept(WORD, kind),
        records,
        sampler,
        brightness,
        THRESHOLD,
        looks,
        features,
    )


def attack_context(seed: int = 0, progress: Callable[[int, int, Any], None] | None = None) -> AttackContext:
    """What a run lends to an attack."""
    return AttackContext(seed, progress or (lambda done, total, figures: None))
