"""A family without a U-Net and without a diffusion schedule, in one class: what a model has to answer is enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn

from erasebench.attacks.unlearndiff import UnlearnDiffAtk
from erasebench.errors import EraseBenchError
from erasebench.memory import BatchSizes
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel, full_precision
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.plugins import AttackContext
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, draw_latents, sample, sample_latents, starting_noise
from erasebench.training.hard_prompts import compare
from erasebench.training.target import Looks, Target
from erasebench.training.token_ids import open_prompt
from tests.attacks.planted import as_prompts
from tests.tiny import concept, erase_context, tiny_pipeline

WIDTH, T = 16, 1000
PROMPTS, SEEDS = ["a church", "art"], [3, 1]


class Euler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]  # diffusers has no types
    """With what the schedulers of diffusion models also have."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        return sample


class FlowMatching(DiffusionModel):
    """Rectified flow (Liu et al., ICLR 2023) by a transformer of Stable Diffusion 3's kind: it predicts ``e - x_0``."""

    def __init__(self, parts: Any, transformer: nn.Module) -> None:
        self.domain, self.device, self.dtype = "photo", torch.device("cpu"), torch.float32
        self.tokenizer, self.guidance, self.batch_sizes = parts.tokenizer, ClassifierFreeGuidance(), BatchSizes()
        self.text_encoder = parts.text_encoder.eval().requires_grad_(False)
        self.vae = parts.vae.eval().requires_grad_(False)
        self.transformer: Any = transformer.eval().requires_grad_(False)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.transformer.config.sample_size
        return self.transformer.config.in_channels, size, size

    @property
    def size_multiple(self) -> int:
        return self.scale_factor * int(self.transformer.config.patch_size)

    @property
    def timestep_count(self) -> int:
        return T

    @contextmanager
    def sampling(self) -> Iterator[bool]:
        yield False

    def scheduler(self, sampler: str) -> Any:
        if sampler != "euler":
            raise EraseBenchError(f"a model of flow matching is sampled by euler, not by {sampler}")
        return Euler()

    def encode(self, ids: Tensor) -> Conditioning:
        found = self.text_encoder(ids)
        return Conditioning(full_precision(found.last_hidden_state), full_precision(found.pooler_output))

    def noise_level(self, timesteps: Tensor) -> Tensor:
        return (timesteps / T).view(-1, 1, 1, 1)

    def signal(self, timesteps: Tensor) -> Tensor:
        clean, noise = (1 - self.noise_level(timesteps)) ** 2, self.noise_level(timesteps) ** 2
        return clean / (clean + noise)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return latents.lerp(noise, self.noise_level(timesteps).to(latents))

    def predict(self, latents: Tensor, timesteps: Tensor | int | float, conditioning: Conditioning) -> Tensor:
        times = torch.as_tensor(timesteps, dtype=latents.dtype).expand(len(latents))
        predicted: Tensor = self.transformer(
            latents, conditioning.embeddings, conditioning.pooled, times, return_dict=False
        )[0]
        return full_precision(predicted)

    def as_noise(self, predicted: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        return latents + (1 - self.noise_level(timesteps)) * predicted

    def parameters(self) -> dict[str, nn.Parameter]:
        parts: dict[str, nn.Module] = {"transformer": self.transformer, "text_encoder": self.text_encoder}
        return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}


def tiny_flow(dtype: torch.dtype = torch.float32) -> FlowMatching:
    """Random weights."""
    parts = tiny_pipeline()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=WIDTH,
            pos_embed_max_size=8,
        )
    for network in (parts.text_encoder, parts.vae, transformer):
        network.to(dtype)
    return FlowMatching(parts, transformer)


@pytest.fixture(scope="module")
def model() -> FlowMatching:
    return tiny_flow()


def test_the_noise_is_found_in_what_a_perfect_model_predicts(model: FlowMatching) -> None:
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(3, 4, 8, 8, generator=rng), torch.randn(3, 4, 8, 8, generator=rng)
    t = torch.tensor([0, 400, 999])
    x = model.add_noise(clean, noise, t)
    torch.testing.assert_close(x[0], clean[0])
    torch.testing.assert_close(x[1], 0.6 * clean[1] + 0.4 * noise[1])
    torch.testing.assert_close(model.as_noise(noise - clean, x, t), noise)
    torch.testing.assert_close(model.signal(t)[1].item(), 0.36 / (0.36 + 0.16))


@pytest.mark.parametrize("negative", ["", "dog"])
@torch.no_grad()
def test_sampling_solves_the_flow(model: FlowMatching, negative: str) -> None:
    """By Euler's steps from noise, at t = 1, to a picture, at 0."""
    steps, scale = 4, 3.0
    noise = starting_noise(PROMPTS, SEEDS, model.latent_shape)
    text, other = model.embed(PROMPTS), model.embed([negative] * 2)
    wanted, times = noise, [*Euler().sigmas[torch.linspace(0, T - 1, steps).long()].tolist(), 0.0]
    for now, then in pairwise(times):
        u, p = (model.predict(wanted, now * T, condition) for condition in (other, text))
        wanted = wanted + (then - now) * (u + scale * (p - u))
    with model.erased(Erasure(guidance=ClassifierFreeGuidance(negative))):
        found = sample_latents(model, noise, text, Sampler("euler", steps, scale))
        pictures = sample(model, PROMPTS, SEEDS, Sampler("euler", steps, scale))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (found - noise).abs().max() > 0.1
    assert pictures.shape == (2, 16, 16, 3)


def test_samplers_of_diffusion_models_are_refused(model: FlowMatching) -> None:
    with pytest.raises(EraseBenchError, match="is sampled by euler, not by ddim"):
        sample(model, PROMPTS, SEEDS, Sampler("ddim", 2))
    with pytest.raises(EraseBenchError, match="size must be a multiple of 4 for this model, not 18"):
        sample(model, PROMPTS, SEEDS, Sampler("euler", 2, size=18))


@pytest.mark.parametrize("name", ["negative-prompt", "sld-max"])
def test_rules_of_guidance_work_unchanged(model: FlowMatching, name: str) -> None:
    plugin = METHODS.get(name)
    method = plugin.make(**plugin.presets)
    church, sampler = [concept("church")], Sampler("euler", 3, 4.0)
    (plain,) = draw_latents(model, PROMPTS, SEEDS, sampler)
    with model.erased(method.resolved(church).erase(model, church, erase_context())):
        (changed,) = draw_latents(model, PROMPTS, SEEDS, sampler)
    assert (changed - plain).abs().max() > 1e-3
    (restored,) = draw_latents(model, PROMPTS, SEEDS, sampler)
    assert torch.equal(plain, restored)


def test_an_attack_takes_its_gradients_through_a_flow() -> None:
    """Against finite differences: through the text encoder's tokens and its pooled embedding."""
    model = tiny_flow(torch.float64)
    undo, rng = Erasure(guidance=ClassifierFreeGuidance()), torch.Generator().manual_seed(0)
    judge: Any = None
    target = Target(model, undo, concept("church"), as_prompts(["a dog"]), Sampler("euler", 2), judge, 0.5)
    prompt = open_prompt(model, "a dog", range(2))
    assert prompt is not None
    x, wanted = (torch.randn(1, 4, 8, 8, generator=rng, dtype=torch.float64) for _ in range(2))
    t, tokens = torch.tensor([500]), torch.tensor([5, 70])
    _, (gradient,) = compare(target, [prompt], [tokens], x, t, wanted)

    def loss(vectors: Tensor) -> Tensor:
        text = model.embed_vectors(prompt.filled(tokens)[None], vectors, prompt.slots)
        with torch.no_grad():
            return (target.predict(x, t, text) - wanted).square().mean()

    vectors = model.token_embeddings[tokens].detach()
    direction = torch.randn(vectors.shape, generator=rng, dtype=torch.float64)
    slope = (loss(vectors + 1e-5 * direction) - loss(vectors - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-10)
    assert gradient.norm() > 1e-6


def test_unlearndiff_runs_on_a_flow(model: FlowMatching) -> None:
    prompts, sampler = as_prompts(["a dog"]), Sampler("euler", 2)

    def judge(images: Any, texts: Any) -> Any:
        return images.mean((1, 2, 3)) / 1000  # below any threshold

    images = sample(model, ["a dog"], [0], sampler)
    looks = [Looks(images, judge(images, ["a dog"]))]
    undo = Erasure(guidance=ClassifierFreeGuidance())
    target = Target(model, undo, concept("church"), prompts, sampler, judge, 0.5, looks)
    attack = UnlearnDiffAtk(tokens=2, timesteps=2, steps=2)
    (found,) = attack.attack(target, AttackContext(0, lambda done, of, figures: None))
    assert found.steps == 4 and found.gradient is not None and found.gradient > 0
    assert found.prompt.text.endswith("a dog") and found.prompt.text != "a dog"
