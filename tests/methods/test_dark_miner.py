from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import make_plugin
from erasebench.judging import Images, Scores
from erasebench.methods import dark_miner
from erasebench.methods.dark_miner import POOLS, STATE, DarkMiner
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import EraseContext, Judge
from erasebench.registry import METHODS
from erasebench.training.adapters import Adapters, Location, adapted_layers
from erasebench.training.latents import noisy
from erasebench.training.mining import Mined
from erasebench.training.trace import Trace
from tests.marks import first_quick, some_quick
from tests.tiny import Layout, concept, differing, state, tiny_model

LAYOUTS: tuple[Layout, ...] = ("sd1", "sd2")
"""Those that it applies to."""
CHURCH, DOG = concept("church", anchor="art"), concept("dog", anchor="art")


def arguments_of(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Any, ...]]:
    """What a method of :class:`DarkMiner` is called with, from now on."""
    calls: list[tuple[Any, ...]] = []
    original = getattr(DarkMiner, name)

    def recorded(self: DarkMiner, *arguments: Any) -> Any:
        calls.append(arguments)
        return original(self, *arguments)

    monkeypatch.setattr(DarkMiner, name, recorded)
    return calls


class Pixels(Judge):
    """A judge whose features are a fixed projection of the pixels."""

    def identity(self) -> dict[str, str]:
        return {"version": "1"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        assert len(images) == len(prompts)
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        features = flat @ np.random.default_rng(0).standard_normal((flat.shape[1], 6), dtype=np.float32)
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        clip = np.array([100 * f @ self.text(prompt) for f, prompt in zip(features, prompts, strict=True)], np.float32)
        return Scores({"clip": clip}, {"features": features.astype(np.float32)})

    def text(self, prompt: str) -> NDArray[np.float32]:
        return np.random.default_rng(len(prompt)).standard_normal(6, dtype=np.float32)


def context(folder: Path, seed: int = 0, progress: Any = lambda *_: None) -> EraseContext:
    def judge(name: str) -> Judge:
        assert name == "clip"
        return Pixels()

    return EraseContext(seed, folder, progress, judge)


def quick(**options: Any) -> DarkMiner:
    """A few steps, and loops that do not end by themselves."""
    few = {"rank": 2, "pool_size": 4, "embedding_length": 5, "mining_steps": 1, "steps": 1, "batch_size": 2}
    return DarkMiner(**{**few, "sampling_steps": 1, "bank": 2, "tau": -1.0, "max_loops": 2, **options})


@contextmanager
def trained_adapters(model: DiffusionModel, method: DarkMiner) -> Iterator[Adapters]:
    """Adapters that change what the model predicts."""
    rng = torch.Generator().manual_seed(2)
    with Adapters(model.unet, adapted_layers(model.unet, method.location), method.rank, seed=1) as adapters:
        halves = adapters.factors().items()
        adapters.load({name: (torch.randn(up.shape, generator=rng), down) for name, (up, down) in halves})
        yield adapters


def erasure_of(adapters: Adapters) -> Erasure:
    return Erasure(low_rank={f"unet.{name}.weight": pair for name, pair in adapters.factors().items()})


def batch(model: DiffusionModel, length: int = 5, n: int = 2) -> tuple[Tensor, Tensor, Conditioning, Conditioning]:
    """``x_t``, ``t``, a mined embedding and the anchor's for each."""
    rng = torch.Generator().manual_seed(3)
    c_0 = model.embed(["art"]).expand(n)
    x_t, c = torch.randn(n, 4, 8, 8, generator=rng), torch.randn(n, length, c_0.embeddings.shape[2], generator=rng)
    return x_t, torch.tensor([10, 900][:n]), Conditioning(c), c_0


# Eq. 7 and 8


EVERY = (True, True, True)


@pytest.mark.parametrize(
    ("layout", "reduction", "switches"),
    some_quick(
        [("sd1", "sum", EVERY), ("sd2", "mean", EVERY), *(("sd1", "sum", (k == 0, k == 1, k == 2)) for k in range(4))],
        [
            *itertools.product(LAYOUTS, ["sum", "mean"], [EVERY]),
            *(("sd1", "sum", switches) for switches in itertools.product([True, False], repeat=3)),
        ],
    ),
)
def test_losses_are_those_written_out_with_merged_weights(
    layout: Layout, reduction: Any, switches: tuple[bool, bool, bool]
) -> None:
    model = tiny_model(layout)
    x_t, t, c, c_0 = batch(model)
    names = ("preserve_anchor", "preserve_zero", "preserve_negative")
    method = quick(reduction=reduction, **dict(zip(names, switches, strict=True)))
    with trained_adapters(model, method) as adapters:
        loss_c, loss_p = method.losses(model, adapters, x_t, t, c, c_0)
        erasure = erasure_of(adapters)

    def predicted(row: int, text: Tensor) -> Tensor:
        with torch.no_grad():
            return model.predict_noise(x_t[row : row + 1], t[row : row + 1], Conditioning(text[None])).double()

    def squared_norm(difference: Tensor) -> float:
        numbers = [float(number) ** 2 for number in difference.flatten()]
        return sum(numbers) / (len(numbers) if reduction == "mean" else 1)

    expected_c, expected_p = 0.0, 0.0
    for row in range(2):
        mined, anchor = c.embeddings[row], c_0.embeddings[row]
        kept = [text for text, on in zip((anchor, 0 * mined, -1 * mined), switches, strict=True) if on]
        frozen = [predicted(row, text) for text in (anchor, *kept)]
        with model.erased(erasure):
            trained = [predicted(row, text) for text in (mined, *kept)]
        expected_c += squared_norm(trained[0] - frozen[0]) / 2
        expected_p += sum(squared_norm(a - b) for a, b in zip(trained[1:], frozen[1:], strict=True)) / 2
    assert loss_c.item() == pytest.approx(expected_c, rel=1e-4)
    assert loss_p.item() == pytest.approx(expected_p, rel=1e-4)
    assert (loss_p.item() > 1e-4) == any(switches)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_at_first_only_the_circumventing_loss_has_a_gradient(layout: Layout) -> None:
    model, method = tiny_model(layout), quick()
    with Adapters(model.unet, adapted_layers(model.unet, "value"), 2, seed=0) as adapters:
        norms = []
        for which in (0, 1):
            loss = method.losses(model, adapters, *batch(model))[which]
            gradients = torch.autograd.grad(loss, adapters.parameters)
            norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
    assert norms[0] > 1e-4
    assert norms[1] < 1e-5 * norms[0]


@pytest.mark.parametrize(("length", "expected"), [(5, [2, 4, 2, 6]), (77, [6, 8])])
def test_a_step_needs_one_call_for_each_length(length: int, expected: list[int]) -> None:
    """Frozen: the anchor, zero and the negated embedding.  Trained: these and the embedding."""
    model, rows = tiny_model(), []
    hook = model.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    with trained_adapters(model, quick()) as adapters:
        quick().losses(model, adapters, *batch(model, length))
    hook.remove()
    assert sorted(rows) == sorted(expected)


# Eq. 5


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_mining_is_gradient_descent_written_out(layout: Layout, clip: float, tmp_path: Path) -> None:
    model = tiny_model(layout)
    method = quick(mining_steps=4, mining_clip=clip, mining_learning_rate=0.3, mining_decay=0.5)
    anchor, images = model.embed(["art"])[0], torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with trained_adapters(model, method) as adapters:
        rng = torch.Generator().manual_seed(4)
        found = method._mine(model, images, anchor, rng, Trace(context(tmp_path), 4), {})
        assert all(half.grad is None for half in adapters.parameters)
        erasure = erasure_of(adapters)
    rng = torch.Generator().manual_seed(4)
    c = torch.randn(5, anchor.embeddings.shape[2], generator=rng) * anchor.embeddings.std()
    start = c
    with model.erased(erasure):
        for rate in (0.3, 0.3, 0.03, 0.03):
            t = torch.randint(1000, (3,), generator=rng)
            noise = torch.randn(3, 4, 8, 8, generator=rng)
            c = c.detach().requires_grad_(True)
            loss = torch.zeros(())
            for k in range(3):
                alpha = model.alphas_cumprod[t[k]]
                x_t = alpha.sqrt() * images[k] + (1 - alpha).sqrt() * noise[k]
                predicted = model.predict_noise(x_t[None], t[k, None], Conditioning(c[None]))[0]
                loss = loss + (predicted - noise[k]).square().sum() / 3
            (gradient,) = torch.autograd.grad(loss, c)
            c = c - rate * gradient * min(1.0, clip / gradient.norm().item())
    torch.testing.assert_close(found, c.detach(), rtol=1e-3, atol=1e-6)
    assert (found - start).norm() > 10 * (found - c).norm()


def test_mining_finds_an_embedding_that_denoises_better(tmp_path: Path) -> None:
    model = tiny_model()
    images, anchor = torch.ones(3, 4, 8, 8), model.embed(["art"])[0]
    x_t, t, noise = noisy(model, torch.ones(64, 4, 8, 8), torch.Generator().manual_seed(9))

    def error(steps: int) -> float:
        rng, trace = torch.Generator().manual_seed(0), Trace(context(tmp_path), steps)
        c = Conditioning(quick(mining_steps=steps)._mine(model, images, anchor, rng, trace, {})[None])
        with torch.no_grad():
            return float((model.predict_noise(x_t, t, c.expand(64)) - noise).square().mean())

    assert error(40) < 0.99 * error(1)


def test_mining_may_start_at_the_anchor(tmp_path: Path) -> None:
    model = tiny_model()
    anchor, images = model.embed(["art"])[0], torch.zeros(3, 4, 8, 8)
    for length in (5, 80):
        method = quick(initial="anchor", mining_steps=1, mining_learning_rate=1e-12, embedding_length=length)
        found = method._mine(model, images, anchor, torch.Generator(), Trace(context(tmp_path), 1), {})
        torch.testing.assert_close(found, anchor.embeddings[0].repeat(2, 1)[:length])


# Eq. 6


def verified(
    method: DarkMiner, model: DiffusionModel, images: Tensor, embedding: Tensor, anchor: Conditioning
) -> float:
    with trained_adapters(model, method) as adapters:
        rng = torch.Generator().manual_seed(5)
        score: float = method._verify(model, adapters, Pixels(), embedding, images, anchor, CHURCH, rng)["score"]
        return score


def test_the_score_is_one_for_the_pool_picture_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    x_c, x_r, x_e = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(3))
    for picture, expected in ((x_e, 1.0), (x_r, 0.0), (2 * x_r - x_e, None), (x_c, None)):
        drawn = iter([picture, x_r])
        monkeypatch.setattr(DarkMiner, "_draw", lambda *_, drawn=drawn: next(drawn))
        score = verified(quick(), tiny_model(), x_e, torch.zeros(5, 16), Conditioning(torch.zeros(1, 77, 16)))
        assert score < 0.9 if expected is None else score == pytest.approx(expected, abs=1e-6)


def test_the_score_is_the_mean_cosine_of_eq_6(monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = tiny_model(), quick(verifying_pictures=2)
    x_c, x_r, x_e = (torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (2, 2, 3))
    x_r = x_r.flip(0)
    drawn = iter([x_c, x_r])
    monkeypatch.setattr(DarkMiner, "_draw", lambda *_: next(drawn))
    score = verified(method, model, x_e, torch.zeros(5, 16), Conditioning(torch.zeros(1, 77, 16)))
    f_c, f_r, f_e = (Pixels().scores(model.decode(x), [""] * len(x)).arrays["features"] for x in (x_c, x_r, x_e))
    cosines = []
    for change, reference in zip(f_c, f_r, strict=True):
        for wanted in f_e:
            a, b = change - reference, wanted - reference
            cosines.append(float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)))
    assert score == pytest.approx(np.mean(cosines), abs=1e-5)


def test_what_else_might_verify_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The four cosines beside eq. 6 in table S6, each written out as a loop."""
    model, method = tiny_model(), quick(verifying_pictures=2, pool_prompt="a photo of {}", anchor="a photo")
    x = torch.randn(7, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x_c, x_r, x_e = x[:2], x[2:4], x[4:]
    drawn = iter([x_c, x_r])
    monkeypatch.setattr(DarkMiner, "_draw", lambda *_: next(drawn))
    with Adapters(model.unet, adapted_layers(model.unet, "value"), 2, seed=0) as adapters:
        arguments = torch.zeros(5, 16), x_e, Conditioning(torch.zeros(1, 77, 16)), CHURCH, torch.Generator()
        found = method._verify(model, adapters, Pixels(), *arguments)
    f_c, f_r, f_e = (Pixels().scores(model.decode(x), [""] * len(x)).arrays["features"] for x in (x_c, x_r, x_e))
    mean = {
        "cosine_reference": [c @ r for c, r in zip(f_c, f_r, strict=True)],
        "cosine_pool": [c @ e for c in f_c for e in f_e],
        "cosine_anchor_text": [c @ Pixels().text("a photo") for c in f_c],
        "cosine_concept_text": [c @ Pixels().text("a photo of church") for c in f_c],
    }
    assert found.keys() == {"score", *mean}
    for name, cosines in mean.items():
        assert found[name] == pytest.approx(np.mean(cosines), abs=1e-5), name


def test_the_reference_is_the_unerased_models_from_the_same_noise() -> None:
    model = tiny_model()
    anchor, images = model.embed(["art"])[0], torch.ones(3, 4, 8, 8)
    layers = adapted_layers(model.unet, "value")
    with Adapters(model.unet, layers, 2, seed=0) as adapters:
        arguments = anchor.embeddings[0], images, anchor, CHURCH, torch.Generator().manual_seed(5)
        assert quick()._verify(model, adapters, Pixels(), *arguments)["score"] == 0
    assert verified(quick(), model, images, anchor.embeddings[0], anchor) != 0


@pytest.mark.parametrize(
    ("scores", "circumvented"), first_quick([([0.9, 0.21, 0.2], [1, 2]), ([0.1], []), ([0.9] * 9, [1, 2, 3])])
)
def test_loops_end_when_the_score_is_no_more_than_tau(
    scores: list[float], circumvented: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(scores)
    monkeypatch.setattr(DarkMiner, "_verify", lambda *_: {"score": next(given)})
    erasure = quick(tau=0.2, max_loops=3).erase(tiny_model(), [CHURCH], context(tmp_path))
    rows = erasure.trace
    assert sorted({row["loop"] for row in rows if row["stage"] == "circumvent"}) == circumvented
    kept = scores[:3]
    assert [row["score"] for row in rows if row["stage"] == "verify"] == kept
    torch.testing.assert_close(erasure.record["scores"], torch.tensor(kept))
    assert erasure.record["embeddings"].shape == (len(kept), 5, 16)
    assert any(bool(up.any()) for up, _ in erasure.low_rank.values()) == bool(circumvented)


# Circumventing


@pytest.mark.parametrize(("replay", "loops"), first_quick([(0.0, {1, 2}), (1.0, {3}), (0.5, {1, 2, 3})]))
def test_earlier_embeddings_are_replayed(
    replay: float, loops: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = arguments_of(monkeypatch, "losses")
    method = quick(max_loops=3, steps=3, batch_size=4, replay=replay)
    embeddings = method.erase(tiny_model(), [CHURCH], context(tmp_path)).record["embeddings"]
    replayed = torch.cat([c.embeddings for _, _, _, _, c, _ in seen[6:]])
    used = {k + 1 for c in replayed for k in range(3) if torch.equal(c, embeddings[k])}
    assert used == loops


def test_what_was_not_verified_is_not_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, seen = iter([0.1, 0.9, 0.9]), arguments_of(monkeypatch, "losses")
    monkeypatch.setattr(DarkMiner, "_verify", lambda *_: {"score": next(given)})
    method = quick(tau=0.2, replay=0.0)
    embeddings = method.erase(tiny_model(), [CHURCH, DOG], context(tmp_path)).record["embeddings"]
    assert seen
    for _, _, _, _, c, _ in seen:
        assert torch.equal(c.embeddings, embeddings[1].expand(2, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("bank", [0, 2])
def test_a_replayed_embedding_goes_with_pictures_and_anchor_of_its_own(
    bank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two concepts with an anchor each, of pictures whose shade tells which embedding they were drawn for."""
    model, pictures, steps = tiny_model(), list[Tensor](), list[tuple[Any, ...]]()
    losses = DarkMiner.losses

    def noised(model: DiffusionModel, x: Tensor, rng: torch.Generator) -> Any:
        pictures.append(x)
        return noisy(model, x, rng)

    def recorded(*arguments: Any) -> Any:
        steps.append((pictures[-1], *arguments[-2:]))
        return losses(*arguments)

    monkeypatch.setattr(DarkMiner, "_verify", lambda *_: {"score": 1.0})
    monkeypatch.setattr(
        DarkMiner, "_draw", lambda _, __, text, ___: text.embeddings[:, :1, :1, None].expand(-1, 4, 8, 8)
    )
    monkeypatch.setattr(DarkMiner, "losses", recorded)
    monkeypatch.setattr(dark_miner, "noisy", noised)
    concepts = [concept("church", anchor="art"), concept("dog", anchor="")]
    method = quick(anchor=None, bank=bank, replay=0.5, steps=2, batch_size=6)
    mined = method.erase(model, concepts, context(tmp_path)).record["embeddings"]
    anchors, pairs = model.embed(["art", ""]), set[tuple[int, int]]()
    for step, rows in enumerate(steps):
        for picture, c, c_0 in zip(rows[0], *(part.embeddings for part in rows[1:]), strict=True):
            (loop,) = (k for k in range(4) if torch.equal(c, mined[k]))
            # Loops are of the concepts in turn.
            pairs.add((step // 2 % 2, loop % 2))
            assert torch.equal(picture, c[0, 0].expand(4, 8, 8))
            torch.testing.assert_close(c_0, anchors.embeddings[loop % 2])
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize(("bank", "draws"), first_quick([(7, [7]), (0, [2])]))
def test_training_pictures_are_the_unerased_models(
    bank: int, draws: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, plain = [], []
    draw, unerased = DarkMiner._draw, tiny_model()

    def recorded(self: DarkMiner, model: DiffusionModel, text: Conditioning, rng: torch.Generator) -> Tensor:
        before = rng.get_state()
        found: Tensor = draw(self, model, text, rng)
        drawn.append(len(text))
        same = torch.Generator()
        same.set_state(before)
        plain.append(torch.equal(found, draw(self, unerased, text, same)))
        return found

    monkeypatch.setattr(DarkMiner, "_verify", lambda *_: {"score": 1.0})
    monkeypatch.setattr(DarkMiner, "_draw", recorded)
    quick(bank=bank, max_loops=2, learning_rate=1.0).erase(tiny_model(), [CHURCH], context(tmp_path))
    assert drawn == 2 * draws
    assert all(plain)


def test_gradient_descent_has_the_published_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, norms = [], []
    step = torch.optim.SGD.step

    def recorded(self: torch.optim.SGD, closure: Any = None) -> Any:
        (group,) = self.param_groups
        rates.append(group["lr"])
        norms.append(torch.stack([p.grad.norm() for p in group["params"]]).norm().item())
        assert group["momentum"] == group["weight_decay"] == 0
        return step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    quick(mining_steps=10, steps=10, max_loops=1, mining_clip=0.01, clip=0.02).erase(
        tiny_model(), [CHURCH], context(tmp_path)
    )
    assert rates == pytest.approx([0.1] * 5 + [0.01] * 5 + [0.01] * 8 + [0.001] * 2)
    assert norms == pytest.approx([0.01] * 10 + [0.02] * 10, rel=1e-3)


def test_the_loss_is_the_weighted_sum_of_both_terms(tmp_path: Path) -> None:
    method = quick(circumvent_weight=3.0, preserve_weight=0.25, max_loops=1, steps=2)
    trace = method.erase(tiny_model(), [CHURCH], context(tmp_path)).trace
    rows = [row for row in trace if row["stage"] == "circumvent"]
    assert len(rows) == 2
    for row in rows:
        assert row["loss"] == pytest.approx(3 * float(row["loss_c"]) + 0.25 * float(row["loss_p"]), rel=1e-5)
    assert float(rows[-1]["loss_p"]) > 0


# The whole


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
@pytest.mark.parametrize("location", get_args(Location))
def test_only_adapted_projections_change_and_the_model_is_restored(
    layout: Layout, location: Location, tmp_path: Path
) -> None:
    model = tiny_model(layout)
    before = state(model)
    erasure = quick(location=location, max_loops=1).erase(model, [CHURCH], context(tmp_path))
    assert not differing(before, state(model))
    assert not any(parameter.requires_grad for parameter in model.parameters().values())
    ending = {"value": "to_v", "key": "to_k", "query": "to_q", "out": "to_out.0"}[location]
    expected = {name for name in before if name.startswith("unet.") and name.endswith(f".{ending}.weight")}
    assert set(erasure.low_rank) == expected
    assert {".attn1." in name for name in expected} == {True, False}
    with model.erased(erasure):
        changed = differing(before, state(model))
    assert changed <= expected and len(changed) >= 0.8 * len(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_merged_adapters_predict_what_adapters_predict(layout: Layout) -> None:
    model = tiny_model(layout)
    x_t, t, c, _ = batch(model)
    with torch.no_grad():
        plain = model.predict_noise(x_t, t, c)
        with trained_adapters(model, quick()) as adapters:
            erasure = erasure_of(adapters)
            unmerged = model.predict_noise(x_t, t, c)
            with adapters.off():
                torch.testing.assert_close(model.predict_noise(x_t, t, c), plain)
        with model.erased(erasure):
            merged = model.predict_noise(x_t, t, c)
    torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-5)
    assert (unmerged - plain).abs().max() > 1e-2


def test_stable_diffusion_has_397824_adapter_parameters() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    layers = adapted_layers(unet, "value")
    assert len(layers) == 32
    counts = []
    for kind in ("attn1", "attn2"):
        with Adapters(unet, [name for name in layers if f".{kind}." in name], DarkMiner().rank, seed=0) as adapters:
            counts.append(sum(half.numel() for half in adapters.parameters))
    assert counts == [199_680, 198_144]
    assert sum(counts) == 397_824


@pytest.mark.slow
def test_the_seed_decides_everything(tmp_path: Path) -> None:
    found = []
    for k, seed in enumerate((7, 7, 8)):
        torch.manual_seed(k)
        random = torch.get_rng_state()
        (tmp_path / str(k)).mkdir()
        found.append(quick().erase(tiny_model(), [CHURCH, DOG], context(tmp_path / str(k), seed)))
        assert torch.equal(torch.get_rng_state(), random)
    first, again, other = found
    assert not differing(tensors(first), tensors(again))
    assert first.trace == again.trace
    assert len(differing(tensors(first), tensors(other))) > 5


def tensors(erasure: Erasure) -> dict[str, Tensor]:
    halves = {f"{name} {k}": half for name, pair in erasure.low_rank.items() for k, half in enumerate(pair)}
    return {**erasure.record, **halves}


@pytest.mark.parametrize("bank", first_quick([2, 0]))
def test_a_resumed_run_gives_the_same_erasure(bank: int, tmp_path: Path) -> None:
    method = quick(max_loops=2, bank=bank, replay=0.5, steps=2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = method.erase(tiny_model(), [CHURCH], context(whole))
    last_loop = [row["loop"] for row in expected.trace].index(2)

    def kill(done: int, total: int, figures: Mapping[str, float]) -> None:
        assert total == len(expected.trace)
        if done == last_loop + 3:
            raise KeyboardInterrupt

    model = tiny_model()
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        method.erase(model, [CHURCH], context(killed, progress=kill))
    assert not differing(before, state(model))
    (tmp_path / "control").mkdir()
    for path in killed.iterdir():
        (tmp_path / "control" / path.name).write_bytes(path.read_bytes())

    steps: list[int] = []
    resumed = method.erase(tiny_model(), [CHURCH], context(killed, progress=lambda done, *_: steps.append(done)))
    assert steps[0] == last_loop + 1
    assert resumed.trace == expected.trace
    assert not differing(tensors(resumed), tensors(expected))

    # The comparison does see it when one number of the state is another.
    changed = Mined.load(tmp_path / "control" / STATE, torch.device("cpu"))
    next(iter(changed.adapters.values()))[0][0, 0] += 0.1
    changed.save(tmp_path / "control" / STATE)
    control = method.erase(tiny_model(), [CHURCH], context(tmp_path / "control"))
    assert differing(tensors(control), tensors(expected))


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    first = quick(max_loops=1).erase(tiny_model(), [CHURCH], context(tmp_path))
    steps: list[int] = []
    counting = context(tmp_path, progress=lambda done, *_: steps.append(done))
    again = quick(max_loops=1).erase(tiny_model(), [CHURCH], counting)
    assert not steps
    assert not differing(tensors(first), tensors(again))


@pytest.mark.slow
def test_the_time_budget_counts_resumed_runs_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 10)
    monkeypatch.setattr(dark_miner.time, "monotonic", lambda: next(clock))
    method = quick(max_loops=4, time_budget=15)

    def loops(method: DarkMiner) -> int:
        return len(method.erase(tiny_model(), [CHURCH], context(tmp_path)).record["scores"])

    # A run looks at the clock when it begins and after each loop: loops end after 10 and 20 seconds.
    assert loops(method) == 2
    assert loops(method) == 2
    assert loops(replace(method, time_budget=25)) == 3
    assert loops(replace(method, time_budget=None)) == 4


def test_concepts_alternate_while_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.9, 0.9, 0.1, 0.9, 0.9])
    mined = arguments_of(monkeypatch, "_mine")
    monkeypatch.setattr(DarkMiner, "_verify", lambda *_: {"score": next(given)})
    method = quick(tau=0.2, max_loops=3)
    erasure = method.erase(tiny_model(), [CHURCH, DOG], context(tmp_path))
    assert erasure.record["concepts"].tolist() == [0, 1, 0, 1, 1]
    assert [row["concept"] for row in erasure.trace if row["stage"] == "verify"] == [
        "church", "dog", "church", "dog", "dog"
    ]  # fmt: skip
    pools = method._pools(tiny_model(), [CHURCH, DOG], context(tmp_path))
    for (_, images, *_), k in zip(mined, [0, 1, 0, 1, 1], strict=True):
        assert len(images) == 3
        assert all(any(torch.equal(image, other) for other in pools[k]) for image in images)
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(images, 2))


def test_pools_are_pictures_of_the_concepts(tmp_path: Path) -> None:
    from erasebench.sampling import Sampler, draw_latents

    model = tiny_model()
    for options, seed, first in (({}, 2, 8), ({"pool_seed": 3}, 0, 12), ({"pool_seed": 0}, 2, 0)):
        folder = tmp_path / str(first)
        folder.mkdir()
        method = quick(pool_prompt="{} art", **options)
        pools = method._pools(model, [CHURCH, DOG], context(folder, seed))
        for pool, prompt in zip(pools, ["church art", "dog art"], strict=True):
            (expected,) = draw_latents(model, [prompt] * 4, range(first, first + 4), Sampler("ddim", 1, 7.5))
            torch.testing.assert_close(pool, expected)


@pytest.mark.parametrize(
    ("of", "template", "prompt"),
    [
        # The paper's own, in its study of ways to verify.
        (concept("violence", kind="violence"), "a {adjective} photo", "a violent photo"),
        (concept("nudity", kind="explicit"), "a {adjective} photo", "a nude photo"),
        (CHURCH, "a {adjective} photo", "a church photo"),
        (concept("violence", kind="violence"), "a photo of {}", "a photo of violence"),
    ],
)
def test_the_pools_prompt_has_an_adjective_where_the_concept_has_one(
    of: Any, template: str, prompt: str, tmp_path: Path
) -> None:
    from erasebench.sampling import Sampler, draw_latents

    model = tiny_model()
    (pool,) = quick(pool_prompt=template)._pools(model, [of], context(tmp_path))
    (expected,) = draw_latents(model, [prompt] * 4, range(4), Sampler("ddim", 1, 7.5))
    torch.testing.assert_close(pool, expected)


def test_the_anchor_is_the_prompt_or_the_concepts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(), arguments_of(monkeypatch, "losses")
    concepts = [concept("church", anchor="art"), concept("dog", anchor="")]
    for k, (anchor, prompts) in enumerate([("a photo", ["a photo"] * 2), (None, ["art", ""])]):
        seen.clear()
        (tmp_path / str(k)).mkdir()
        quick(anchor=anchor, max_loops=1, replay=1.0).erase(model, concepts, context(tmp_path / str(k)))
        for (*_, c_0), prompt in zip(seen, prompts, strict=True):
            torch.testing.assert_close(c_0.embeddings, model.embed([prompt] * 2).embeddings)


def test_divergence_is_an_error_and_restores_the_model(tmp_path: Path) -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"training diverged: the loss is (nan|inf) at step \d"):
        quick(learning_rate=1e30).erase(model, [CHURCH], context(tmp_path))
    assert not differing(before, state(model))


def test_what_was_found_can_be_stored(tmp_path: Path) -> None:
    erasure = quick(max_loops=1).erase(tiny_model(), [CHURCH], context(tmp_path))
    (tmp_path / "stored").mkdir()
    erasure.save(tmp_path / "stored")
    loaded = Erasure.load(tmp_path / "stored")
    assert not differing(tensors(erasure), tensors(loaded))
    assert loaded.trace == erasure.trace


def test_defaults_are_the_papers() -> None:
    plugin = METHODS.get("dm2")
    method: Any = plugin.make(**plugin.presets)
    assert (method.location, method.rank, method.pool_size, method.images, method.tau) == ("value", 8, 200, 3, 0.2)
    mining = (method.mining_steps, method.mining_learning_rate, method.mining_decay, method.mining_clip)
    assert mining == (1000, 0.1, 0.5, 10)
    assert (method.steps, method.learning_rate, method.decay, method.clip) == (1000, 0.01, 0.8, 100)
    assert (method.batch_size, method.replay, method.bank, method.anchor) == (1, 0.7, 0, "a photo")
    assert (method.circumvent_weight, method.preserve_weight) == (1, 0.5)
    assert method.pool_prompt == "a {adjective} photo"
    assert method.preserve_anchor and method.preserve_zero and method.preserve_negative


def test_damaged_pools_are_drawn_again(tmp_path: Path) -> None:
    first = quick(max_loops=1).erase(tiny_model(), [CHURCH], context(tmp_path))
    (tmp_path / STATE).unlink()
    whole = (tmp_path / POOLS).read_bytes()
    (tmp_path / POOLS).write_bytes(whole[:-2] + bytes([whole[-2] ^ 0x40]) + whole[-1:])
    again = quick(max_loops=1).erase(tiny_model(), [CHURCH], context(tmp_path))
    assert not differing(tensors(first), tensors(again)) and (tmp_path / POOLS).read_bytes() == whole


def test_what_it_needs_is_known_beforehand() -> None:
    assert tuple(DarkMiner().judges(domain, CHURCH) for domain in ("picturebook", "photo")) == (
        ("picturebook-clip",),
        ("clip",),
    )
    DarkMiner().check("photo", [CHURCH])
    with pytest.raises(NotApplicable, match=r"^'dog' would be mapped to 'Church', which is to be erased$"):
        DarkMiner(anchor="Church").check("photo", [DOG, CHURCH])
    own = concept("church", anchor="church")
    DarkMiner().check("photo", [own])
    with pytest.raises(NotApplicable, match=r"^'church' would be mapped to 'church', which is to be erased$"):
        DarkMiner(anchor=None).check("photo", [own])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"time_budget": -1.0}, "time_budget: Input should be greater than 0, not -1.0"),
        ({"preserve_weight": -0.5}, "preserve_weight: Input should be greater than or equal to 0, not -0.5"),
        ({"tau": -1.5}, "tau: Input should be greater than or equal to -1, not -1.5"),
        ({"replay": 1.5}, "replay: Input should be less than or equal to 1, not 1.5"),
        ({"pool_seed": -1}, "pool_seed: Input should be greater than or equal to 0, not -1"),
        ({"pool_size": 2}, "images must be at most pool_size, 2, not 3"),
        ({"pool_prompt": "a photo"}, "pool_prompt must have {} or {adjective} where the concept goes, not 'a photo'"),
        ({"location": "values"}, "location: Input should be 'value'"),
        ({"taw": 0.3}, "unknown hyper-parameter 'taw'; nearest: tau"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(DarkMiner, settings)
