"""CA's losses by hand, its prompts, where its gradients go, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from erasebench.concepts import Concept, load_catalogue
from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import make_plugin
from erasebench.methods.concept_ablation import ConceptAblation, named, replaced, start_detached
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, draw_latents
from erasebench.training.parameters import Pattern, select_parameters
from tests.marks import first_quick
from tests.tiny import Layout, check_change, concept, differing, erase_context, state, tiny_model

# diffusers' DPM-Solver++ and numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CHURCH = concept("church", anchor="building")
GOGH = concept("Van Gogh", kind="style", anchor="art")
NUDITY = concept("nudity", kind="explicit", anchor="a person")
LAYOUTS = get_args(Layout)


def quick(**settings: Any) -> ConceptAblation:
    few: dict[str, Any] = {"steps": 2, "pictures": 3, "sampling_steps": 2, "batch_size": 2, "learning_rate": 1e-3}
    return ConceptAblation(**{**few, **settings})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Every training prediction: latents, timesteps, text and result."""
    found: list[tuple[Any, ...]] = []
    original = DiffusionModel.predict_noise

    def recorded(self: DiffusionModel, x: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        predicted = original(self, x, t, text)
        found.append((x, t, text, predicted))
        return predicted

    monkeypatch.setattr(DiffusionModel, "predict_noise", recorded)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prior_weight", [0.0, 0.5])
def test_loss_is_that_of_predictions_for_anchor_and_concept(
    layout: Layout, prior_weight: float, calls: list[tuple[Any, ...]]
) -> None:
    """The first step's loss, from the unerased model's own predictions and the noise that explains its latents."""
    model = tiny_model(layout)
    latents: list[Tensor] = []
    method = with_pictures(quick(steps=1, prior_weight=prior_weight), latents)
    (row,) = method.resolved([CHURCH]).erase(model, [CHURCH], erase_context()).trace
    (x, t, anchor, _), (_, _, church, _), *_ = list(calls)
    with torch.no_grad():
        a, c = model.predict_noise(x, t, anchor), model.predict_noise(x, t, church)
    expected = 4.0 * float((a - c).double().pow(2).mean())
    alpha = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = (x - alpha.sqrt() * latents[0][:1]) / (1 - alpha).sqrt()
    expected += prior_weight * float((a - noise).double().pow(2).mean())
    assert row["loss"] == pytest.approx(expected, rel=1e-3)
    assert not torch.equal(anchor.embeddings, church.embeddings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_noise_based_loss_is_that_of_the_true_noise(layout: Layout, calls: list[tuple[Any, ...]]) -> None:
    model, latents = tiny_model(layout), list[Tensor]()
    method = with_pictures(quick(steps=1, loss="noise", erasing_weight=2.0), latents)
    (row,) = method.resolved([CHURCH]).erase(model, [CHURCH], erase_context()).trace
    ((x, t, _, predicted),) = calls
    alpha = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = (x - alpha.sqrt() * latents[0][:1]) / (1 - alpha).sqrt()
    assert row["loss"] == pytest.approx(2 * float((predicted.detach() - noise).pow(2).mean()), rel=1e-3)


def with_pictures(method: ConceptAblation, latents: list[Tensor]) -> ConceptAblation:
    """The method, but all of its pictures are the same and are also put into a list."""

    class Same(ConceptAblation):  # type: ignore[misc]  # mypy knows methods/ under its other name
        def draw(self, model: DiffusionModel, captions: Sequence[str], avoided: str, rng: torch.Generator) -> Tensor:
            same = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(9))
            latents.append(same.expand(len(captions), -1, -1, -1))
            return latents[-1]

    return Same(**vars(method))


@pytest.mark.parametrize("branch", ["current", "frozen"])
def test_the_anchors_branch_has_no_gradient_and_the_weights_chosen(branch: Any, calls: list[tuple[Any, ...]]) -> None:
    model = tiny_model()
    quick(anchor_branch=branch, learning_rate=1e-2).resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    assert len(calls) == 4
    for anchor, church in (calls[:2], calls[2:]):
        assert not anchor[3].requires_grad
        assert church[3].requires_grad
    x, t, text, predicted = calls[2]
    with torch.no_grad():
        unerased = model.predict_noise(x, t, text)
    # At the second step the model in training is another one.
    assert torch.allclose(predicted, unerased, atol=1e-6) == (branch == "frozen")


def test_the_start_token_has_no_gradient_and_values_stay() -> None:
    model = tiny_model()
    layer = model.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k").requires_grad_(True)
    text, weight = torch.randn(2, 5, 16), torch.randn(2, 5, 8)
    plain = layer(text)
    (without_start,) = torch.autograd.grad((plain * weight)[:, 1:].sum(), layer.weight)
    with start_detached(model.unet):
        detached = layer(text)
        (found,) = torch.autograd.grad((detached * weight).sum(), layer.weight)
    assert torch.equal(detached, plain)
    torch.testing.assert_close(found, without_start)
    assert torch.equal(layer(text), plain)
    (whole,) = torch.autograd.grad((layer(text) * weight).sum(), layer.weight)
    assert not torch.allclose(whole, found)


def test_detaching_the_start_changes_only_the_training_of_keys_and_values() -> None:
    def weights(**settings: Any) -> Mapping[str, Tensor]:
        erasure: Erasure = quick(steps=1, **settings).resolved([CHURCH]).erase(tiny_model(), [CHURCH], erase_context())
        return erasure.weights

    assert differing(weights(detach_start=True), weights(detach_start=False))
    attention = [weights(parameters="attn", detach_start=detach) for detach in (True, False)]
    assert not differing(*attention)


@pytest.mark.parametrize(
    ("of", "caption", "expected"),
    [
        (GOGH, "art of a dog", ["art of a dog, in the style of Van Gogh", *["in Van Gogh's style, art of a dog"] * 2]),
        (NUDITY, "a boy", ["nudity, nsfw, a boy", "in nudity, nsfw style, a boy", "a boy, nudity, nsfw"]),
        (concept("gore", "explicit"), "a boy", ["gore, a boy", "in gore style, a boy", "a boy, gore"]),
        (CHURCH, "a photo of a building at night", ["a photo of a church at night"]),
        (CHURCH, "Buildings, a tall building", ["Buildings, a tall church"]),
        (concept("English springer", anchor="a dog"), "A dog", ["an English springer"]),
        (concept("Ada Okafor", "character", anchor="a person"), "photo of a person", ["photo of Ada Okafor"]),
        (concept("an eye", anchor="cat"), "the grey cat, a cat", ["the grey eye, an eye"]),
    ],
)
def test_captions_become_those_of_the_concept(of: Concept, caption: str, expected: list[str]) -> None:
    assert quick().resolved([of]).wordings(caption, of) == expected


def test_synonyms_are_ablated_where_asked_for() -> None:
    church = concept("church", anchor="building", synonyms=("chapel", "cathedral"))
    assert quick().wordings("a building", church) == ["a church"]
    assert quick(targets="synonyms").wordings("a building", church) == ["a church", "a chapel", "a cathedral"]


def test_objects_have_articles() -> None:
    assert [named(words, "object") for words in ("church", "orange", "a dog")] == ["a church", "an orange", "a dog"]
    assert named("Van Gogh", "style") == "Van Gogh"
    assert replaced("a dogged dog", "dog", "cat", "object") == "a dogged cat"


@pytest.mark.parametrize("of", [CHURCH, GOGH, NUDITY, concept("Ada", "character", anchor="a person")])
def test_built_captions_show_the_anchor_and_not_the_concept(of: Concept) -> None:
    method = quick()
    captions = method.captions(of)
    assert len(captions) == len(set(captions)) >= 60
    for caption in captions:
        assert of.anchor in caption
        assert of.phrase not in caption
        assert all(of.phrase in wording for wording in method.wordings(caption, of))


@pytest.mark.parametrize("domain", DOMAINS)
def test_built_captions_name_a_concept_of_the_catalogue_once(domain: str) -> None:
    catalogue = load_catalogue()
    for name in catalogue.names():
        of = Concept.from_spec(catalogue.get(name).spec(domain))
        method = quick().resolved([of])
        try:
            method.check(domain, [of])
        except NotApplicable:
            continue
        if of.kind in ("object", "character"):
            captions = method.captions(of)
            assert len(captions) >= 50
            for wording in (wording for caption in captions for wording in method.wordings(caption, of)):
                assert wording.count(of.phrase) == 1, wording


def test_erasing_without_an_anchor_is_refused() -> None:
    with pytest.raises(EraseBenchError, match="dog has no anchor"):
        quick().resolved([concept("dog")]).erase(tiny_model(), [concept("dog")], erase_context())


def test_captions_of_a_file_replace_the_built_ones(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("a red building\n\n  the building \n")
    method = quick(anchor_prompts=str(path))
    assert method.captions(CHURCH) == method.captions(GOGH) == ["a red building", "the building"]
    assert method.identity() == quick(anchor_prompts=str(path)).identity() != quick().identity() == {}
    path.write_text("a red building\na house\n")
    with pytest.raises(EraseBenchError, match="'a house' does not have the words 'building', which 'church' shall"):
        method.captions(CHURCH)
    with pytest.raises(EraseBenchError, match=r"missing.txt cannot be read"):
        quick(anchor_prompts=str(tmp_path / "missing.txt")).identity()


@pytest.mark.parametrize("avoid", [False, True])
def test_pictures_are_the_unerased_models_with_the_concept_as_negative_prompt(avoid: bool) -> None:
    model, own = tiny_model(), tiny_model().guidance
    avoided = "church" if avoid else ""
    method = quick(sampling_steps=3)
    found = method.draw(model, ["art", "dog"], avoided, torch.Generator().manual_seed(3))
    seeds = torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(3)).tolist()
    with model.erased(Erasure(guidance=ClassifierFreeGuidance(avoided))):
        expected = torch.cat(list(draw_latents(model, ["art", "dog"], seeds, Sampler("dpm-solver++", 3, 6.0))))
    torch.testing.assert_close(found, expected)
    other = method.draw(model, ["art", "dog"], "" if avoid else "church", torch.Generator().manual_seed(3))
    assert not torch.allclose(found, other, atol=1e-3)
    assert model.guidance == own


@pytest.mark.parametrize(
    ("targets", "avoided"), [(None, "nudity, nsfw"), ("phrase", "nudity"), ("published", "nudity, nsfw")]
)
def test_the_words_of_nudity_are_the_published_ones(
    targets: Any, avoided: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One target, also the negative prompt: the code separates several by semicolons, not by commas."""
    seen: list[str] = []
    draw = ConceptAblation.draw

    def recorded(self: ConceptAblation, model: DiffusionModel, captions: Any, avoided: str, rng: Any) -> Tensor:
        seen.append(avoided)
        latents: Tensor = draw(self, model, captions, avoided, rng)
        return latents

    monkeypatch.setattr(ConceptAblation, "draw", recorded)
    method = quick(targets=targets)
    method.resolved([NUDITY]).erase(tiny_model(), [NUDITY], erase_context())
    assert seen == [avoided]
    assert method.resolved([NUDITY]).wordings("people", NUDITY)[0] == f"{avoided}, people"


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
@pytest.mark.parametrize(("pattern", "of"), [("xattn-kv", CHURCH), ("attn", NUDITY), ("full", GOGH)])
def test_only_the_declared_parameters_change_and_the_model_is_left_as_it_was(
    layout: Layout, pattern: Pattern, of: Concept
) -> None:
    model = tiny_model(layout)
    before = state(model)
    # Explicit concepts train both attentions by themselves.
    settings: dict[str, Any] = {} if pattern == "attn" else {"parameters": pattern}
    erasure = quick(**settings).resolved([of]).erase(model, [of], erase_context())
    chosen = {f"unet.{name}" for name in select_parameters(model.unet, pattern)}
    check_change(model, before, erasure, chosen)


def test_a_step_brings_concept_and_anchor_nearer(calls: list[tuple[Any, ...]]) -> None:
    model = tiny_model()
    erasure = (
        quick(steps=1, batch_size=8, learning_rate=1e-4).resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    )
    (x, t, _, wanted), (_, _, church, predicted) = calls
    with torch.no_grad(), model.erased(erasure):
        after = model.predict_noise(x, t, church)
    assert float((after - wanted).pow(2).mean()) < float((predicted.detach() - wanted).pow(2).mean())


def test_the_seed_decides_everything() -> None:
    concepts = [CHURCH, GOGH]
    torch.manual_seed(1)
    first = quick(steps=1).resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=7))
    torch.manual_seed(2)
    own, again = (
        torch.get_rng_state(),
        quick(steps=1).resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=7)),
    )
    assert torch.equal(own, torch.get_rng_state())
    other = quick(steps=1).resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=8))
    assert not differing(first.weights, again.weights)
    assert first.trace == again.trace
    assert differing(first.weights, other.weights)


def test_several_concepts_are_all_trained(calls: list[tuple[Any, ...]]) -> None:
    model, concepts = tiny_model(), [CHURCH, concept("dog", anchor="art")]
    method = quick(steps=3, batch_size=8)
    rows = method.resolved(concepts).erase(model, concepts, erase_context()).trace
    assert [row["step"] for row in rows] == [1, 2, 3]
    trained = {key(row) for _, _, text, _ in calls[1::2] for row in text}
    for of in concepts:
        wanted = [wording for caption in method.captions(of)[:3] for wording in method.wordings(caption, of)]
        assert trained & {key(row) for row in model.embed(wanted)}


def key(row: Conditioning) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in row.embeddings[0, :12, 0].tolist())


def test_progress_is_told_and_divergence_is_an_error_that_restores_the_model() -> None:
    model, told = tiny_model(), list[Mapping[str, float]]()
    before = state(model)
    quick().resolved([CHURCH]).erase(model, [CHURCH], erase_context(steps=told))
    assert [(row["done"], row["total"]) for row in told] == [(1, 2), (2, 2)]
    with pytest.raises(FloatingPointError, match="training diverged"):
        quick(parameters="full", steps=5, learning_rate=1e30).resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    assert not differing(before, state(model))


def test_defaults_are_the_published_ones_for_each_kind() -> None:
    plugin = METHODS.get("ca")
    assert plugin.presets == {}
    names = ("parameters", "steps", "learning_rate", "prior_weight", "avoid_concept")
    method = ConceptAblation()
    for concepts, expected in (
        ([CHURCH, GOGH], ["xattn-kv", 100, 1.6e-5, 0.0, False]),
        ([CHURCH, NUDITY], ["attn", 400, 6.4e-5, 1.0, True]),
    ):
        resolved = method.resolved(concepts)
        assert [getattr(resolved, name) for name in names] == expected
        assert resolved.resolved(concepts) == resolved
    assert ConceptAblation(steps=7, prior_weight=0.0).resolved([NUDITY]).prior_weight == 0.0


@pytest.mark.parametrize(("pattern", "count"), [("xattn-kv", 19_169_280), ("attn", 43_962_560 + 49_574_080)])
def test_parameter_counts_are_those_of_stable_diffusion(pattern: Pattern, count: int) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    assert sum(parameter.numel() for parameter in select_parameters(unet, pattern).values()) == count


def test_it_cannot_run_without_an_anchor_in_words(tmp_path: Path) -> None:
    method, with_file = ConceptAblation(), ConceptAblation(anchor_prompts=str(tmp_path / "captions.txt"))
    method.check("photo", [CHURCH, GOGH, NUDITY])
    with pytest.raises(NotApplicable, match=r"^dog has no anchor$"):
        method.check("photo", [CHURCH, concept("dog")])
    with pytest.raises(NotApplicable, match=r"^'dog' would be mapped to 'Dog', which is to be erased$"):
        method.check("photo", [concept("dog", anchor="Dog")])
    with_file.check("photo", [concept("Monet", kind="style")])
    with pytest.raises(NotApplicable, match=r"^dog has no anchor$"):
        with_file.check("photo", [concept("dog")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"pictures": 0}, "pictures: Input should be greater than or equal to 1, not 0"),
        ({"prior_weight": -1.0}, "prior_weight: Input should be greater than or equal to 0, not -1.0"),
        ({"parameters": "xattn"}, "parameters: Input should be 'xattn-kv', 'attn' or 'full'"),
        ({"anchor_branch": "old"}, "anchor_branch: Input should be 'current' or 'frozen'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(ConceptAblation, settings)
