"""MACE's closed forms against least squares, its loss and its sampler against loops, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.concepts.catalogue import KINDS
from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.judging import Images, Scores
from erasebench.methods import mace
from erasebench.methods.mace import (
    MACE,
    SETTINGS,
    TASK_OF_KIND,
    TASKS,
    attention_loss,
    focal_density,
    image_prompt,
    templates_of,
)
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.plugins import EraseContext, Judge
from erasebench.registry import JUDGES, METHODS
from erasebench.training.adapters import Adapters
from erasebench.training.closed_forms import refinement
from erasebench.training.embedded_prompts import EmbeddedPrompts
from erasebench.training.parameters import select_parameters
from tests.marks import first_quick
from tests.tiny import Layout, concept, differing, erase_context, state, tiny_model

# diffusers' DPM-Solver hands tensors to numpy in a way that numpy 2 will no longer take.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LAYOUTS = get_args(Layout)
CHURCH = concept("church", anchor="dog")
ART = concept("art", anchor="dog")
VAN_GOGH = concept("Van Gogh", kind="style", anchor="art")


class Segmenter(Judge):
    """Finds everything in the left half of every picture, or nothing; remembers what it was asked for."""

    def __init__(self, finds: bool = True) -> None:
        self.finds = finds
        self.asked: list[str] = []

    def identity(self) -> dict[str, str]:
        return {}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        self.asked += prompts
        mask = np.zeros(images.shape[:3], dtype=np.float32)
        mask[:, :, : images.shape[2] // 2] = self.finds
        return Scores({}, {"mask": mask})


def lent(segmenter: Segmenter | None = None, seed: int = 0, steps: list[Mapping[str, float]] | None = None) -> Any:
    """What a run lends, with a segmenter."""
    given = segmenter or Segmenter()

    def judge(name: str) -> Judge:
        assert name == "grounded-sam"
        return given

    context = erase_context(seed, steps)
    return EraseContext(context.seed, context.folder, context.progress, judge)


def quick(**settings: Any) -> MACE:
    return MACE(**{"steps": 2, "learning_rate": 1e-2, "pictures": 2, "sampling_steps": 2, "lamb": 0.1, **settings})


def test_templates_are_thirty_of_each_kind() -> None:
    assert (templates_of(CHURCH), templates_of(VAN_GOGH)) == (SETTINGS["things"], SETTINGS["styles"])
    for templates in (SETTINGS["things"], SETTINGS["styles"]):
        assert len(set(templates)) == len(templates) == 30
        assert all(template.count("{}") == 1 for template in templates)


def test_importance_sampling_is_that_of_the_paper() -> None:
    density = focal_density(1000, 200, 400, 0.05)
    assert float(density.sum()) == pytest.approx(199.999, abs=1e-3)
    assert int(density.argmax()) == 300
    share = density / density.sum()
    assert float(share[:200].sum()) == pytest.approx(0.068, abs=3e-3)
    assert float(share[401:].sum()) == pytest.approx(0.068, abs=3e-3)
    assert float(share[501:].sum()) < 1e-3
    assert float((share * torch.arange(1000)).sum()) == pytest.approx(300, abs=0.1)


def drawn_timesteps(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Tensor:
    seen: list[Tensor] = []
    original = DiffusionModel.predict

    def recorded(self: DiffusionModel, latents: Tensor, timesteps: Any, text: Conditioning) -> Tensor:
        if isinstance(timesteps, Tensor) and timesteps.ndim:
            seen.append(timesteps.clone())
        return original(self, latents, timesteps, text)

    monkeypatch.setattr(DiffusionModel, "predict", recorded)
    method = quick(steps=1, batch_size=300, sampling_steps=1, **settings)
    method.resolved([CHURCH]).erase(tiny_model(), [CHURCH], lent())
    return torch.cat(seen).double()


@pytest.mark.slow
def test_sampled_timesteps_follow_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    focal = drawn_timesteps(monkeypatch)
    assert len(focal) == 300
    # Four standard errors of 300 draws.
    assert float(focal.mean()) == pytest.approx(300, abs=16)
    assert float((focal < 200).double().mean()) == pytest.approx(0.068, abs=0.058)
    assert float((focal > 400).double().mean()) == pytest.approx(0.068, abs=0.058)
    uniform = drawn_timesteps(monkeypatch, importance_sampling=False)
    assert float(uniform.mean()) == pytest.approx(499.5, abs=67)
    assert float((uniform < 200).double().mean()) == pytest.approx(0.2, abs=0.092)


@pytest.mark.parametrize("squared", [False, True])
def test_attention_loss_is_that_of_equation_three(squared: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, heads, side * side, 5, generator=rng) for heads, side in ((3, 4), (2, 2))]
    masks = (torch.rand(2, 8, 8, generator=rng) > 0.5).float()
    tokens = torch.tensor([[False, True, False, True, False], [False, False, False, False, True]])
    expected = 0.0
    for picture in range(2):
        for attention in maps:
            side = int(attention.shape[2] ** 0.5)
            total = 0.0
            for head in range(attention.shape[1]):
                for row in range(side):
                    for column in range(side):
                        for token in range(5):
                            if masks[picture, row * 8 // side, column * 8 // side] and tokens[picture, token]:
                                total += float(attention[picture, head, row * side + column, token]) ** 2
            expected += total if squared else total**0.5
    assert float(attention_loss(maps, masks, tokens, squared)) == pytest.approx(expected / 2, rel=1e-5)


def test_a_mask_that_vanishes_in_a_small_layer_has_a_finite_gradient() -> None:
    attention = torch.rand(1, 1, 4, 3, requires_grad=True)
    loss = attention_loss([attention], torch.zeros(1, 8, 8), torch.ones(1, 3, dtype=torch.bool), False)
    loss.backward()
    assert float(loss.detach()) == 0 and attention.grad is not None and not attention.grad.any()


def test_the_gradient_reaches_only_the_adapters_of_keys_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(), []
    original = Adapters.factors

    def recorded(self: Adapters) -> Any:
        seen.append({name for name, p in model.unet.named_parameters() if p.grad is not None and p.grad.any()})
        return original(self)

    monkeypatch.setattr(Adapters, "factors", recorded)
    quick(steps=3).resolved([CHURCH]).erase(model, [CHURCH], lent())
    (moved,) = seen
    assert moved
    assert all("lora_" in name and (".attn2.to_k." in name or ".attn2.to_v." in name) for name in moved)
    assert any(".attn2.to_k." in name for name in moved)
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters().values())


def test_a_concept_has_49536_parameters_on_stable_diffusion_1() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    layers = [name.removesuffix(".weight") for name in select_parameters(unet, "xattn-kv")]
    assert len(layers) == 32
    with Adapters(unet, layers, MACE().rank, seed=0, gaussian=True) as adapters:
        assert sum(half.numel() for half in adapters.parameters) == 49_536


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_training_lowers_attention_to_the_concept(layout: Layout) -> None:
    method = quick(steps=10, learning_rate=1e-1, batch_size=4, lamb=1e-3)
    rows = method.resolved([CHURCH]).erase(tiny_model(layout), [CHURCH], lent()).trace
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("layout", first_quick(["sdxl", "sd1", "sd2"]))
def test_only_keys_and_values_change_and_the_model_is_left_as_it_was(layout: Layout) -> None:
    model = tiny_model(layout)
    before = state(model)
    steps: list[Mapping[str, float]] = []
    erasure = quick().resolved([CHURCH, ART]).erase(model, [CHURCH, ART], lent(steps=steps))
    assert not differing(before, state(model))
    chosen = {name for name in before if ".attn2.to_k." in name or ".attn2.to_v." in name}
    with model.erased(erasure):
        assert differing(before, state(model)) == chosen
    assert not differing(before, state(model))
    assert [row["concept"] for row in erasure.trace] == ["church"] * 2 + ["art"] * 2
    assert [(row["done"], row["total"]) for row in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(set(row) == {"done", "total", "loss"} for row in steps)


def test_the_seed_decides_everything() -> None:
    method = quick(steps=1, batch_size=2)
    torch.manual_seed(1)
    first = method.resolved([CHURCH, ART]).erase(tiny_model(), [CHURCH, ART], lent(seed=7))
    torch.manual_seed(2)
    untouched = torch.random.get_rng_state()
    again = method.resolved([CHURCH, ART]).erase(tiny_model(), [CHURCH, ART], lent(seed=7))
    assert torch.equal(untouched, torch.random.get_rng_state())
    other = method.resolved([CHURCH, ART]).erase(tiny_model(), [CHURCH, ART], lent(seed=8))
    assert not differing(first.weights, again.weights)
    assert first.trace == again.trace
    assert differing(first.weights, other.weights)


def test_without_training_the_result_is_the_refinement() -> None:
    """A learning rate next to nothing leaves the LoRA at zero, and its fusion at W'."""
    model = tiny_model()
    erasure = quick(learning_rate=1e-12, weight_decay=0.0).resolved([CHURCH]).erase(model, [CHURCH], lent())
    prompts = EmbeddedPrompts.of(model, templates_of(CHURCH), "church", "dog")
    product = refinement([prompts.mapped], [prompts.around], torch.zeros(16, 16).double(), 0.1)
    for name, weight in erasure.weights.items():
        expected = model.parameters()[name].detach().double() @ product
        torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-5)


def test_divergence_is_an_error_and_restores_the_model() -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match="diverged"):
        quick(steps=20, learning_rate=1e30).resolved([CHURCH]).erase(model, [CHURCH], lent())
    assert not differing(before, state(model))
    assert not any("lora" in name for name, _ in model.unet.named_parameters())


def test_the_segmenter_sees_pictures_of_the_concept_and_its_mask_is_used() -> None:
    segmenter = Segmenter()
    method, model, rng = quick(), tiny_model(), torch.Generator().manual_seed(0)
    assert image_prompt(CHURCH, "church") == "a photo of the church"
    assert image_prompt(concept("nudity", kind="explicit"), "naked") == "a photo of naked"
    latents, masks = method.draw_images(model, CHURCH, "church", lent(segmenter), rng)
    assert segmenter.asked == ["church", "church"]
    assert latents.shape == (2, 4, 8, 8)
    assert masks[:, :, :8].all() and not masks[:, :, 8:].any()
    assert method.draw_images(model, CHURCH, "church", lent(Segmenter(finds=False)), rng)[1].all()


def test_styles_need_no_segmenter() -> None:
    model = tiny_model()
    assert image_prompt(VAN_GOGH, "Van Gogh") == "a photo in the style of Van Gogh"
    _, masks = quick().draw_images(model, VAN_GOGH, "Van Gogh", erase_context(), torch.Generator())
    assert masks.all()
    assert quick(prior="none").resolved([VAN_GOGH]).erase(model, [VAN_GOGH], erase_context()).weights


def test_judges() -> None:
    for domain in ("picturebook", "photo"):
        (name,) = MACE().judges(domain, [CHURCH, VAN_GOGH])
        assert name in JUDGES.names()
        assert MACE().judges(domain, [VAN_GOGH]) == ()
    assert MACE().judges("photo", [CHURCH]) == ("grounded-sam",)


def test_synonyms_are_concepts_of_their_own_where_the_paper_has_them() -> None:
    nudity = concept("dog", kind="explicit", anchor="art", synonyms=("red dog",))
    segmenter = Segmenter()
    rows = quick(steps=1, prior="none").resolved([nudity]).erase(tiny_model(), [nudity], lent(segmenter)).trace
    assert [row["concept"] for row in rows] == ["dog", "red dog"]
    assert set(segmenter.asked) == {"dog"}
    rows = quick(steps=1, prior="none", synonyms=False).resolved([nudity]).erase(tiny_model(), [nudity], lent()).trace
    assert [row["concept"] for row in rows] == ["dog"]


def test_settings_are_those_of_the_tasks() -> None:
    def of(kind: str, number: int = 1, name: str = "x", method: MACE | None = None) -> dict[str, Any]:
        concepts = [concept(f"{name}", kind=kind)] * number
        options = ("lamb", "refinement_prior_scale", "fusion_prior_scale", "domain_scale", "steps", "learning_rate")
        resolved = (method or MACE()).resolved(concepts)
        assert resolved.resolved(concepts) == resolved
        return {option: getattr(resolved, option) for option in options}

    assert list(of("object").values()) == [1e2, 0, 0, 0, 50, 1e-5]
    assert [of("object", name=name)["lamb"] for name in ("ship", "automobile", "bird")] == [1e3, 1e2, 1e1]
    assert list(of("explicit").values()) == [0, 7e-7, 7e-7, 0, 120, 1e-5]
    assert list(of("style").values()) == [0, 1e-4, 1e-4, 8e4, 50, 1e-4]
    assert list(of("character").values()) == [0, 1e-4, 1e-4, 8e3, 50, 1e-4]
    assert [of("character", number)["domain_scale"] for number in (1, 2, 5, 10, 100)] == [8e3, 5e4, 5e4, 8e4, 2e5]
    assert of("object", method=MACE(task="celebrity"))["learning_rate"] == 1e-4
    assert of("object", method=MACE(lamb=7.0, steps=3)) == {**of("object"), "lamb": 7.0, "steps": 3}
    assert MACE().resolved([concept("x", kind="explicit")]).importance_sampling is False
    # The scale of celebrities depends on their number.
    assert {frozenset(TASKS[task]) | {"domain_scale"} for task in TASKS} == {frozenset(TASKS["object"])}
    assert set(TASK_OF_KIND) == set(KINDS)


def test_registered_with_the_papers_defaults() -> None:
    plugin = METHODS.get("mace")
    made: Any = plugin.make(**plugin.presets)
    assert (made.rank, made.pictures, made.batch_size, made.sampling_steps, made.guidance_scale) == (1, 8, 1, 30, 7.5)
    assert made.use_pooler


@pytest.mark.parametrize("sums", ["published", "plain"])
def test_prior_is_the_sum_over_captions_and_neighbours(sums: Any, tmp_path: Path) -> None:
    model = tiny_model()
    captions = tmp_path / "captions.txt"
    captions.write_text("a dog\n\n  art \na red Church\nchurches\n", encoding="utf-8")
    paul = concept("church", kind="character", anchor="dog", neighbours_phrases=("red dog", "church"))
    method = MACE(prior=str(captions), prior_sums=sums, domain_scale=3.0).resolved([paul])
    assert method.captions(model, [paul]) == ["a dog", "art", "churches"]

    def total(prompts: Sequence[str]) -> Tensor:
        rows = [e.double() for prompt in prompts for e in model.embed([prompt]).embeddings[0]]
        return sum((torch.outer(e, e) for e in rows), torch.zeros(16, 16, dtype=torch.float64))

    general = total(["a dog", "art", "churches"])
    domain = total([template.format("red dog") for template in SETTINGS["things"]])
    if sums == "published":
        general, domain = general * 4.7e7 / (3 * 77), domain * 7700 / (30 * 77)
    torch.testing.assert_close(method.prior_moment(model, [paul]), general + 3 * domain)
    neighbours = MACE(prior="neighbours", prior_sums=sums, domain_scale=3.0).resolved([paul])
    only = neighbours.prior_moment(model, [paul])
    torch.testing.assert_close(only, 3 * domain)
    assert not MACE(prior="none").resolved([paul]).prior_moment(model, [paul]).any()
    assert method.identity() != {} and MACE().identity() == {}
    before = method.identity()
    captions.write_text("another", encoding="utf-8")
    assert method.identity() != before
    captions.write_text("a church\n", encoding="utf-8")
    with pytest.raises(EraseBenchError, match="holds no caption that does not name"):
        method.captions(model, [paul])


def test_prior_scale_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("a dog\n", encoding="utf-8")
    paul, seen = concept("church", kind="character", anchor="art"), []

    def recorded(mapped: Any, around: Any, prior: Tensor, lamb: float) -> Tensor:
        seen.append(prior)
        return refinement(mapped, around, prior, lamb)

    monkeypatch.setattr(mace, "refinement", recorded)
    for mode in ("paper", "official"):
        method = quick(prior=str(captions), prior_scale_mode=mode, refinement_prior_scale=1e-2, steps=1)
        method.resolved([paul]).erase(tiny_model(), [paul], lent())
    torch.testing.assert_close(seen[1], 1e-2 * seen[0])


def checked(method: MACE, domain: str, concepts: Sequence[Concept]) -> None:
    method.resolved(concepts).check(domain, concepts)


def test_what_cannot_be_erased_is_known_beforehand() -> None:
    paul = concept("church", kind="character", anchor="dog", neighbours_phrases=("art",))
    checked(MACE(), "picturebook", [paul, paul])
    checked(MACE(), "photo", [CHURCH])
    checked(MACE(prior="captions.txt"), "photo", [paul])
    checked(MACE(prior="neighbours"), "photo", [paul])
    checked(MACE(task="object"), "picturebook", [paul, CHURCH])
    reasons: list[tuple[str, MACE, str, list[Concept]]] = [
        ("give prior=FILE", MACE(), "photo", [paul]),
        ("not of celebrity and object", MACE(), "picturebook", [paul, CHURCH]),
        ("mapped to 'Church'", MACE(), "picturebook", [concept("church", anchor="Church")]),
        ("has no anchor", MACE(), "picturebook", [concept("church")]),
        ("give a lamb", MACE(prior="none"), "photo", [paul]),
        ("give a lamb,", MACE(lamb=0), "picturebook", [CHURCH]),
        ("nothing tells", MACE(prior="neighbours", task="explicit"), "photo", [paul]),
    ]
    for reason, method, domain, concepts in reasons:
        with pytest.raises(NotApplicable, match=reason):
            checked(method, domain, concepts)
    with pytest.raises(NotApplicable, match="give prior=FILE"):
        MACE().resolved([paul]).erase(tiny_model(), [paul], lent())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"rank": 0}, "rank: Input should be greater than or equal to 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate: Input should be greater than 0, not -1.0"),
        ({"lamb": -1.0}, "lamb: Input should be greater than or equal to 0, not -1.0"),
        ({"interval_start": 400.0}, "interval_start must be from 0 to below interval_end and 1000, not 400.0 to 400.0"),
        ({"sampler": "heun"}, "unknown sampler 'heun'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        MACE(**settings)


def test_a_missing_file_of_captions_is_an_error() -> None:
    with pytest.raises(EraseBenchError, match=r"prior: /nonexistent/captions\.txt is no file"):
        MACE(prior="/nonexistent/captions.txt").identity()
