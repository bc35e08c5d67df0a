"""UCE's closed form against least squares, and its spans against the tokens counted by hand."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.methods.uce import UCE, embed, last_tokens
from erasebench.models.diffusion import DiffusionModel
from erasebench.registry import METHODS
from erasebench.training.parameters import select_parameters
from tests.tiny import Layout, concept, differing, erase_context, state, tiny_model

LAYOUTS = get_args(Layout)
VARIANTS = ("paper", "official-2024")
CHURCH = concept("church", neighbours_phrases=("dog", "silk"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_concept_mapped_to_itself_leaves_the_matrices(layout: Layout, variant: Any) -> None:
    model = tiny_model(layout)
    erasure = (
        UCE(variant=variant, guide="church", preserve="neighbours")
        .resolved([CHURCH])
        .erase(model, [CHURCH], erase_context())
    )
    for name, value in erasure.weights.items():
        torch.testing.assert_close(value, model.parameters()[name].detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_paper_variant_solves_the_stacked_problem_of_the_old_code(layout: Layout) -> None:
    """Church is one token at 1, 'a dog' ends at 2: 75 pairs of positions, and all 77 of each preserved prompt."""
    model = tiny_model(layout)
    method = UCE(guide="a dog", preserve="neighbours")
    erasure = method.resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    church, dog, *kept = (model.embed([text]).embeddings[0].double() for text in ("church", "a dog", "", "dog", "silk"))
    keys, guides, preserved = church[1:76], dog[2:77], torch.cat(kept)
    assert len(preserved) == 3 * 77
    check_least_squares(model, erasure.weights, keys, guides, preserved, max(0.1, 1 / 3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_present_variant_edits_one_vector_for_each_concept(layout: Layout) -> None:
    """A multi-token word has its last token edited; the blank guide is the start token's embedding."""
    model = tiny_model(layout)
    erasure = (
        UCE(variant="official-2024")
        .resolved([concept("church"), concept("nudity")])
        .erase(model, [concept("church"), concept("nudity")], erase_context())
    )
    church, nudity, blank = (model.embed([text]).embeddings[0].double() for text in ("church", "nudity", ""))
    keys = torch.stack([church[1], nudity[len("nudity")]])
    check_least_squares(model, erasure.weights, keys, blank[[0, 0]], keys[:0], 1.0)


def check_least_squares(
    model: DiffusionModel, weights: Any, keys: Tensor, guides: Tensor, kept: Tensor, preserve_scale: float
) -> None:
    assert set(weights) == {f"unet.{name}" for name in select_parameters(model.unet, "xattn-kv")}
    for name, new in weights.items():
        old = model.parameters()[name].detach().double()
        rows = torch.cat([0.5**0.5 * torch.eye(old.shape[1]).double(), keys, preserve_scale**0.5 * kept])
        wanted = torch.cat([0.5**0.5 * old.T, guides @ old.T, preserve_scale**0.5 * kept @ old.T])
        expected = torch.linalg.lstsq(rows, wanted).solution.T
        torch.testing.assert_close(new, expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_last_tokens_do_not_depend_on_the_padding(layout: Layout) -> None:
    """The letters of a word that the tiny vocabulary lacks are tokens of their own."""
    prompts = ["church", "a church", "nudity", "", " ", "x" * 100]
    assert last_tokens(tiny_model(layout), prompts) == [1, 2, 6, 0, 0, 75]


def test_preserved_words_come_out_as_before_and_the_concept_does_not() -> None:
    model = tiny_model()
    method = UCE(variant="official-2024", preserve="neighbours", preserve_scale=1e6)
    erasure = method.resolved([CHURCH]).erase(model, [CHURCH], erase_context())
    kept = torch.stack([embed(model, ["dog"])[0, 1], embed(model, ["silk"])[0, len("silk")]]).float()
    church, blank = embed(model, ["church"])[0, 1].float(), embed(model, [""])[0, 0].float()
    for name, new in erasure.weights.items():
        old = model.parameters()[name].detach()
        torch.testing.assert_close(kept @ new.T, kept @ old.T, rtol=1e-3, atol=1e-4)
        assert (church @ new.T - blank @ old.T).norm() < 0.5 * (church @ old.T - blank @ old.T).norm()


def test_preserve_scale_is_the_variants() -> None:
    model = tiny_model()
    assert UCE().resolved([CHURCH]).preserve_scale == 1.0
    assert UCE(preserve="neighbours").resolved([CHURCH]).preserve_scale == pytest.approx(1 / 3)
    many = concept("church", neighbours_phrases=tuple(f"dog {k}" for k in range(19)))
    assert UCE(preserve="neighbours").resolved([many]).preserve_scale == 0.1
    assert UCE(preserve="neighbours", preserve_scale=0.7).resolved([CHURCH]).preserve_scale == 0.7
    method = UCE(variant="official-2024").resolved([CHURCH])
    assert (method.embeddings_to_preserve(model, [CHURCH]).shape, method.preserve_scale) == ((0, 16), 1.0)
    method = UCE(variant="official-2024", preserve="neighbours").resolved([CHURCH])
    assert (method.embeddings_to_preserve(model, [CHURCH]).shape, method.preserve_scale) == ((2, 16), 1.0)


def test_tensor_technique_takes_the_concepts_own_direction_out() -> None:
    rng = torch.Generator().manual_seed(0)
    weight, old, guide = (torch.randn(shape, generator=rng).double() for shape in ((5, 7), (3, 7), (3, 7)))
    values = UCE(technique="tensor").values(weight, old, guide)
    own = (old @ weight.T).flatten()
    assert abs(float(values.flatten() @ own)) < 1e-12
    rest = (guide @ weight.T - values).flatten()
    torch.testing.assert_close(rest / rest.norm(), own / own.norm() * torch.sign(rest @ own))
    torch.testing.assert_close(UCE().values(weight, old, guide), guide @ weight.T)


def test_guides_and_templates() -> None:
    style = concept("Van Gogh", kind="style")
    assert UCE().guides([CHURCH, style]) == ("", "art")
    assert UCE(guide="sky").guides([CHURCH, style]) == ("sky", "sky")
    assert UCE().pairs(style, "sky") == [("Van Gogh", "sky")]
    old, new = UCE(expand_prompts=True), UCE(expand_prompts=True, variant="official-2024")
    assert old.pairs(style, "art")[:3] == [
        ("Van Gogh", "art"),
        ("painting by Van Gogh", "art"),
        ("art by Van Gogh", "art"),
    ]
    assert new.pairs(style, "art")[1] == ("painting by Van Gogh", "painting by art")
    assert new.pairs(CHURCH, "")[5] == ("painting of church", "painting of ")
    assert len(old.pairs(CHURCH, "")) == len(new.pairs(style, "art")) == 6


@pytest.mark.parametrize("guide", ["sky, art", ("sky", "art"), {"church": "sky", "dog": "art"}])
def test_each_concept_may_have_a_guide_of_its_own(guide: Any) -> None:
    assert UCE(guide=guide).guides([CHURCH, concept("dog")]) == ("sky", "art")


def test_guides_that_do_not_fit_the_concepts() -> None:
    dog = concept("dog")
    assert UCE(guide="a house, a tree").guides([CHURCH]) == ("a house, a tree",)
    assert UCE(guide={"dog": "art", "lamp": "sky"}).guides([CHURCH, dog]) == ("", "art")
    assert UCE(guide=("sky",)).guides([CHURCH, dog]) == ("sky", "sky")
    with pytest.raises(NotApplicable, match=r"^guide has 3 texts for 2 concepts: give one, or one each$"):
        UCE(guide="sky, art, sea").resolved([CHURCH, dog])
    with pytest.raises(NotApplicable, match=r"^'dog' would be mapped to 'church', which is to be erased$"):
        UCE(guide="sky, church").resolved([CHURCH, dog]).check("photo", [CHURCH, dog])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_concepts_with_guides_solve_one_stacked_problem(layout: Layout) -> None:
    model = tiny_model(layout)
    method = UCE(variant="official-2024", guide="art, church dog")
    erasure = method.resolved([CHURCH, concept("dog")]).erase(model, [CHURCH, concept("dog")], erase_context())
    church, dog, art, both = (
        model.embed([text]).embeddings[0].double() for text in ("church", "dog", "art", "church dog")
    )
    keys, guides = torch.stack([church[1], dog[1]]), torch.stack([art[1], both[2]])
    check_least_squares(model, erasure.weights, keys, guides, keys[:0], 1.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_model_is_left_as_it_was_and_the_seed_does_not_matter(layout: Layout, variant: Any) -> None:
    model = tiny_model(layout)
    before = state(model)
    first = UCE(variant=variant).resolved([CHURCH]).erase(model, [CHURCH], erase_context(0))
    assert not differing(before, state(model))
    assert not differing(
        first.weights, UCE(variant=variant).resolved([CHURCH]).erase(model, [CHURCH], erase_context(1)).weights
    )
    with model.erased(first):
        assert differing(before, state(model)) == set(first.weights)
    assert not differing(before, state(model))


def test_registered_with_the_papers_defaults() -> None:
    plugin = METHODS.get("uce")
    assert plugin.make(**plugin.presets) == UCE("paper", lamb=0.5, erase_scale=1.0)


def test_a_lamb_of_nothing_is_refused() -> None:
    with pytest.raises(EraseBenchError, match="lamb: Input should be greater than 0, not 0"):
        UCE(lamb=0)
