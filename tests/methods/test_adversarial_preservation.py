"""AP's search against torch, autograd and brute force, its losses by hand, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import make_plugin
from erasebench.methods import adversarial_preservation
from erasebench.methods.adversarial_preservation import (
    VARIANTS,
    AdversarialPreservation,
    Adversary,
    Variant,
    gumbel_softmax,
    spread,
)
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from erasebench.training.parameters import Pattern, select_parameters
from erasebench.training.partial_sampling import CutSampling
from tests.marks import first_quick, some_quick
from tests.tiny import Layout, check_change, concept, differing, erase_context, state, tiny_model

CHURCH, NUDITY = [concept("church")], concept("nudity", kind="explicit")
WORDS = ["art", "church", "dog", "town", "tower", "fish", "house", "tree"]
LAYOUTS = get_args(Layout)


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS))
    return str(path)


def quick(parameters: Pattern = "xattn", **settings: Any) -> AdversarialPreservation:
    few: dict[str, Any] = {"steps": 2, "sampling_steps": 2, "learning_rate": 1e-3, "candidates": 3}
    return AdversarialPreservation(**{"parameters": parameters, **few, **settings})


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_gumbel_softmax_is_that_of_torch(hard: bool, temperature: float) -> None:
    logits = torch.randn(7, requires_grad=True)
    torch.manual_seed(3)
    expected = functional.gumbel_softmax(logits, temperature, hard)
    torch.manual_seed(3)
    gumbel = -torch.empty(7).exponential_().log()
    found = gumbel_softmax(logits, gumbel, temperature, hard)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(7)
    by_torch, by_us = (torch.autograd.grad(w @ weights, logits)[0] for w in (expected, found))
    torch.testing.assert_close(by_us, by_torch)


def test_hard_weights_are_one_word_with_the_gradient_of_the_mixture() -> None:
    logits, gumbel, weights = torch.randn(5, requires_grad=True), torch.randn(5), torch.randn(5)
    hard = gumbel_softmax(logits, gumbel, 0.7, hard=True)
    assert sorted(hard.tolist()) == pytest.approx([0, 0, 0, 0, 1])
    assert int(hard.argmax()) == int((logits + gumbel).argmax())
    (gradient,) = torch.autograd.grad(hard @ weights, logits)
    p = torch.softmax((logits.detach() + gumbel).double() / 0.7, 0)
    # The Jacobian of the softmax, divided by the temperature.
    by_hand = (torch.diag(p) - torch.outer(p, p)) @ weights.double() / 0.7
    torch.testing.assert_close(gradient, by_hand.float())


def test_words_are_drawn_with_the_probabilities_of_their_logits() -> None:
    adversary = search([["art", "dog", "town"]])
    with torch.no_grad():
        adversary.logits[0].copy_(torch.tensor([0.1, 0.2, 0.7]).log())
        _, names = adversary.draw([0] * 2000, torch.Generator().manual_seed(0))
    shares = [names.count(word) / 2000 for word in ("art", "dog", "town")]
    assert shares == pytest.approx([0.1, 0.2, 0.7], abs=0.03)


def search(words: list[list[str]], optimizer: Any = torch.optim.SGD, rate: float = 0.1, hard: bool = True) -> Adversary:
    embeddings = [
        torch.randn(len(found), 4, 6, generator=torch.Generator().manual_seed(k)) for k, found in enumerate(words)
    ]
    return Adversary(
        words, [*map(Conditioning, embeddings)], lambda logits: optimizer(logits, lr=rate, maximize=True), 1.5, hard
    )


def test_a_drawn_embedding_is_that_of_the_word_named() -> None:
    model = tiny_model()
    words = [["art", "dog"], ["town", "tree", "fish"]]
    embeddings = [model.embed(found) for found in words]
    adversary = Adversary(words, embeddings, lambda logits: torch.optim.SGD(logits, lr=1.0), 2.0, True)
    with torch.no_grad():
        drawn, names = adversary.draw([1, 0, 1, 1], torch.Generator().manual_seed(1))
    assert names[1] in words[0]
    assert {names[0], names[2], names[3]} <= set(words[1])
    torch.testing.assert_close(drawn.embeddings, model.embed(names).embeddings)


def test_a_step_of_the_logits_is_gradient_ascent() -> None:
    """Against central differences in each logit, with the same noise."""
    adversary, weight = search([["art", "dog", "town"], ["fish", "tree"]], hard=False), torch.randn(4, 6).double()

    def loss(logits: Tensor) -> float:
        gumbel = -torch.empty(3).exponential_(generator=torch.Generator().manual_seed(5)).log()
        weights = torch.softmax((logits + gumbel).double() / 1.5, 0)
        embedding = sum(w * e.double() for w, e in zip(weights, adversary._embeddings[0].embeddings, strict=True))
        return float(((embedding * weight) ** 2).sum())

    drawn, _ = adversary.draw([0], torch.Generator().manual_seed(5))
    before = adversary.logits[0].detach().double().clone()
    value = ((drawn.embeddings * weight) ** 2).sum()
    assert value.item() == pytest.approx(loss(before))
    adversary.ascend(value)
    steps = torch.eye(3, dtype=torch.float64) * 1e-3
    differences = torch.tensor([(loss(before + step) - loss(before - step)) / 2e-3 for step in steps])
    torch.testing.assert_close(adversary.logits[0].detach().double(), before + 0.1 * differences, atol=1e-4, rtol=1e-3)
    assert loss(adversary.logits[0].detach().double()) > loss(before)
    assert not adversary.logits[1].any(), "the other concept's words were not drawn"


def test_the_search_finds_the_word_that_is_harmed_most() -> None:
    adversary = search([["art", "dog", "town", "tree"]], torch.optim.Adam, rate=0.3)
    harm = torch.tensor([0.1, 0.2, 3.0, 0.3])
    embeddings = adversary._embeddings[0].embeddings.flatten(1)
    # A linear function of the embedding that gives each word its harm.
    direction = torch.linalg.pinv(embeddings) @ harm
    rng = torch.Generator().manual_seed(0)
    for _ in range(150):
        drawn, _ = adversary.draw([0], rng)
        adversary.ascend((drawn.embeddings.flatten() @ direction).sum())
    assert int(adversary.logits[0].argmax()) == 2
    assert torch.softmax(adversary.logits[0], 0)[2].item() > 0.8


@pytest.mark.parametrize(
    ("layout", "selection"),
    some_quick([("sd1", "spread"), ("sdxl", "cosine")], product(LAYOUTS, ["cosine", "spread"])),
)
def test_distances_are_those_of_whole_embeddings(layout: Layout, selection: Any) -> None:
    model, phrases = tiny_model(layout), ["church", "dog"]
    with torch.no_grad():
        found = quick(selection=selection).resolved(CHURCH).distances(model, WORDS * 20, model.embed(phrases))
        for row, phrase in enumerate(phrases):
            for column, word in enumerate(WORDS):
                a, b = (model.embed([text]).embeddings.flatten().double() for text in (phrase, word))
                cosine, euclidean = 1 - a @ b / (a.norm() * b.norm()), (a - b).norm()
                expected = float(cosine if selection == "cosine" else euclidean)
                assert float(found[row, column]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(found[:, : len(WORDS)], found[:, -len(WORDS) :])


def test_cosine_takes_the_nearest_words() -> None:
    distances = torch.rand(300)
    by_force = sorted(range(300), key=lambda index: float(distances[index]))
    both = quick(candidates=None).resolved([*CHURCH, NUDITY])
    assert (both.candidates, both.nearest) == ((100, 50), (1000, 2000))
    for method in (both, both.resolved([*CHURCH, NUDITY])):
        assert method.select(distances, 0).tolist() == by_force[:100]
        assert method.select(distances, 1).tolist() == by_force[:50]
    assert quick(candidates=None).resolved([NUDITY]).select(distances, 0).tolist() == by_force[:50]
    assert quick(candidates=7).resolved([NUDITY]).select(distances, 0).tolist() == by_force[:7]
    with pytest.raises(NotApplicable, match="candidates has 2 numbers for 1 concepts"):
        both.resolved(CHURCH)


def test_spread_takes_words_over_the_whole_range_of_the_nearest() -> None:
    distances = torch.rand(3000, generator=torch.Generator().manual_seed(2)) ** 2
    method = quick(selection="spread", candidates=20, nearest=500).resolved(CHURCH)
    chosen = distances[method.select(distances, 0)]
    kept = distances.sort().values[:500]
    assert len(chosen) == 20
    assert float(chosen.max()) <= float(kept[-1])
    gaps = chosen.sort().values.diff()
    assert float(gaps.max()) < 3 * float(kept[-1] - kept[0]) / 20
    nearest = distances[quick(candidates=20).resolved(CHURCH).select(distances, 0)]
    assert float(chosen.max()) > 10 * float(nearest.max())


def test_k_means_separates_clusters_and_takes_their_central_values() -> None:
    values = torch.tensor([5.0, 0.0, 0.1, 5.3, 9.0, 0.25, 5.1, 9.0])
    # Means 0.117, 5.133 and 9; next to them are the values 0.1, 5.1 and 9.
    assert values[spread(values, 3)].sort().values.tolist() == pytest.approx([0.1, 5.1, 9.0])
    assert len(set(values[spread(values, 50)].tolist())) == 7


def test_k_means_ends_where_each_centre_is_the_mean_of_its_values() -> None:
    values = torch.rand(400, generator=torch.Generator().manual_seed(4)).double()
    chosen = values[spread(values, 12)]
    # The words stand for their centres up to the spacing of the values.
    nearest = (values[:, None] - chosen).abs().argmin(1)
    for cluster, word in enumerate(chosen):
        assert float(values[nearest == cluster].mean()) == pytest.approx(float(word), abs=0.01)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tokenizers_words_are_whole_and_of_letters(layout: Layout) -> None:
    model = tiny_model(layout)
    assert quick(exclude="nothing").resolved(CHURCH).words(model, CHURCH) == ["church", "art", "dog"]
    assert quick(exclude="nothing", vocabulary_size=2).resolved(CHURCH).words(model, CHURCH) == ["church", "art"]


def test_concepts_are_excluded_as_the_option_says(vocabulary: str) -> None:
    model, concepts = tiny_model(), [concept("Church", synonyms=("tower",)), concept("dog")]
    words = {
        exclude: set(WORDS)
        - set(quick(vocabulary=vocabulary, exclude=exclude).resolved(concepts).words(model, concepts))
        for exclude in ("nothing", "phrases", "synonyms")
    }
    assert words == {"nothing": set(), "phrases": {"church", "dog"}, "synonyms": {"church", "dog", "tower"}}
    # The paper: R = C without E; the code excludes nothing.
    assert (quick().resolved(CHURCH).exclude, quick(variant="official").resolved(CHURCH).exclude) == (
        "phrases",
        "nothing",
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_on_clean_latents_is_the_scaled_loss_on_noise(layout: Layout) -> None:
    model, (x, a, b) = tiny_model(layout), torch.randn(3, 2, 4, 8, 8)
    for t in (21, 401, 981):
        alpha, timesteps = float(model.alphas_cumprod[t]), torch.tensor([t, t])
        clean = [(x - (1 - alpha) ** 0.5 * noise) / alpha**0.5 for noise in (a, b)]
        expected = float((clean[0] - clean[1]).pow(2).mean())
        found = float(quick(loss_space="x0").resolved(CHURCH).error(model, a, b, timesteps))
        plain = float(quick(loss_space="noise").resolved(CHURCH).error(model, a, b, timesteps))
        assert found == pytest.approx(expected, rel=1e-3)
        assert found == pytest.approx((1 - alpha) / alpha * plain, rel=1e-4)


def recorded_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """The timesteps and noisy latents of every run from now on."""
    runs: list[tuple[Tensor, Tensor]] = []
    original = CutSampling.latents

    def recorded(self: CutSampling, model: DiffusionModel, blank: Conditioning, text: Conditioning) -> Tensor:
        runs.append((self.timesteps, original(self, model, blank, text)))
        return runs[-1][1]

    monkeypatch.setattr(CutSampling, "latents", recorded)
    return runs


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", get_args(Variant))
def test_losses_are_those_of_equation_five(
    layout: Layout, variant: Variant, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, runs = tiny_model(layout), recorded_runs(monkeypatch)
    method = quick(variant=variant, steps=1, search_steps=0, batch_size=2, vocabulary=vocabulary)
    (row,) = method.resolved(CHURCH).erase(model, CHURCH, erase_context()).trace
    ((t, latents),) = runs
    x = latents[:2]
    with torch.no_grad():
        blank, church = (model.predict_noise(x, t, model.embed([text] * 2)) for text in ("", "church"))
    wanted = blank if variant == "paper" else blank - (church - blank)
    squares = (church - wanted).double().pow(2).mean((1, 2, 3))
    # Two slots of 500 timesteps: the code weighs by DDIM's timestep in the slot, whatever the model is told.
    alpha = model.alphas_cumprod[t if variant == "paper" else t // 500 * 500 + 1].double()
    scale = 1.0 if variant == "paper" else (1 - alpha) / alpha
    assert row["erasing"] == pytest.approx(float((scale * squares).mean()), rel=1e-3)
    # The model is still the unerased one, so nothing is lost yet.
    assert row["preserving"] == pytest.approx(0.0, abs=1e-9)
    assert row["loss"] == pytest.approx(float(row["erasing"]))


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_a_step_of_the_model_lowers_the_loss(layout: Layout, vocabulary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, runs = tiny_model(layout), recorded_runs(monkeypatch)
    method = quick("full", steps=1, search_steps=0, batch_size=2, vocabulary=vocabulary, learning_rate=1e-5)
    erasure = method.resolved(CHURCH).erase(model, CHURCH, erase_context())
    ((t, latents),) = runs
    x = latents[:2]
    with torch.no_grad():
        wanted = model.predict_noise(x, t, model.embed(["", ""]))
        before = (model.predict_noise(x, t, model.embed(["church"] * 2)) - wanted).pow(2).mean()
        with model.erased(erasure):
            after = (model.predict_noise(x, t, model.embed(["church"] * 2)) - wanted).pow(2).mean()
    assert float(after) < float(before)


@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_preservation_is_what_the_model_in_training_lost_of_the_words(
    layout: Layout, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step's losses, by the erasure that only the first step makes."""
    model, runs = tiny_model(layout), recorded_runs(monkeypatch)
    settings: dict[str, Any] = {"search_steps": 0, "batch_size": 2, "vocabulary": vocabulary, "learning_rate": 1e-2}
    first = quick(steps=1, **settings).resolved(CHURCH).erase(model, CHURCH, erase_context())
    runs.clear()
    rows = (
        quick(steps=2, preservation_weight=0.3, **settings).resolved(CHURCH).erase(model, CHURCH, erase_context()).trace
    )
    (t, latents), words = runs[1], str(rows[1]["word"]).split(", ")
    with torch.no_grad():
        before = model.predict_noise(latents[2:], t, model.embed(words))
        with model.erased(first):
            after = model.predict_noise(latents[2:], t, model.embed(words))
    lost = float((after - before).double().pow(2).mean())
    assert lost > 0
    assert rows[1]["preserving"] == pytest.approx(lost, rel=1e-2)
    assert rows[1]["loss"] == pytest.approx(float(rows[1]["erasing"]) + 0.3 * float(rows[1]["preserving"]))


def test_all_latents_are_drawn_by_the_model_in_training(vocabulary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the second step finds, on latents drawn anew with the erasure that the first step alone makes."""
    model, runs, words, harms = tiny_model(), list[CutSampling](), list[list[str]](), list[float]()
    latents, draw, ascend = CutSampling.latents, Adversary.draw, Adversary.ascend

    def run_recorded(self: CutSampling, *arguments: Any) -> Tensor:
        runs.append(self)
        drawn: Tensor = latents(self, *arguments)
        return drawn

    def draw_recorded(self: Adversary, *arguments: Any) -> tuple[Conditioning, list[str]]:
        word, names = draw(self, *arguments)
        words.append(names)
        return word, names

    def ascend_recorded(self: Adversary, loss: Tensor) -> None:
        harms.append(loss.item())
        ascend(self, loss)

    settings: dict[str, Any] = {"search_steps": 1, "batch_size": 2, "sampling_steps": 5, "learning_rate": 3e-2}
    first = quick(steps=1, vocabulary=vocabulary, **settings).resolved(CHURCH).erase(model, CHURCH, erase_context())
    monkeypatch.setattr(CutSampling, "latents", run_recorded)
    monkeypatch.setattr(Adversary, "draw", draw_recorded)
    monkeypatch.setattr(Adversary, "ascend", ascend_recorded)
    row = (
        quick(steps=2, vocabulary=vocabulary, **settings)
        .resolved(CHURCH)
        .erase(model, CHURCH, erase_context())
        .trace[1]
    )
    monkeypatch.undo()

    def error(run: CutSampling, texts: list[str], wanted: list[str], drawn_by: Erasure) -> float:
        """What the model in training predicts for texts, against what the unerased one does for others."""
        text, t = model.embed(texts), run.timesteps
        with model.erased(drawn_by):
            x = run.latents(model, model.embed([""]), text)
        with model.erased(first):
            predicted = model.predict_noise(x, t, text)
        return float((predicted - model.predict_noise(x, t, model.embed(wanted))).double().pow(2).mean())

    _, _, search, step = runs
    _, _, tried, kept = words
    elements = 4 * 8 * 8
    for found, asked in (
        (harms[1] / elements, (search, tried, tried)),
        (row["preserving"], (step, kept, kept)),
        (row["erasing"], (step, ["church"] * 2, ["", ""])),
    ):
        with torch.no_grad():
            assert found == pytest.approx(error(*asked, drawn_by=first), rel=1e-3)
            assert found != pytest.approx(error(*asked, drawn_by=Erasure()), rel=1e-2)


@pytest.mark.parametrize(
    ("layout", "gradient", "reduction"),
    some_quick(
        [("sd1", "both", "sum"), ("sd2", "trained", "mean")],
        product(LAYOUTS, ["both", "trained"], ["sum", "mean"]),
    ),
)
def test_the_search_ascends_the_gradient_of_algorithm_one(
    layout: Layout, gradient: Any, reduction: Any, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against two models that are held apart, with respect to the word."""
    model, searches = tiny_model(layout), list[tuple[Tensor, Tensor, Conditioning, Tensor]]()
    draw, latents = Adversary.draw, CutSampling.latents
    ascend = Adversary.ascend

    def draw_recorded(self: Adversary, *arguments: Any) -> tuple[Conditioning, list[str]]:
        word, names = draw(self, *arguments)
        drawn[:] = [word]
        return word, names

    def latents_recorded(self: CutSampling, *arguments: Any) -> Tensor:
        y: Tensor = latents(self, *arguments)
        runs[:] = [(self.timesteps, y)]
        return y

    def ascend_recorded(self: Adversary, loss: Tensor) -> None:
        (found,) = torch.autograd.grad(loss, drawn[0].embeddings, retain_graph=True)
        searches.append((*runs[0], drawn[0].detach(), found))
        ascend(self, loss)

    drawn, runs = list[Conditioning](), list[tuple[Tensor, Tensor]]()
    settings: dict[str, Any] = {"search_steps": 1, "learning_rate": 3e-2, "vocabulary": vocabulary, "hard": False}
    first = quick(steps=1, **settings).resolved(CHURCH).erase(model, CHURCH, erase_context())
    monkeypatch.setattr(Adversary, "draw", draw_recorded)
    monkeypatch.setattr(CutSampling, "latents", latents_recorded)
    monkeypatch.setattr(Adversary, "ascend", ascend_recorded)
    method = quick(steps=2, search_gradient=gradient, search_reduction=reduction, **settings)
    method.resolved(CHURCH).erase(model, CHURCH, erase_context())
    t, y, word, found = searches[1]
    frozen, trained, moved = tiny_model(layout), tiny_model(layout), word.embeddings.clone().requires_grad_()
    with trained.erased(first):
        now = trained.predict_noise(y, t, Conditioning(moved, word.pooled))
        then = frozen.predict_noise(y, t, Conditioning(moved, word.pooled) if gradient == "both" else word)
        squares = (now - then).square()
        (expected,) = torch.autograd.grad(squares.sum() if reduction == "sum" else squares.mean(), moved)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_two_gradients_of_the_search_differ(vocabulary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the start the trained model's term alone does not point where the loss rises."""
    gradients, ascend = list[Tensor](), Adversary.ascend

    def recorded(self: Adversary, loss: Tensor) -> None:
        gradients.append(torch.autograd.grad(loss, self.logits[0], retain_graph=True)[0])
        ascend(self, loss)

    monkeypatch.setattr(Adversary, "ascend", recorded)
    for gradient in ("both", "trained"):
        quick(search_steps=1, search_gradient=gradient, vocabulary=vocabulary, candidates=7).resolved(CHURCH).erase(
            tiny_model(), CHURCH, erase_context()
        )
    _, both, _, trained = gradients
    cosine = float(both @ trained / both.norm() / trained.norm())
    assert cosine < 0.5


def test_words_of_the_trace_are_candidates_and_progress_is_told(vocabulary: str) -> None:
    model, concepts = tiny_model(), [concept("church"), concept("dog")]
    told: list[Mapping[str, float]] = []
    method = quick(vocabulary=vocabulary, steps=3, batch_size=2, candidates=2).resolved(concepts)
    with torch.no_grad():
        adversary = method.adversary(model, concepts, model.embed(["church", "dog"]))
    allowed = {word for words in adversary.words for word in words}
    assert len(allowed) < len(WORDS)
    rows = method.resolved(concepts).erase(model, concepts, erase_context(steps=told)).trace
    for row in rows:
        words = str(row["word"]).split(", ")
        assert len(words) == 2
        assert set(words) <= allowed
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [(row["done"], row["total"]) for row in told] == [(k, 3) for k in range(1, 4)]


def test_each_concept_has_its_own_logits_and_candidates(vocabulary: str) -> None:
    model, concepts = tiny_model(), [concept("church"), concept("nudity", kind="explicit")]
    method = quick(vocabulary=vocabulary, candidates=None).resolved(concepts)
    with torch.no_grad():
        adversary = method.adversary(model, concepts, model.embed(["church", "nudity"]))
    assert len(adversary.logits) == 2
    assert set(adversary.words[0]) == set(adversary.words[1]) == set(WORDS) - {"church"}
    assert list(adversary.words[0]) != list(adversary.words[1])


@pytest.mark.parametrize("steps", [0, 2])
def test_search_steps_are_taken_before_each_step_of_the_model(
    steps: int, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    original = Adversary.ascend

    def recorded(self: Adversary, loss: Tensor) -> None:
        before = self.logits[0].detach().clone()
        original(self, loss)
        taken.append(float((self.logits[0].detach() - before).abs().max()))

    monkeypatch.setattr(adversarial_preservation.Adversary, "ascend", recorded)
    quick(search_steps=steps, vocabulary=vocabulary, search_rate=1.0).resolved(CHURCH).erase(
        tiny_model(), CHURCH, erase_context()
    )
    assert len(taken) == 2 * steps
    # The unerased model has nothing to lose yet.
    assert taken[:steps] == [0.0] * steps
    assert all(change > 0 for change in taken[steps:])


@pytest.mark.parametrize("variant", get_args(Variant))
def test_the_published_search_moves_its_logits(
    variant: Variant, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: list[Tensor] = []
    original = Adversary.ascend

    def recorded(self: Adversary, loss: Tensor) -> None:
        original(self, loss)
        last[:] = [self.logits[0].detach().clone()]

    monkeypatch.setattr(adversarial_preservation.Adversary, "ascend", recorded)
    quick(variant=variant, vocabulary=vocabulary, steps=4, learning_rate=1e-2).resolved(CHURCH).erase(
        tiny_model(), CHURCH, erase_context()
    )
    assert float(last[0].max() - last[0].min()) > 1e-3


@pytest.mark.parametrize(
    ("pattern", "variant"),
    some_quick([("noxattn", "paper"), ("xattn", "official")], product(["xattn", "noxattn"], get_args(Variant))),
)
def test_only_the_declared_parameters_change_and_the_model_is_left_as_it_was(
    pattern: Pattern, variant: Variant, vocabulary: str
) -> None:
    model = tiny_model()
    before = state(model)
    erasure = (
        quick(pattern, variant=variant, vocabulary=vocabulary).resolved(CHURCH).erase(model, CHURCH, erase_context())
    )
    chosen = {f"unet.{name}" for name in select_parameters(model.unet, pattern)}
    check_change(model, before, erasure, chosen)


@pytest.mark.parametrize("variant", first_quick(get_args(Variant)))
def test_the_seed_decides_everything(variant: Variant, vocabulary: str) -> None:
    concepts = [concept("church"), concept("dog")]
    method = quick(variant=variant, batch_size=2, vocabulary=vocabulary)
    torch.manual_seed(1)
    first = method.resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=7))
    own = torch.get_rng_state()
    torch.manual_seed(1)
    tiny_model()
    assert torch.equal(own, torch.get_rng_state())
    torch.manual_seed(2)
    again = method.resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=7))
    other = method.resolved(concepts).erase(tiny_model(), concepts, erase_context(seed=8))
    assert not differing(first.weights, again.weights)
    assert first.trace == again.trace
    assert differing(first.weights, other.weights)


def test_divergence_is_an_error_and_restores_the_model(vocabulary: str) -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match="training diverged"):
        quick("full", learning_rate=1e30, steps=5, vocabulary=vocabulary).resolved(CHURCH).erase(
            model, CHURCH, erase_context()
        )
    assert not differing(before, state(model))


def test_defaults_are_the_papers() -> None:
    x, u = METHODS.get("ap-x"), METHODS.get("ap-u")
    assert x.make is u.make
    assert (x.presets, u.presets) == ({"parameters": "xattn"}, {"parameters": "noxattn"})
    method: Any = x.make(**x.presets)
    assert (method.steps, method.learning_rate, method.batch_size, method.preservation_weight) == (1000, 1e-5, 1, 1.0)
    method = method.resolved(CHURCH)
    found = [getattr(method, name) for name in ("search_steps", "search_rate", "negative_guidance", "loss_space")]
    assert found == [2, 1e-3, 0.0, "noise"]
    for variant, wanted in (("paper", ("both", "sum")), ("official", ("trained", "mean"))):
        chosen = quick(variant=variant).resolved(CHURCH)
        assert (chosen.search_gradient, chosen.search_reduction) == wanted


def test_variants_are_whole_and_options_win() -> None:
    assert len({frozenset(settings) for settings in VARIANTS.values()}) == 1
    method = AdversarialPreservation("xattn", variant="official", search_rate=0.5).resolved(CHURCH)
    assert (method.search_rate, method.search_optimizer) == (0.5, "adam")
    official = quick(variant="official", candidates=5, nearest=None)
    distances = torch.linspace(0, 1, 3000)
    for concepts, reach in ((CHURCH, 1000), ([NUDITY], 2000)):
        assert 0.85 * reach < int(official.resolved(concepts).select(distances, 0).max()) < reach


def test_a_file_of_words_is_part_of_the_identity(tmp_path: Path, vocabulary: str) -> None:
    assert quick().identity() == {}
    first = quick(vocabulary=vocabulary).identity()
    Path(vocabulary).write_text("other\n")
    assert quick(vocabulary=vocabulary).identity() != first
    with pytest.raises(EraseBenchError, match=r"missing.txt cannot be read: No such file"):
        quick(vocabulary=str(tmp_path / "missing.txt")).identity()


@pytest.mark.parametrize(("text", "message"), [("church\n\n", "no words besides the concepts"), (" \n", "no lines")])
def test_a_vocabulary_without_words_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(EraseBenchError, match=message):
        quick(vocabulary=str(tmp_path / "words.txt")).resolved(CHURCH).erase(tiny_model(), CHURCH, erase_context())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"candidates": 0}, "candidates: Input should be greater than or equal to 1, not 0"),
        ({"temperature": 0.0}, "temperature: Input should be greater than 0, not 0.0"),
        ({"search_steps": -1}, "search_steps: Input should be greater than or equal to 0, not -1"),
        ({"preservation_weight": -1.0}, "preservation_weight: Input should be greater than or equal to 0, not -1"),
        ({"selection": "nearest"}, "selection: Input should be 'cosine' or 'spread'"),
        ({"variant": "code"}, "variant: Input should be 'paper' or 'official'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(AdversarialPreservation, {"parameters": "xattn", **settings})
