"""The training code: resumable, seeded, and mathematically what it claims."""

from __future__ import annotations

import inspect
import itertools
import operator
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTokenizer

from erasebench.cli import main
from erasebench.errors import EraseBenchError
from erasebench.picturebook.judges.clip import Clip
from erasebench.picturebook.judges.detector import Detector
from erasebench.picturebook.judges.q16 import Q16
from erasebench.picturebook.tokenizer import save_tokenizer, train_tokenizer
from erasebench.picturebook.training import unet as unet_stage
from erasebench.picturebook.training import vae as vae_stage
from erasebench.picturebook.training.data import (
    BLOCK,
    Renders,
    _in_blocks,
    cached_renders,
    caption_ids,
    join,
    render_many,
)
from erasebench.picturebook.training.judges import train_judges
from erasebench.picturebook.training.loop import Recipe, fit
from erasebench.picturebook.training.run import _shipped_vae, train
from erasebench.picturebook.training.unet import UnetObjective, scene_odds
from erasebench.picturebook.weights import WEIGHTS, WeightsError, write_manifest
from erasebench.picturebook.world.scene import LABELS, render, sample_scene
from tests.marks import first_quick


@pytest.fixture(scope="module")
def renders() -> Renders:
    return render_many(0, 300, workers=1)


@pytest.fixture(scope="module")
def tokenizer(renders: Renders) -> CLIPTokenizer:
    return train_tokenizer(renders.captions(np.arange(300), epoch=0))


# --- loop -------------------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@dataclass
class Regression:
    """A tiny noisy regression whose batches depend on the step; can be killed, or diverge, at a step."""

    kill_at: int | None = None
    nan_at: int | None = None

    def __post_init__(self) -> None:
        torch.manual_seed(7)
        self.model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if step == self.kill_at:
            raise Killed
        x = torch.from_numpy(np.random.default_rng(step).normal(size=(16, 4))).float()
        error = self.model(x) - x.sum(dim=1, keepdim=True)
        return error.square().mean() * (float("nan") if step == self.nan_at else 1.0), {
            "error": float(error.detach().abs().mean())
        }


RECIPE = Recipe(steps=20, learning_rate=1e-2, warmup=5, ema=0.9)


def state(objective: Regression) -> list[Tensor]:
    return list(objective.model.state_dict().values())


@pytest.mark.parametrize("kill_at", [1, 11, 19])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, kill_at: int) -> None:
    whole = Regression()
    fit(whole, RECIPE, tmp_path / "whole", every=0)
    with pytest.raises(Killed):
        fit(Regression(kill_at=kill_at), RECIPE, tmp_path / "killed", every=0)
    (tmp_path / "killed" / "checkpoint.partial").write_bytes(b"half a checkpoint")
    resumed = Regression()
    fit(resumed, RECIPE, tmp_path / "killed", every=0)
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(resumed), strict=True))
    # The negative control: a run that is not resumed but started anew for the remaining steps differs.
    other = Regression()
    fit(other, Recipe(steps=20 - kill_at, learning_rate=1e-2, warmup=5, ema=0.9), tmp_path / "other", every=0)
    assert not all(torch.equal(a, b) for a, b in zip(state(whole), state(other), strict=True))


def test_without_resume_an_old_checkpoint_is_ignored(tmp_path: Path) -> None:
    first, second = Regression(), Regression()
    fit(first, RECIPE, tmp_path, every=0)
    fit(second, RECIPE, tmp_path, resume=False, every=0)
    assert all(torch.equal(a, b) for a, b in zip(state(first), state(second), strict=True))
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [int(float(row.split(",")[0])) for row in rows[1:]] == [19]
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_a_corrupt_checkpoint_is_named(tmp_path: Path) -> None:
    fit(Regression(), RECIPE, tmp_path, every=0)
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2]):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(
            EraseBenchError, match=r"checkpoint\.pt is corrupt or of another model; start anew with --no-resume"
        ):
            fit(Regression(), RECIPE, tmp_path, every=0)


def test_divergence_is_an_error_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=r"diverged .* step=13"):
        fit(Regression(nan_at=13), RECIPE, tmp_path, every=0)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 13
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_a_fit_ends_after_its_seconds_with_the_average_of_the_steps_made(tmp_path: Path) -> None:
    class Slow(Regression):
        def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
            time.sleep(0.2)
            return super().loss(step)

    cut, short = Slow(), Regression()
    made = fit(cut, RECIPE, tmp_path / "cut", seconds=0.5)
    assert 2 <= made < RECIPE.steps
    assert fit(short, replace(RECIPE, steps=20), tmp_path / "whole") == RECIPE.steps
    assert not all(torch.equal(a, b) for a, b in zip(state(cut), state(short), strict=True))
    assert fit(Slow(), RECIPE, tmp_path / "none", seconds=-1) == 0


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(steps=100, learning_rate=1.0, warmup=10, decay=0.5)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert all(a > b for a, b in itertools.pairwise(rates[51:]))
    assert 0 < rates[-1] < 0.03


# --- data -------------------------------------------------------------------------------------------------------------


def check_same(renders: Renders, other: Renders) -> None:
    """The other renders are the first of some."""
    assert np.array_equal(renders.images[: len(other)], other.images)
    assert np.array_equal(renders.instances[: len(other)], other.instances)


@pytest.mark.slow
def test_renders_do_not_depend_on_the_cache(renders: Renders, tmp_path: Path) -> None:
    for _ in range(2):
        check_same(renders, cached_renders(tmp_path, 0, 40))
    assert not list(tmp_path.glob("*.partial"))
    assert renders.scenes(workers=1) == [sample_scene(index) for index in range(300)]


def test_blocks_come_in_order_from_however_many_workers() -> None:
    """Of numbers, which processes add sooner than they would have loaded what renders."""
    for workers in (1, 2):
        assert _in_blocks(partial(operator.add, 5), 2 * BLOCK + 1, workers) == [5, 5 + BLOCK, 5 + 2 * BLOCK]


@pytest.mark.slow
def test_renders_do_not_depend_on_workers(renders: Renders) -> None:
    two = render_many(0, 300, workers=2)
    check_same(renders, two)
    assert two.scenes(workers=2) == renders.scenes(workers=1)


def test_extra_people_join_the_scenes_before_them(tmp_path: Path) -> None:
    scenes, people = render_many(0, 40, workers=1), cached_renders(tmp_path, 40, 12, people=12)
    both = join(scenes, people)
    assert [s.label for i in range(40, 52) for s in both.scene(i).subjects] == ["person"] * 12
    assert both.scene(7) == scenes.scene(7)
    for i in (39, 40, 51):
        assert np.array_equal(render(both.scene(i)).image, both.images[i])
    # The same seeds without extra people are kept apart in the cache.
    assert [cached_renders(tmp_path, 40, 12).scene(i) for i in range(12)] == [sample_scene(40 + i) for i in range(12)]
    with pytest.raises(ValueError, match="follow on"):
        join(scenes, render_many(41, 12, workers=1, people=12))


# --- tokenizer --------------------------------------------------------------------------------------------------------


def test_tokenizer_follows_clip(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"tokenizer.json", "vocab.json", "merges.txt"}
    size = len(loaded)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (size - 2, size - 1, size - 1)
    ids = loaded("A Photo of a CHURCH!", padding="max_length", truncation=True).input_ids
    assert len(ids) == loaded.model_max_length == 77
    assert ids[0] == size - 2
    assert ids[7:] == [size - 1] * 70
    assert ids == loaded("a photo of a church !", padding="max_length").input_ids
    assert loaded.decode(ids, skip_special_tokens=True) == "a photo of a church !"
    # Byte-level: what training never saw still encodes and decodes.
    assert loaded.decode(loaded("zyx 東京 ß").input_ids, skip_special_tokens=True) == "zyx 東京 ß"


def test_tokenizer_is_reproducible(tokenizer: CLIPTokenizer, renders: Renders) -> None:
    again = train_tokenizer(renders.captions(np.arange(300), epoch=0))
    assert again.get_vocab() == tokenizer.get_vocab()


# --- vae --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solved(renders: Renders) -> tuple[object, np.ndarray]:
    vae = vae_stage.build_vae()
    images = renders.images[:100]
    vae_stage.solve_encoder(vae, images)
    return vae, vae_stage.encode_all(vae, images).float().numpy()


def test_the_encoder_is_a_patch_pca(solved: tuple[object, np.ndarray], renders: Renders) -> None:
    # The reference: a singular value decomposition of all 4x4x3 patches, which the weights never see.
    patches = (
        renders.images[:100].reshape(-1, 16, 4, 16, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48) / 127.5 - 1.0
    )
    centred = patches - patches.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    scores = centred @ axes[:8].T
    latents = solved[1].transpose(0, 2, 3, 1).reshape(-1, 8)
    for k in range(8):
        correlation = np.corrcoef(scores[:, k], latents[:, k])[0, 1]
        # Neighbouring components of nearly equal variance may mix, since the encoder first drops 4 of 12 dimensions.
        assert abs(correlation) > (0.99 if k < 3 else 0.9), (k, correlation)
    design = np.c_[latents, np.ones(len(latents))]
    residual = patches - design @ np.linalg.lstsq(design, patches, rcond=None)[0]
    optimum = (values[8:] ** 2).sum()
    assert optimum <= (residual**2).sum() < 1.15 * optimum


def test_latents_have_unit_variance_and_the_stated_posterior(
    solved: tuple[object, np.ndarray], renders: Renders
) -> None:
    vae: object = solved[0]
    assert solved[1].std() == pytest.approx(1, abs=0.05)
    images = vae_stage.to_unit(renders.images[:4], torch.device("cpu"))
    posterior = vae.encode(images).latent_dist  # type: ignore[attr-defined]
    assert torch.allclose(posterior.std, torch.tensor(vae_stage.POSTERIOR_STD), rtol=1e-4)
    assert not any(p.requires_grad for p in vae.encoder.parameters())  # type: ignore[attr-defined]
    assert all(p.requires_grad for p in vae.decoder.parameters())  # type: ignore[attr-defined]


def test_psnr_against_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, size=(3, 64, 64, 3), dtype=np.uint8) for _ in range(2))
    expected = [
        20 * np.log10(255)
        - 10 * np.log10(np.mean([(float(p) - float(q)) ** 2 for p, q in zip(x.flat, y.flat, strict=True)]))
        for x, y in zip(a, b, strict=True)
    ]
    assert vae_stage.psnr(a, b) == pytest.approx(expected)
    assert vae_stage.psnr(a, a).min() > 100


# --- unet -------------------------------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def ids(tokenizer: CLIPTokenizer, renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder)
    return torch.from_numpy(caption_ids(renders, folder, 3, workers=1))


def objective(oracle: Oracle, ids: Tensor, renders: Renders, steps: int = 10, **options: Any) -> UnetObjective:
    latents = torch.full((len(renders), 8, 16, 16), oracle.constant)
    recipe, odds = Recipe(steps=steps, learning_rate=1e-3), scene_odds(renders.scenes(workers=1))
    return UnetObjective(oracle, latents, ids, odds, 3, recipe, **options)  # type: ignore[arg-type]


def test_the_target_is_the_noise(ids: Tensor, renders: Renders) -> None:
    loss, _ = objective(Oracle(0.7, right=True), ids, renders).loss(0)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_min_snr_weights(ids: Tensor, renders: Renders) -> None:
    oracle = Oracle(0.0, right=False)
    loss, _ = objective(oracle, ids, renders).loss(4)
    noisy, timesteps, _ = oracle.seen[0]
    total = weights = 0.0
    for row, t in zip(oracle.noise(noisy, timesteps), timesteps.tolist(), strict=True):
        a = float(oracle.signal[t])
        snr = a / (1 - a)
        weight = min(snr, 5.0) / snr
        total, weights = total + weight * float((row**2).mean()), weights + weight
    assert float(loss) == pytest.approx(total / weights, rel=1e-5)


def test_noise_levels_are_stratified(ids: Tensor, renders: Renders) -> None:
    trained = objective(Oracle(0.0, right=False), ids, renders)
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


def test_photos_are_oversampled(ids: Tensor, renders: Renders) -> None:
    trained = objective(Oracle(0.0, right=False), ids, renders)
    plain = np.array([renders.scene(i).style == "photo" for i in range(len(renders))])
    assert trained.odds.sum() == pytest.approx(1)
    assert trained.odds[plain].sum() == pytest.approx(unet_stage.PLAIN_SHARE)
    kinds = np.array([renders.scene(i).kind for i in range(len(renders))])
    weights = unet_stage.KIND_WEIGHTS
    for kind, weight in weights.items():
        for other in ("object", "nudity"):
            odds = trained.odds.numpy()
            assert odds[plain & (kinds == kind)] / odds[plain & (kinds == other)][0] == pytest.approx(weight)


def test_shares_of_a_batch_add_up_to_its_loss(ids: Tensor, renders: Renders, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = objective(Oracle(0.0, right=False), ids, renders)
    whole, _ = trained.loss(4)
    monkeypatch.setattr(unet_stage, "processes", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(unet_stage, "rank", lambda number=number: number)
        shares.append(float(trained.loss(4)[0]))
    assert sum(shares) == pytest.approx(float(whole), rel=1e-6)
    assert len(set(shares)) == 3


def test_batches_depend_on_the_step_alone(ids: Tensor, renders: Renders) -> None:
    one, two = Oracle(0.0, right=False), Oracle(0.0, right=False)
    forward, backward = objective(one, ids, renders), objective(two, ids, renders)
    for step in (2, 9):
        forward.loss(step)
    for step in (9, 2):
        backward.loss(step)
    for a, b in zip(one.seen, reversed(two.seen), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(one.seen[0][0], one.seen[1][0])
    # Short sequences first, all 77 positions in the last steps.
    assert [ids.shape[1] for _, _, ids in one.seen] == [32, 77]


def test_a_tenth_of_the_captions_is_empty(ids: Tensor, renders: Renders, tokenizer: CLIPTokenizer) -> None:
    oracle = Oracle(0.0, right=False)
    trained = objective(oracle, ids, renders, steps=100)
    for step in range(20):
        trained.loss(step)
    ids = torch.cat([ids for _, _, ids in oracle.seen])
    empty = (ids[:, 1] == tokenizer.eos_token_id).float().mean()
    assert 0.07 < float(empty) < 0.13


def test_a_batch_has_the_captions_of_its_scenes(ids: Tensor, renders: Renders) -> None:
    trained = objective(Oracle(0.0, right=False), ids, renders, steps=1)
    rows = torch.arange(300)
    wordings = [[renders.captions(np.array([row]), epoch)[0] for epoch in range(3)] for row in range(300)]
    drawn = trained.token_ids(rows, 1, torch.Generator().manual_seed(0))
    found = torch.stack([(drawn == ids[:-1, k]).all(dim=1) for k in range(3)])
    empty = (drawn == ids[-1, 0]).all(dim=1)
    assert (found.any(dim=0) | empty).all()
    # All wordings are drawn, each about as often.
    different = torch.tensor([len(set(texts)) == 3 for texts in wordings]) & ~empty
    assert (found[:, different].float().mean(dim=1) > 0.2).all()


@pytest.mark.slow
def test_token_ids_of_captions_do_not_depend_on_workers(
    tokenizer: CLIPTokenizer, renders: Renders, ids: Tensor, tmp_path: Path
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    assert np.array_equal(caption_ids(renders, tmp_path, 3, workers=2), ids)


def test_token_ids_are_those_of_the_captions(tokenizer: CLIPTokenizer, renders: Renders, ids: Tensor) -> None:
    """They are made in two blocks."""
    texts = [renders.captions(np.arange(300), epoch) for epoch in range(3)]
    for epoch, captions in enumerate(texts):
        expected = tokenizer(captions, padding="max_length", truncation=True, return_tensors="np").input_ids
        assert np.array_equal(ids[:-1, epoch], expected)
    assert (ids[-1] == torch.tensor(tokenizer("", padding="max_length").input_ids)).all()


@pytest.mark.parametrize("concept", ["church", "van-gogh", "paul-marsh"])
def test_a_concept_can_be_left_out(renders: Renders, concept: str) -> None:
    scenes = renders.scenes(workers=1)
    odds, without = scene_odds(scenes), scene_odds(scenes, without=concept)
    shows = np.array([scene.style == concept or concept in [s.label for s in scene.subjects] for scene in scenes])
    assert 0 < shows.sum() < 100
    assert (without.numpy() == 0).tolist() == shows.tolist()
    assert (odds > 0).all()
    assert without.sum() == pytest.approx(1)


def test_a_student_is_drawn_to_its_teacher(ids: Tensor, renders: Renders) -> None:
    """Both halves of the loss are hand-made: the student predicts nothing, the teacher 2, the noise is known."""
    student, teacher = Oracle(0.0, right=False), Oracle(0.0, right=False)
    teacher.forward = lambda noisy, timesteps, ids: torch.full_like(noisy, 2.0)  # type: ignore[method-assign]
    alone, _ = objective(student, ids, renders).loss(4)
    together, figures = objective(student, ids, renders, teacher=teacher).loss(4)
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


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "vea"}, "unknown stage 'vea'; stages: vae, unet, judges, all"),
        ({"steps": 5}, "--steps needs --stage vae or --stage unet"),
        ({"stage": "vae", "processes": 2}, "--processes is for the U-Net"),
        ({"start": "anew"}, "unknown start 'anew'; scratch or shipped"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        train(folder=tmp_path / "work", out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "work").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_missing_gpu_is_named(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="no CUDA device"):
        train(device="cuda", folder=tmp_path)


def test_the_unet_stage_asks_for_the_vae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 8)
    with pytest.raises(EraseBenchError, match="train --stage vae"):
        train(stage="unet", folder=tmp_path / "work", out=tmp_path / "out")
    assert not (tmp_path / "work").exists()


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest and the names of shipped weights, for checks that come before any rendering."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("rendered before the check")

    monkeypatch.setattr("erasebench.picturebook.training.run.cached_renders", refuse)
    out = tmp_path / "out"
    for name in ("model_index.json", "unet/model.safetensors", "vae/config.json", "vae/model.safetensors"):
        path = out / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    for name in ("detector", "clip", "q16"):
        (out / f"{name}.safetensors").write_bytes(name.encode())
    write_manifest(out)
    return out


@pytest.mark.parametrize(
    ("stage", "start", "name"),
    [
        ("vae", "shipped", "pipeline/vae/model.safetensors"),
        ("unet", "scratch", "pipeline/vae/model.safetensors"),
        ("unet", "shipped", "pipeline/unet/model.safetensors"),
        ("judges", "scratch", "pipeline/model_index.json"),
        ("judges", "shipped", "clip.safetensors"),
        ("all", "shipped", "pipeline/unet/model.safetensors"),
        ("all", "shipped", "detector.safetensors"),
    ],
)
def test_weights_that_a_stage_needs_are_verified_before_any_work(
    shipped: Path, tmp_path: Path, stage: str, start: str, name: str
) -> None:
    work = tmp_path / "work"
    with pytest.raises(AssertionError, match="rendered before the check"):
        train(stage, folder=work, out=shipped, start=start)
    work.rmdir()
    content = (shipped / name).read_bytes()
    (shipped / name).write_bytes(content + b"!")
    with pytest.raises(WeightsError, match=f"{name} is corrupt"):
        train(stage, folder=work, out=shipped, start=start)
    (shipped / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        train(stage, folder=work, out=shipped, start=start)
    assert not work.exists()


def test_a_corrupt_vae_is_not_loaded(shipped: Path) -> None:
    (shipped / "pipeline/vae/model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"vae/model\.safetensors is corrupt"):
        _shipped_vae(shipped)


@pytest.mark.parametrize("option", ["--out", "--folder"])
def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    shipped: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    folders = {"--out": shipped, "--folder": tmp_path / "work", option: tmp_path / "file" / "new"}
    with pytest.raises(SystemExit) as stop:
        main(["picturebook", "train", *(str(word) for pair in folders.items() for word in pair)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: the output folder {tmp_path / 'file' / 'new'} cannot be written")


@pytest.mark.parametrize(("arguments", "folder"), [([], WEIGHTS), (["--out", "elsewhere"], Path("elsewhere"))])
def test_the_command_trains_into_the_folder_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], folder: Path
) -> None:
    seen: list[inspect.BoundArguments] = []
    signature = inspect.signature(train)
    monkeypatch.setattr(
        "erasebench.picturebook.training.run.train", lambda *args, **named: seen.append(signature.bind(*args, **named))
    )
    with pytest.raises(SystemExit) as stop:
        main(["picturebook", "train", *arguments])
    assert stop.value.code == 0
    assert [call.arguments["out"] for call in seen] == [folder]


def test_the_help_says_where_the_weights_go(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["picturebook", "train", "--help"])
    assert "the package's own weights folder" in " ".join(capsys.readouterr().out.split())


def test_shipped_weights_are_not_passed_over_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 8)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(EraseBenchError, match=r"checkpoint\.pt would be resumed, not the shipped weights"):
        train(stage="unet", folder=tmp_path, out=tmp_path / "out", start="shipped")


def test_the_judges_stage_asks_for_the_tokenizer(tmp_path: Path, renders: Renders) -> None:
    with pytest.raises(EraseBenchError, match=r"tokenizer\.json is missing"):
        train_judges(renders, None, tmp_path, torch.device("cpu"), tmp_path / "out", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True], ids=["anew", "further"])
def test_the_judges_stage_ships_judges_that_load(
    twice: bool, tmp_path: Path, renders: Renders, tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = "erasebench.picturebook.training.judges."
    for name in ("DETECTOR_RECIPE", "CLIP_RECIPE"):
        monkeypatch.setattr(stage + name, Recipe(steps=2, learning_rate=1e-3))
    for name, small in {"DETECTOR_BATCH": 4, "CLIP_BATCH": 16, "Q16_IMAGES": 32, "Q16_STEPS": 20}.items():
        monkeypatch.setattr(stage + name, small)
    save_tokenizer(tokenizer, tmp_path / "pipeline" / "tokenizer")
    for further in (False, True)[: 1 + twice]:
        work = tmp_path / f"work-{further}"
        train_judges(renders, renders.images[:100], work, torch.device("cpu"), tmp_path, seed=0, further=further)
    clip = Clip.load(tmp_path / "clip.safetensors", tokenizer)
    scores = Detector.load(tmp_path / "detector.safetensors").scores(renders.images[:3])
    assert scores.shape == (3, len(LABELS))
    assert np.isfinite(scores).all()
    assert ((q16 := Q16.load(tmp_path / "q16.safetensors", clip).scores(renders.images[:3])) >= 0).all()
    assert (q16 <= 1).all()


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 80)
    train(stage="vae", device="cpu", folder=tmp_path / "work", out=tmp_path / "out", steps=1)
    trained = []
    for processes in (1, 2):
        train(
            stage="unet", device="cpu", folder=tmp_path / "work", out=tmp_path / "out", steps=3, processes=processes,
            resume=False,
        )  # fmt: skip
        state = torch.load(tmp_path / "work" / "unet" / "checkpoint.pt", weights_only=True)
        trained.append(torch.cat([v.flatten().float() for v in state["model"].values()]))
    # A weight moves by at most the sum of the rates; half-precision rounding may differ by a few per cent of it.
    moved = sum(unet_stage.RECIPE.rate(step) for step in range(3))
    assert (trained[0] - trained[1]).abs().mean() < 0.03 * moved


@pytest.mark.parametrize("further", first_quick([False, True]), ids=["anew", "further"])
def test_every_stage_runs_and_ships_a_loadable_pipeline(
    further: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    from erasebench.picturebook.weights import pipeline_path

    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 40)
    monkeypatch.setattr(unet_stage, "BATCH", 8)
    work, out = tmp_path / "work", tmp_path / "out"
    for stage in ("vae", "unet"):
        train(stage=stage, device="cpu", folder=work, out=out, steps=1)
        if further:
            train(stage=stage, device="cpu", folder=work, out=out, steps=2, start="shipped", resume=False)
    assert not [path for path in out.rglob("*.json") if str(tmp_path) in path.read_text(encoding="utf-8")]
    # As a user of diffusers loads it, with no word about precision.
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_path(out))
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of a church", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    names = {name for name, _ in pipeline.unet.named_modules()}
    blocks = "down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.1"
    for block in blocks:
        for attention in ("attn1", "attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                assert f"{block}.transformer_blocks.0.{attention}.{projection}" in names
