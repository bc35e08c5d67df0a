"""ESD's first loss against eq. 7 by hand, its samples against a loop written out, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.methods.esd import ESD, VARIANTS, Variant
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from erasebench.training.parameters import Pattern, select_parameters
from tests.marks import first_quick, some_quick
from tests.tiny import Layout, check_change, concept, differing, erase_context, state, tiny_model

CHURCH = [concept("church")]
LAYOUTS = get_args(Layout)
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def quick(parameters: Pattern = "xattn", **settings: Any) -> ESD:
    return ESD(**{"parameters": parameters, "steps": 2, "sampling_steps": 3, "learning_rate": 1e-3, **settings})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_loss_is_that_of_equation_seven(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step the trained model is the frozen one, so the loss is |(1 + eta) (e_c - e_0)|^2."""
    model = tiny_model(layout)
    seen: list[tuple[Tensor, Tensor]] = []
    steps: list[Mapping[str, float]] = []
    original = ESD.noisy_latents

    def recorded(self: ESD, *args: Any) -> tuple[Tensor, Tensor]:
        seen.append(original(self, *args))
        return seen[-1]

    monkeypatch.setattr(ESD, "noisy_latents", recorded)
    quick(steps=1, batch_size=3, negative_guidance=2.5).resolved(CHURCH).erase(
        model, CHURCH, erase_context(steps=steps)
    )
    (x, t), *_ = seen
    with torch.no_grad():
        blank = model.predict_noise(x, t, model.embed([""] * 3))
        church = model.predict_noise(x, t, model.embed(["church"] * 3))
    expected = float((3.5 * (church - blank)).pow(2).mean())
    assert steps == [{"done": 1, "total": 1, "loss": pytest.approx(expected, rel=1e-4)}]


@pytest.mark.parametrize(
    ("layout", "variant", "steps"),
    some_quick([("sd1", "paper", 12), ("sdxl", "paper", 12)], product(LAYOUTS, get_args(Variant), [24])),
)
def test_training_lowers_the_loss_and_approaches_the_target(layout: Layout, variant: Variant, steps: int) -> None:
    model, third = tiny_model(layout), steps // 3
    method = quick("full", variant=variant, steps=steps, batch_size=4, learning_rate=0.12 / steps, sampling_steps=2)
    erasure = method.resolved(CHURCH).erase(model, CHURCH, erase_context())
    losses = [row["loss"] for row in erasure.trace]
    assert len(losses) == steps
    assert sum(losses[-third:]) < 0.8 * sum(losses[:third])


@pytest.mark.parametrize(
    ("layout", "pattern"), [*product(["sd1"], ["xattn", "noxattn", "xattn-kv", "selfattn"]), ("sdxl", "noxattn")]
)
def test_only_the_declared_parameters_change_and_the_model_is_left_as_it_was(layout: Layout, pattern: Pattern) -> None:
    model = tiny_model(layout)
    before, pictures = state(model), predictions(model)
    erasure = quick(pattern).resolved(CHURCH).erase(model, CHURCH, erase_context())
    chosen = {f"unet.{name}" for name in select_parameters(model.unet, pattern)}
    check_change(model, before, erasure, chosen)
    with model.erased(erasure):
        assert not torch.equal(predictions(model), pictures)
    assert torch.equal(predictions(model), pictures)


def predictions(model: DiffusionModel) -> Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.predict_noise(x, torch.tensor([500]), model.embed(["church"]))


@pytest.mark.parametrize("variant", first_quick(get_args(Variant)))
def test_the_seed_decides_everything(variant: Variant) -> None:
    concepts = [concept("church"), concept("dog")]
    method = quick(variant=variant, steps=1, batch_size=2)
    torch.manual_seed(1)
    first = method.resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=7))
    torch.manual_seed(2)
    again = method.resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=7))
    other = method.resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=8))
    assert not differing(first.weights, again.weights)
    assert first.trace == again.trace
    assert differing(first.weights, other.weights)


def test_several_concepts_are_drawn_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = tiny_model(), set()

    def recorded(
        self: ESD, model: DiffusionModel, blank: Conditioning, text: Conditioning, rng: Any
    ) -> tuple[Tensor, Tensor]:
        drawn.update(text.embeddings.flatten(1).sum(1).tolist())
        return torch.zeros(len(text), 4, 8, 8), torch.zeros(len(text), dtype=torch.int64)

    monkeypatch.setattr(ESD, "noisy_latents", recorded)
    concepts = [concept("church"), concept("dog"), concept("art")]
    quick(steps=8, batch_size=2).resolved(concepts).erase(model, concepts, erase_context())
    assert drawn == set(model.embed(["church", "dog", "art"]).embeddings.flatten(1).sum(1).tolist())


@pytest.mark.parametrize(
    ("layout", "seed"),
    some_quick([("sd1", 0), ("sd1", 1), ("sd2", 0), ("sdxl", 0)], product(LAYOUTS, range(4))),
)
def test_consistent_latents_are_those_of_a_loop_written_out(
    layout: Layout, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "randn", lambda shape, generator: NOISE)
    model = tiny_model(layout)
    texts = model.embed([""]), model.embed(["church"])
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        x, t = ESD("xattn", sampling_steps=5).resolved(CHURCH).noisy_latents(model, *texts, rng)
    timesteps = [801, 601, 401, 201, 1]
    assert int(t) in timesteps
    torch.testing.assert_close(x, ddim(model, texts, NOISE, timesteps, timesteps.index(int(t)), 200))


@pytest.mark.parametrize("seed", first_quick(range(6)))
def test_official_latents_are_less_noisy_than_the_model_is_told(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda shape, generator: NOISE)
    model = tiny_model()
    texts = model.embed([""]), model.embed(["church"])
    method = ESD("xattn", variant="official-2023", sampling_steps=10).resolved(CHURCH)
    with torch.no_grad():
        x, t = method.noisy_latents(model, *texts, torch.Generator().manual_seed(seed))
    k = int(t) // 100
    # The 2023 code's sampler: the last of the ten timesteps is lost; it stops after the step whose index + 1 is k.
    timesteps = [801, 701, 601, 501, 401, 301, 201, 101, 1]
    run = 10 - k if k else 9
    torch.testing.assert_close(x, ddim(model, texts, NOISE, timesteps, run, 100))
    if k >= 2:
        level = timesteps[run - 1] - 100
        assert 199 <= int(t) - level <= 298


def ddim(
    model: DiffusionModel,
    texts: tuple[Conditioning, Conditioning],
    x: Tensor,
    timesteps: list[int],
    run: int,
    stride: int,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 without noise) with classifier-free guidance of scale 3."""
    alphas = model.alphas_cumprod
    for t in timesteps[:run]:
        with torch.no_grad():
            blank, church = (model.predict_noise(x, torch.tensor([t]), text) for text in texts)
        noise = blank + 3 * (church - blank)
        alpha, next_alpha = alphas[t], alphas[max(t - stride, 0)]
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        x = next_alpha.sqrt() * clean + (1 - next_alpha).sqrt() * noise
    return x


@pytest.mark.parametrize("source", ["trained", "frozen"])
def test_latents_come_from_the_chosen_model(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, same = tiny_model(), []
    own = model.unet.conv_in.weight.detach().clone()

    def recorded(self: ESD, model: DiffusionModel, *_: Any) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled()
        same.append(torch.equal(model.unet.conv_in.weight, own))
        return torch.ones(1, 4, 8, 8), torch.tensor([10])

    monkeypatch.setattr(ESD, "noisy_latents", recorded)
    quick("full", sample_from=source, steps=3).resolved(CHURCH).erase(model, CHURCH, erase_context())
    assert same == ([True, False, False] if source == "trained" else [True, True, True])


def test_divergence_is_an_error_and_restores_the_model() -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"training diverged: the loss is (nan|inf) at step \d"):
        quick("full", learning_rate=1e30, steps=5).resolved(CHURCH).erase(model, CHURCH, erase_context())
    assert not differing(before, state(model))


def esd(name: str, **settings: Any) -> Any:
    """A method as a plan resolves it."""
    plugin = METHODS.get(name)
    return plugin.make(**plugin.presets, **settings).resolved(CHURCH)


def test_defaults_are_the_papers() -> None:
    method = esd("esd-u")
    assert (esd("esd-x").parameters, method.parameters) == ("xattn", "noxattn")
    found = {name: getattr(method, name) for name in ("steps", "learning_rate", "negative_guidance", "start_guidance")}
    assert found == {"steps": 1000, "learning_rate": 1e-5, "negative_guidance": 1.0, "start_guidance": 3.0}
    assert (method.sampling_steps, method.batch_size, method.sample_from) == (50, 1, "trained")


def test_variants_are_whole_and_options_win() -> None:
    assert len({frozenset(settings) for settings in VARIANTS.values()}) == 1
    method = ESD("xattn", variant="official-2024", learning_rate=1e-4).resolved(CHURCH)
    assert (method.learning_rate, method.steps, method.sampler) == (1e-4, 200, "pndm")
    assert method.resolved(CHURCH) == method


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("paper", ("xattn", "noxattn")),
        ("official-2023", ("xattn", "noxattn")),
        ("official-2024", ("xattn", "noxattn-modules")),
    ],
)
def test_each_variant_brings_its_own_parameter_sets(variant: Variant, expected: tuple[str, str]) -> None:
    assert tuple(esd(name, variant=variant).parameters for name in ("esd-x", "esd-u")) == expected
    own = ESD("noxattn", variant=variant).resolved(CHURCH)
    assert own.parameters == "noxattn", "what the user says wins"


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
@pytest.mark.parametrize("target", ["from-blank", "from-concept"])
def test_a_concept_may_be_erased_from_another_prompt(
    layout: Layout, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn and trained on the other prompt, away from the concept: the 2024 code's loss written out."""
    model, drawn = tiny_model(layout), list[tuple[Conditioning, Tensor, Tensor]]()
    original = ESD.noisy_latents

    def recorded(
        self: ESD, model: DiffusionModel, blank: Conditioning, text: Conditioning, rng: Any
    ) -> tuple[Tensor, Tensor]:
        x, t = original(self, model, blank, text, rng)
        drawn.append((text, x, t))
        return x, t

    monkeypatch.setattr(ESD, "noisy_latents", recorded)
    method = quick(steps=1, batch_size=2, negative_guidance=2.5, target=target, erase_from="a dog")
    (row,) = method.resolved(CHURCH).erase(model, CHURCH, erase_context()).trace
    ((text, x, t),) = drawn
    torch.testing.assert_close(text.embeddings, model.embed(["a dog"] * 2).embeddings)
    with torch.no_grad():
        blank, church, dog = (model.predict_noise(x, t, model.embed([p] * 2)) for p in ("", "church", "a dog"))
    start = blank if target == "from-blank" else dog
    expected = (dog - (start - 2.5 * (church - blank))).double().square().mean()
    assert row["loss"] == pytest.approx(float(expected), rel=1e-3)
    same = quick(erase_from="church", target=target).resolved(CHURCH).erase(model, CHURCH, erase_context())
    plain = quick(target=target).resolved(CHURCH).erase(model, CHURCH, erase_context())
    for name, weight in plain.weights.items():
        torch.testing.assert_close(same.weights[name], weight, rtol=1e-3, atol=1e-4)


def test_results_are_weights_that_can_be_stored(tmp_path: Any) -> None:
    erasure = quick().resolved(CHURCH).erase(tiny_model(), CHURCH, erase_context())
    erasure.save(tmp_path)
    assert not differing(erasure.weights, Erasure.load(tmp_path).weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate: Input should be greater than 0, not -1.0"),
        ({"variant": "official-2024", "timestep_mode": "official"}, "set sampler to 'ddim'"),
        ({"parameters": "noxatn"}, "parameters: Input should be 'xattn'"),
        ({"step": 3}, "unknown hyper-parameter 'step'; nearest: steps"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(ESD, {"parameters": "xattn", **settings})
