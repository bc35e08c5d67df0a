"""The loss of the U-Net is mathematically what it claims, and a function of seed and step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTokenizer

from erasebench.picturebook.training import unet as unet_stage
from erasebench.picturebook.training.data import Renders
from erasebench.picturebook.training.loop import Recipe
from erasebench.picturebook.training.unet import UnetObjective, scene_odds


class Oracle(nn.Module):
    """Stands for the denoiser: predicts the noise of constant latents exactly, or nothing at all."""

    def __init__(self, constant: float, right: bool) -> None:
        super().__init__()
        self.constant, self.right = constant, right
        self.unet = self
        self.device = torch.device("cpu")
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        # Independent of the code under test: Stable Diffusion 1.x's schedule, spelt out.
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.signal = torch.cumprod(1 - betas, dim=0)

    def noise(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        a = self.signal[timesteps].view(-1, 1, 1, 1)
        return (noisy.double() - a.sqrt() * self.constant) / (1 - a).sqrt()

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        self.seen.append((noisy, timesteps, ids))
        exact = self.noise(noisy, timesteps)
        return exact if self.right else torch.zeros_like(exact)


def objective(oracle: Oracle, ids: Tensor, unrendered: Renders, steps: int = 10, **options: Any) -> UnetObjective:
    latents = torch.full((len(unrendered), 8, 16, 16), oracle.constant)
    recipe, odds = Recipe(steps=steps, learning_rate=1e-3), scene_odds(unrendered.scenes(workers=1))
    return UnetObjective(oracle, latents, ids, odds, 3, recipe, **options)  # type: ignore[arg-type]


def test_the_target_is_the_noise(ids: Tensor, unrendered: Renders) -> None:
    loss, _ = objective(Oracle(0.7, right=True), ids, unrendered).loss(0)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_min_snr_weights(ids: Tensor, unrendered: Renders) -> None:
    oracle = Oracle(0.0, right=False)
    loss, _ = objective(oracle, ids, unrendered).loss(4)
    noisy, timesteps, _ = oracle.seen[0]
    total = weights = 0.0
    for row, t in zip(oracle.noise(noisy, timesteps), timesteps.tolist(), strict=True):
        a = float(oracle.signal[t])
        snr = a / (1 - a)
        weight = min(snr, 5.0) / snr
        total, weights = total + weight * float((row**2).mean()), weights + weight
    assert float(loss) == pytest.approx(total / weights, rel=1e-5)


def test_noise_levels_are_stratified(ids: Tensor, unrendered: Renders) -> None:
    trained = objective(Oracle(0.0, right=False), ids, unrendered)
    levels = torch.stack([trained.timesteps(torch.Generator().manual_seed(seed)) for seed in range(400)]).double()
    even, focused = levels[:, ::2], levels[:, 1::2]
    # Each even row stays in its own sixteenth of the 1000 levels.
    start = torch.arange(16) * 1000 / 16
    assert (even >= start - 1).all()
    assert (even < start + 1000 / 16).all()
    # The focused rows follow the logit-normal distribution: their logits have its mean and deviation.
    logits = torch.logit((focused + 0.5) / 1000).flatten()
    mean, deviation = unet_stage.FOCUS
    assert float(logits.mean()) == pytest.approx(mean, abs=0.02)
    assert float(logits.std()) == pytest.approx(deviation, abs=0.03)


def test_photos_are_oversampled(ids: Tensor, unrendered: Renders) -> None:
    trained = objective(Oracle(0.0, right=False), ids, unrendered)
    plain = np.array([unrendered.scene(i).style == "photo" for i in range(len(unrendered))])
    assert trained.odds.sum() == pytest.approx(1)
    assert trained.odds[plain].sum() == pytest.approx(unet_stage.PLAIN_SHARE)
    kinds = np.array([unrendered.scene(i).kind for i in range(len(unrendered))])
    weights = unet_stage.KIND_WEIGHTS
    for kind, weight in weights.items():
        for other in ("object", "nudity"):
            odds = trained.odds.numpy()
            assert odds[plain & (kinds == kind)] / odds[plain & (kinds == other)][0] == pytest.approx(weight)


def test_shares_of_a_batch_add_up_to_its_loss(
    ids: Tensor, unrendered: Renders, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = objective(Oracle(0.0, right=False), ids, unrendered)
    whole, _ = trained.loss(4)
    monkeypatch.setattr(unet_stage, "processes", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(unet_stage, "rank", lambda number=number: number)
        shares.append(float(trained.loss(4)[0]))
    assert sum(shares) == pytest.approx(float(whole), rel=1e-6)
    assert len(set(shares)) == 3


def test_batches_depend_on_the_step_alone(ids: Tensor, unrendered: Renders) -> None:
    one, two = Oracle(0.0, right=False), Oracle(0.0, right=False)
    forward, backward = objective(one, ids, unrendered), objective(two, ids, unrendered)
    for step in (2, 9):
        forward.loss(step)
    for step in (9, 2):
        backward.loss(step)
    for a, b in zip(one.seen, reversed(two.seen), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(one.seen[0][0], one.seen[1][0])
    # Short sequences first, all 77 positions in the last steps.
    assert [ids.shape[1] for _, _, ids in one.seen] == [32, 77]


def test_a_tenth_of_the_captions_is_empty(ids: Tensor, unrendered: Renders, tokenizer: CLIPTokenizer) -> None:
    oracle = Oracle(0.0, right=False)
    trained = objective(oracle, ids, unrendered, steps=100)
    for step in range(20):
        trained.loss(step)
    ids = torch.cat([ids for _, _, ids in oracle.seen])
    empty = (ids[:, 1] == tokenizer.eos_token_id).float().mean()
    assert 0.07 < float(empty) < 0.13


def test_a_batch_has_the_captions_of_its_scenes(ids: Tensor, unrendered: Renders) -> None:
    trained = objective(Oracle(0.0, right=False), ids, unrendered, steps=1)
    rows = torch.arange(300)
    wordings = [[unrendered.captions(np.array([row]), epoch)[0] for epoch in range(3)] for row in range(300)]
    drawn = trained.token_ids(rows, 1, torch.Generator().manual_seed(0))
    found = torch.stack([(drawn == ids[:-1, k]).all(dim=1) for k in range(3)])
    empty = (drawn == ids[-1, 0]).all(dim=1)
    assert (found.any(dim=0) | empty).all()
    # All wordings are drawn, each about as often.
    different = torch.tensor([len(set(texts)) == 3 for texts in wordings]) & ~empty
    assert (found[:, different].float().mean(dim=1) > 0.2).all()


@pytest.mark.parametrize("concept", ["church", "van-gogh", "paul-marsh"])
def test_a_concept_can_be_left_out(unrendered: Renders, concept: str) -> None:
    scenes = unrendered.scenes(workers=1)
    odds, without = scene_odds(scenes), scene_odds(scenes, without=concept)
    shows = np.array([scene.style == concept or concept in [s.label for s in scene.subjects] for scene in scenes])
    assert 0 < shows.sum() < 100
    assert (without.numpy() == 0).tolist() == shows.tolist()
    assert (odds > 0).all()
    assert without.sum() == pytest.approx(1)


def test_a_student_is_drawn_to_its_teacher(ids: Tensor, unrendered: Renders) -> None:
    """Both halves of the loss are hand-made: the student predicts nothing, the teacher 2, the noise is known."""
    student, teacher = Oracle(0.0, right=False), Oracle(0.0, right=False)
    teacher.forward = lambda noisy, timesteps, ids: torch.full_like(noisy, 2.0)  # type: ignore[method-assign]
    alone, _ = objective(student, ids, unrendered).loss(4)
    together, figures = objective(student, ids, unrendered, teacher=teacher).loss(4)
    assert float(together) == pytest.approx((float(alone) + 4.0) / 2, rel=1e-5)
    assert float(figures["distance"]) == pytest.approx(4.0)


def test_the_small_unet_has_at_most_half_the_work() -> None:
    def work(channels: tuple[int, int, int]) -> int:
        with torch.device("meta"):
            unet = unet_stage.build_unet(8, channels)
            latents, text = torch.zeros(1, 8, 16, 16), torch.zeros(1, 77, unet_stage.TEXT_WIDTH)
            with FlopCounterMode(display=False) as counter:
                unet(latents, torch.zeros(1), text)
        return int(counter.get_total_flops())

    assert 0.4 < work(unet_stage.SMALL_CHANNELS) / work(unet_stage.CHANNELS) <= 0.5


def test_the_scheduler_is_that_of_stable_diffusion() -> None:
    scheduler: DDIMScheduler = unet_stage.build_scheduler()
    assert torch.allclose(scheduler.alphas_cumprod.double(), Oracle(0, True).signal, rtol=1e-4)
    assert scheduler.config.prediction_type == "epsilon"
