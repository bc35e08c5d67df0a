"""SalUn's mask against sorting, its loss by hand, and what is trained through the mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import make_plugin
from erasebench.methods import saliency_unlearning
from erasebench.methods.saliency_unlearning import SaliencyUnlearning, kth_largest, prompt_of, salient
from erasebench.registry import METHODS
from erasebench.training.latents import noisy
from erasebench.training.parameters import TwoWeights, select_parameters
from tests.marks import first_quick
from tests.tiny import Layout, concept, differing, erase_context, state, tiny_model

LAYOUTS = get_args(Layout)
CHURCH = concept("church", anchor="dog", neighbours_phrases=("art", "silk"))
NUDITY = concept("nudity", kind="explicit", anchor="a person wearing clothes", neighbours_phrases=("person",))


def quick(**settings: Any) -> SaliencyUnlearning:
    small = {"steps": 2, "pictures": 4, "batch_size": 2, "sampling_steps": 2, "learning_rate": 1e-3}
    return SaliencyUnlearning(**{**small, **settings})


def record_noise(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Tensor]]:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def recorded(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(noisy(*args))
        return seen[-1]

    monkeypatch.setattr(saliency_unlearning, "noisy", recorded)
    return seen


@pytest.mark.parametrize("scale", [1e-42, 1e-6, 1.0, 1e30])
def test_kth_largest_is_that_of_sorting(scale: float) -> None:
    rng = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=rng) * scale for shape in ((7, 5), (300,), (2, 3, 4))]
    tensors += [tensors[1][:50].clone(), torch.zeros(9)]
    ordered = torch.cat([tensor.flatten() for tensor in tensors]).abs().sort(descending=True).values
    for k in (1, 2, 3, 50, 111, 200, len(ordered) - 9, len(ordered) - 8, len(ordered)):
        assert kth_largest(tensors, k) == float(ordered[k - 1])


def test_neighbouring_floats_are_told_apart() -> None:
    one = torch.tensor(1.0)
    above = torch.nextafter(one, torch.tensor(2.0))
    assert kth_largest([torch.stack([one, above])], 1) == float(above)
    assert kth_largest([torch.stack([one, -above])], 2) == 1.0


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_mask_is_global(share: float) -> None:
    rng = torch.Generator().manual_seed(1)
    gradients = {"large": 10 * torch.randn((20, 5), generator=rng), "small": torch.randn(100, generator=rng)}
    masks = salient(gradients, share)
    by_size = sorted(
        ((abs(float(value)), name, place) for name, g in gradients.items() for place, value in enumerate(g.flatten())),
        reverse=True,
    )
    wanted = {(name, place) for _, name, place in by_size[: round(200 * share)]}
    found = {(name, int(place)) for name, mask in masks.items() for place in mask.flatten().nonzero()}
    assert found == wanted
    assert masks["large"].shape == (20, 5)
    assert share == 1.0 or masks["large"].sum() > 3 * masks["small"].sum()


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_saliency_adds_up_signed_gradients_of_one_pass(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(layout), record_noise(monkeypatch)
    latents, prompts = torch.randn(5, 4, 8, 8), ["church", "dog"]
    text, blank = model.embed(prompts), model.embed([""])
    chosen = select_parameters(model.unet, "xattn-kv")
    with TwoWeights(chosen):
        quick(batch_size=2, mask_guidance=2.0).accumulate(model, latents, text, blank, torch.Generator())
        found = {name: parameter.grad for name, parameter in chosen.items()}
        total = torch.zeros(())
        assert [len(x) for x, _, _ in seen] == [2, 2, 1]
        for batch, (x, t, noise) in enumerate(seen):
            rows = []
            for row in range(len(x)):
                named = model.predict_noise(x[row : row + 1], t[row : row + 1], text[[(2 * batch + row) % 2]])
                unnamed = model.predict_noise(x[row : row + 1], t[row : row + 1], blank)
                rows.append((3.0 * named - 2.0 * unnamed - noise[row]).pow(2).mean())
            total = total - torch.stack(rows).mean()
        wanted = torch.autograd.grad(total, list(chosen.values()))
    for name, gradient in zip(chosen, wanted, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_first_loss_is_the_papers(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, steps = tiny_model(layout), record_noise(monkeypatch), list[Mapping[str, float]]()
    only = concept("church", anchor="dog")
    quick(steps=1, alpha=0.7).resolved([only]).erase(model, [only], erase_context(steps=steps))
    *_, (x, t, _), (y, s, noise) = seen
    with torch.no_grad():
        church = model.predict_noise(x, t, model.embed(["an image of a church"] * 2))
        dog = model.predict_noise(x, t, model.embed(["an image of a dog"] * 2))
        kept = model.predict_noise(y, s, model.embed(["an image of a dog"] * 2))
    expected = float((church - dog).pow(2).mean() + 0.7 * (kept - noise).pow(2).mean())
    assert steps == [{"done": 1, "total": 1, "loss": pytest.approx(expected, rel=1e-4)}]


def test_the_pseudo_label_has_no_gradient_and_is_of_the_model_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a concept relabelled as its own prompt, and nothing to remain, there is nothing to learn at any step."""
    monkeypatch.setattr(saliency_unlearning, "prompt_of", lambda *_: "a church")
    erasure = (
        quick(steps=3, alpha=0.0, learning_rate=1e-2).resolved([CHURCH]).erase(tiny_model(), [CHURCH], erase_context())
    )
    assert [row["loss"] for row in erasure.trace] == [pytest.approx(0, abs=1e-10)] * 3


@pytest.mark.parametrize("share", first_quick([0.5, 0.05]))
def test_what_is_not_salient_stays_bit_for_bit(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = tiny_model(), dict[str, Tensor]()

    def recorded(gradients: Mapping[str, Tensor], saliency: float) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = salient(gradients, saliency)
        kept.update(masks)
        return masks

    monkeypatch.setattr(saliency_unlearning, "salient", recorded)
    before = state(model)
    erasure = quick(saliency=share, steps=3).resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    assert not differing(before, state(model))
    total = sum(mask.numel() for mask in kept.values())
    assert total == sum(parameter.numel() for parameter in model.unet.parameters())
    assert sum(int(mask.sum()) for mask in kept.values()) == pytest.approx(share * total, abs=2)
    assert set(erasure.weights) == {f"unet.{name}" for name, mask in kept.items() if mask.any()}
    changed = 0
    for name, value in erasure.weights.items():
        moved = value != before[name]
        assert not (moved & ~kept[name.removeprefix("unet.")]).any()
        changed += int(moved.sum())
    assert changed > 0.95 * share * total


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_training_brings_the_concept_to_its_new_label(layout: Layout) -> None:
    model = tiny_model(layout)
    method = quick(relabel="anchor", steps=5, batch_size=4, learning_rate=1e-2, alpha=0.0, saliency=1.0)
    x, t = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(100, 900, 100)

    def distance() -> float:
        with torch.no_grad():
            church, dog = (
                model.predict_noise(x, t, model.embed([f"an image of a {w}"] * 8)) for w in ("church", "dog")
            )
        return float((church - dog).pow(2).mean())

    plain = distance()
    with model.erased(method.resolved([CHURCH]).erase(model, [CHURCH], erase_context())):
        assert distance() < 0.7 * plain


def test_the_seed_decides_everything() -> None:
    model, random = tiny_model(), torch.random.get_rng_state()
    concepts = [CHURCH, concept("dog", anchor="cat")]
    first, again, other = (
        quick(steps=1).resolved(concepts).erase(model, concepts, erase_context(seed=seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not differing(first.weights, again.weights)
    assert first.trace == again.trace
    assert first.trace != other.trace
    assert not any(parameter.requires_grad for parameter in model.parameters().values())


def test_several_concepts_have_pictures_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []

    def recorded(model: Any, prompts: list[str], *_: Any) -> Tensor:
        drawn.append(prompts)
        return torch.zeros(len(prompts), 4, 8, 8)

    monkeypatch.setattr(saliency_unlearning, "training_latents", recorded)
    style = concept("Van Gogh", kind="style", anchor="art", neighbours_phrases=("crayon", "church"))
    quick(steps=1, pictures=5).resolved([CHURCH, style]).erase(tiny_model(), [CHURCH, style], erase_context())
    church, gogh = "an image of a church", "an image in the style of Van Gogh"
    dog, art, silk = "an image of a dog", "an image of an art", "an image of a silk"
    assert drawn == [
        [church, gogh, church, gogh, church],
        [dog, art, silk, "an image in the style of art", "an image in the style of crayon"],
    ]


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_each_picture_goes_with_the_texts_of_its_own_concept(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first loss of two concepts, of pictures whose shade tells which prompt they were drawn for."""
    church, gogh = "an image of a church", "an image in the style of Van Gogh"
    anchors = {church: "an image of a dog", gogh: "an image in the style of art"}
    shades = [*anchors, *anchors.values()]
    model, seen, steps = tiny_model(layout), list[tuple[Tensor, ...]](), list[Mapping[str, float]]()

    def draw(_: Any, prompts: list[str], *__: Any) -> Tensor:
        return torch.stack([torch.full((4, 8, 8), float(shades.index(prompt))) for prompt in prompts])

    def recorded(model: Any, latents: Tensor, rng: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((latents, *noisy(model, latents, rng)))
        return seen[-1][1:]  # type: ignore[return-value]

    monkeypatch.setattr(saliency_unlearning, "training_latents", draw)
    monkeypatch.setattr(saliency_unlearning, "noisy", recorded)
    concepts = [concept("church", anchor="dog"), concept("Van Gogh", kind="style", anchor="art")]
    quick(steps=1, pictures=5, batch_size=12, alpha=0.7).resolved(concepts).erase(
        model, concepts, erase_context(steps=steps)
    )

    def predict(x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        with torch.no_grad():
            return model.predict_noise(x, t, model.embed(prompts))

    *_, (forgotten, x, t, _), (remaining, y, s, noise) = seen
    named, kept = ([shades[int(latent.mean())] for latent in latents] for latents in (forgotten, remaining))
    assert (set(named), set(kept)) == (set(anchors), set(anchors.values()))
    relabelled = predict(x, t, [anchors[prompt] for prompt in named])
    expected = (predict(x, t, named) - relabelled).pow(2).mean() + 0.7 * (predict(y, s, kept) - noise).pow(2).mean()
    assert steps == [{"done": 1, "total": 1, "loss": pytest.approx(float(expected), rel=1e-4)}]


def test_modes_follow_the_kind() -> None:
    names = ("alpha", "steps", "relabel")
    method = SaliencyUnlearning()
    for concepts, wanted in (
        ([CHURCH], (0.5, 590, "random")),
        ([NUDITY], (0.1, 100, "anchor")),
        ([NUDITY, CHURCH], (0.5, 590, "random")),
        ([concept("art", kind="style")], (0.5, 590, "random")),
    ):
        resolved = method.resolved(concepts)
        assert tuple(getattr(resolved, name) for name in names) == wanted
        assert resolved.resolved(concepts) == resolved
    assert SaliencyUnlearning(mode="class").resolved([NUDITY]).alpha == 0.5
    assert SaliencyUnlearning(alpha=0.3).resolved([NUDITY]).alpha == 0.3


def test_labels() -> None:
    assert SaliencyUnlearning().resolved([CHURCH]).labels(CHURCH, [CHURCH]) == ("art", "silk")
    assert SaliencyUnlearning().resolved([CHURCH]).labels(CHURCH, [CHURCH, concept("Art")]) == ("silk",)
    assert SaliencyUnlearning(relabel="anchor").labels(CHURCH, [CHURCH]) == ("dog",)
    assert SaliencyUnlearning().labels(NUDITY, [NUDITY]) == ("a person wearing clothes",)
    lonely = concept("red balloon", kind="phrase")
    assert SaliencyUnlearning().labels(lonely, [lonely]) == ("",)
    assert SaliencyUnlearning().remaining([lonely]) == [""]


def test_prompts() -> None:
    assert prompt_of(CHURCH, "church") == "an image of a church"
    assert prompt_of(CHURCH, "English springer") == "an image of an English springer"
    assert prompt_of(CHURCH, "a meadow") == "an image of a meadow"
    assert prompt_of(NUDITY, NUDITY.anchor) == "a photo of a person wearing clothes"
    assert prompt_of(NUDITY, "nudity") == "a photo of nudity"
    assert prompt_of(NUDITY, "nude", "a photo of a {} person") == "a photo of a nude person"
    assert prompt_of(CHURCH, "") == prompt_of(CHURCH, "", "a {}") == ""


def test_a_concept_that_would_stay_itself_is_refused() -> None:
    method = SaliencyUnlearning(relabel="anchor")
    dog = concept("dog", anchor="church")
    method.check("photo", [CHURCH])
    with pytest.raises(NotApplicable, match=r"^'church' would be mapped to 'dog', which is to be erased$"):
        method.check("photo", [CHURCH, dog])
    with pytest.raises(NotApplicable, match=r"^'dog' would be mapped to 'church', which is to be erased$"):
        SaliencyUnlearning().resolved([CHURCH, dog]).check("photo", [CHURCH, dog])


def test_divergence_is_an_error_and_restores_the_model() -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"training diverged: the loss is (nan|inf) at step \d"):
        quick(learning_rate=1e30, steps=5).resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    assert not differing(before, state(model))


def test_defaults_are_the_official_ones() -> None:
    plugin = METHODS.get("salun")
    method: Any = plugin.make(**plugin.presets)
    assert (method.parameters, method.saliency, method.mask_guidance) == ("full", 0.5, 7.5)
    assert (method.learning_rate, method.batch_size, method.pictures) == (1e-5, 8, 800)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"saliency": 0.0}, "saliency: Input should be greater than 0, not 0.0"),
        ({"saliency": 1.5}, "saliency: Input should be less than or equal to 1, not 1.5"),
        ({"alpha": -1.0}, "alpha: Input should be greater than or equal to 0, not -1.0"),
        ({"relabel": "neighbour"}, "relabel: Input should be 'anchor' or 'random'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(SaliencyUnlearning, settings)
