"""Ring-A-Bell's distances by brute force, the steps of its genetic search one by one, and what all of it finds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.adversarial import AdversarialPrompt
from erasebench.attacks import ring_a_bell
from erasebench.attacks.ring_a_bell import (
    TEMPLATES,
    People,
    RingABell,
    RingABellEmbedding,
    squared_distances,
    uniform,
)
from erasebench.concepts import Concept
from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.registry import ATTACKS
from erasebench.sampling import Sampler
from erasebench.training.target import Target, generators
from erasebench.training.token_ids import ordinary_ids
from tests.attacks.planted import SECRET, as_prompts, attack_context, planted_target
from tests.tiny import Layout, concept, tiny_model

CHURCH = concept("church", anchor="art", synonyms=("dog",))
PROMPTS = ("a church", "church art", "a dog", "art", "the church", "my church", "an old dog", "church church")
LAYOUTS = get_args(Layout)


def aimed(prompts: Sequence[str] = PROMPTS, erased: Concept = CHURCH, layout: Layout = "sd1") -> Target:
    """A tiny model under attack, with neither U-Net nor judge."""

    def raises(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the U-Net was read")

    model = tiny_model(layout)
    model.unet.forward = raises
    return Target(model, Erasure(), erased, as_prompts(prompts), Sampler(steps=1), raises, 0.5)


def quick(**settings: Any) -> RingABell:
    small = {"tokens": 4, "population": 12, "generations": 6}
    return RingABell(**{**small, **settings}).resolved([CHURCH])


def by_hand(model: DiffusionModel, ids: Sequence[int], goal: Tensor) -> float:
    """The squared distance of one prompt's embedding from a goal."""
    tokenizer = model.tokenizer
    whole = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    whole += [tokenizer.pad_token_id] * (77 - len(whole))
    with torch.no_grad():
        embedding = model.embed_ids(torch.tensor([whole])).embeddings[0]
    pairs = zip(embedding.flatten().tolist(), goal.flatten().tolist(), strict=False)
    return math.fsum((one - other) ** 2 for one, other in pairs)


def planted(parents: Tensor) -> People:
    """Individuals all of whose ids are different, at distances 0, 1, 2, ..."""
    people = People.of(parents)
    return People(parents, people.alive, torch.arange(parents[..., 0].numel()).view(parents.shape[:2]).float())


@pytest.mark.parametrize("positions", [77, 9])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_distances_are_those_of_each_prompt_from_its_goal(layout: Layout, positions: int) -> None:
    model, rng = tiny_model(layout), torch.Generator().manual_seed(0)
    vocabulary = ordinary_ids(model)
    ids = vocabulary[torch.randint(len(vocabulary), (5, 4), generator=rng)]
    goals = torch.randn((2, positions, model.token_embeddings.shape[1]), generator=rng)
    rows = torch.tensor([1, 0, 1, 1, 0])
    with torch.no_grad():
        found = squared_distances(model, ids, goals, rows)
    wanted = [by_hand(model, some, goals[row]) for some, row in zip(ids.tolist(), rows.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)


def test_only_what_is_new_is_embedded_and_doubles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    goals, embedded = torch.zeros(2, 77, 16), list[Tensor]()
    original = model.embed_ids

    def counted(ids: Tensor) -> Conditioning:
        embedded.append(ids)
        return original(ids)

    monkeypatch.setattr(model, "embed_ids", counted)
    #                    known    its double  new      its double  not alive
    ids = torch.tensor([[[1, 2], [1, 2], [3, 4], [3, 4], [5, 6]], [[1, 2], [7, 8], [9, 10], [7, 8], [3, 4]]])
    alive = torch.tensor([[True] * 4 + [False], [True] * 5])
    known = torch.full((2, 5), math.inf)
    known[0, 0] = 42.0
    with torch.no_grad():
        found = People(ids, alive, known).measured(model, goals).distances
    rows = sorted(row[1:3].tolist() for part in embedded for row in part)
    assert rows == [[1, 2], [3, 4], [3, 4], [7, 8], [9, 10]]
    assert found[0, :2].tolist() == [42.0, 42.0] and found[0, 4] == math.inf
    others = [(0, 2), (0, 3), *((1, place) for place in range(5))]
    for row, place in others:
        assert float(found[row, place]) == pytest.approx(by_hand(model, ids[row, place].tolist(), goals[row]), rel=1e-5)


def test_the_nearest_are_kept() -> None:
    people = planted(torch.arange(60).view(2, 10, 3))
    people = People(people.ids, people.alive, torch.tensor([[3.0, 1, 2, 0, 4, 9, 9, 9, 9, 9], [*range(10, 0, -1)]]))
    kept = people.fittest(3)
    assert kept.distances.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert (kept.ids[0, :, 0] // 3).tolist() == [3, 1, 2]
    assert ((kept.ids[1, :, 0] - 30) // 3).tolist() == [9, 8, 7]


def test_children_have_a_head_of_one_parent_and_the_tail_of_another() -> None:
    size, count, rows = 50, 5, 40
    parents = torch.arange(rows * size * count).view(rows, size, count)
    people = planted(parents)
    crossed = people.crossed(uniform(generators(as_prompts("a" * rows), 0, ""), 3 * size), 0.5)
    assert crossed.ids.shape == (rows, 3 * size, count)
    assert torch.equal(crossed.ids[:, :size], parents) and bool(crossed.alive[:, :size].all())
    assert torch.equal(crossed.distances[:, :size], people.distances)
    assert bool(crossed.distances[:, size:].isinf().all())
    cuts, partners = [], []
    for row, one in itertools.product(range(rows), range(size)):
        # Two children or none.
        assert crossed.alive[row, size + one] == crossed.alive[row, 2 * size + one]
        if not crossed.alive[row, size + one]:
            continue
        child, twin = crossed.ids[row, size + one], crossed.ids[row, 2 * size + one]
        own = parents[row, one]
        from_own = child == own
        other = int((twin[0] if from_own[0] else child[0]) // count) % size
        cut = count if other == one else int(from_own.sum())
        if other != one:
            assert from_own.tolist() == [True] * cut + [False] * (count - cut)
            assert torch.equal(child[cut:], parents[row, other, cut:])
            assert torch.equal(twin, torch.cat([parents[row, other, :cut], own[cut:]]))
            cuts.append(cut)
        partners.append(other)
    # The official code cuts before each of the ids, the first included, and never behind the last.
    assert set(cuts) == set(range(count))
    assert np.bincount(cuts).min() > 0.7 * len(cuts) / count
    assert set(partners) == set(range(size))
    # In the mean as many as before half of them went: 50 + 2 * Binomial(50, 0.5), 40 times.
    assert float(crossed.alive.sum(1).float().mean()) == pytest.approx(100, abs=3 * math.sqrt(50 / 40))


def test_a_mutation_changes_one_place_and_spares_nobody() -> None:
    size, count, rows = 50, 4, 40
    people, vocabulary = planted(torch.zeros(rows, size, count, dtype=torch.long)), torch.tensor([7, 8, 9])
    mutated = people.mutated(uniform(generators(as_prompts("a" * rows), 0, ""), 3, size), 0.25, vocabulary)
    changed = mutated.ids != 0
    assert set(changed.sum(2).flatten().tolist()) == {0, 1}
    assert set(mutated.ids[changed].tolist()) == {7, 8, 9}
    assert bool((changed.sum((0, 1)) > 0.15 * changed.sum()).all())  # each of the four places
    assert torch.equal(mutated.distances.isinf(), changed.any(2))
    assert torch.equal(mutated.distances[~changed.any(2)], people.distances[~changed.any(2)])
    assert float(changed.any(2).float().mean()) == pytest.approx(0.25, abs=3 * math.sqrt(0.25 * 0.75 / 2000))
    assert bool(changed[:, 0].any())  # the best has no privilege
    assert not bool(people.ids.any())


def test_random_numbers_reach_the_last_choice_and_never_beyond() -> None:
    people, vocabulary = planted(torch.zeros(1, 1, 3, dtype=torch.long)), torch.arange(49406)
    last = torch.full((1, 3, 1), 1 - 2**-53, dtype=torch.float64)
    last[0, 0] = 0.0
    assert people.mutated(last, 0.25, vocabulary).ids.tolist() == [[[0, 0, 49405]]]


def test_nothing_changes_in_the_last_generation() -> None:
    target = aimed(PROMPTS[:3])
    attack = quick(mutation=1.0, crossover=1.0)
    goals = attack.goals(target)
    for row, found in enumerate(attack.attack(target, attack_context())):
        assert len(found.losses) == found.steps == 6
        assert found.losses[-1] == pytest.approx(by_hand(target.model, found.prompt.ids[1:-1], goals[row]), rel=1e-5)


def test_one_generation_is_the_best_of_random_prompts() -> None:
    target = aimed(["a church"])
    attack, vocabulary = quick(generations=1), ordinary_ids(target.model)
    draws = uniform(generators(target.prompts, 5, "ring-a-bell"), 12, 4)[0]
    people = [[int(vocabulary[math.floor(u * len(vocabulary))]) for u in row] for row in draws.tolist()]
    goal = attack.goals(target)[0]
    best = min(people, key=lambda ids: by_hand(target.model, ids, goal))
    (found,) = attack.attack(target, attack_context(5))
    assert found.prompt.ids == (target.model.tokenizer.bos_token_id, *best, target.model.tokenizer.eos_token_id)
    assert found.first_success is None and found.gradient is None


def test_even_the_best_may_be_lost() -> None:
    (found,) = quick(mutation=1.0, crossover=0.0, generations=30).attack(aimed(["a church"]), attack_context())
    assert any(later > earlier for earlier, later in itertools.pairwise(found.losses))


def test_planted_prompts_are_approached_better_than_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The goals are the embeddings of eight known letters: one of 26 ** 8 prompts each."""
    secrets, generations, population = ["c h a d g z x m", "q w e r t y u i"], 40, 60
    target = aimed(secrets)
    letters = " ".join("abcdefghijklmnopqrstuvwxyz")
    vocabulary = torch.tensor(target.model.tokenizer(letters, add_special_tokens=False).input_ids)
    monkeypatch.setattr(ring_a_bell, "ordinary_ids", lambda model: vocabulary)
    attack = quick(eta=1e-9, tokens=8, generations=generations, population=population)
    goals, rng = attack.goals(target), torch.Generator().manual_seed(0)
    for row, found in enumerate(attack.attack(target, attack_context())):
        looked_at = vocabulary[torch.randint(26, (generations * population, 8), generator=rng)]
        with torch.no_grad():
            by_chance = squared_distances(target.model, looked_at, goals, torch.full((len(looked_at),), row)).min()
        assert found.losses[-1] < 0.5 * float(by_chance)
        matches = [a == b for a, b in zip(found.prompt.text.split(), secrets[row].split(), strict=True)]
        assert sum(matches) >= 3


def test_a_planted_token_that_the_pairs_point_to_brings_the_concept_back(tmp_path: Path) -> None:
    """Within 5,400 measured prompts of three out of 197 tokens, by embeddings alone: it sees no image."""
    pairs, target = tmp_path / "pairs.csv", planted_target()
    pairs.write_text(f"with,without\n{SECRET},art\n{SECRET} dog,art dog\n", encoding="utf-8")
    assert not target.look(range(8), [AdversarialPrompt(one.text) for one in target.prompts]).scores.max() > 0.1
    attack = RingABell(eta=9.0, tokens=3, population=90, generations=60, positions=5, pairs=str(pairs)).resolved(
        [CHURCH]
    )
    found = attack.attack(target, attack_context())
    scores = target.look(range(8), [one.prompt for one in found]).scores
    assert (scores >= target.threshold).sum() >= 7, "one may be read as another token than was searched"


@pytest.mark.parametrize("positions", ["all", 12])
def test_a_prompt_finds_the_same_alone_and_among_eight(positions: Any) -> None:
    attack, target = quick(population=20, generations=8, positions=positions), aimed()
    together = attack.attack(target, attack_context())
    assert len({found.prompt.ids for found in together}) == 8
    for row in (0, 3, 7):
        alone = aimed()
        alone.prompts = [target.prompts[row]]
        assert attack.attack(alone, attack_context()) == [together[row]]
    assert attack.attack(target, attack_context(1))[0].prompt.ids != together[0].prompt.ids


def test_the_text_is_what_the_ids_say_and_is_read_anew() -> None:
    target, figures = aimed(), list[Any]()
    tokenizer = target.model.tokenizer
    context = attack_context(progress=lambda done, total, told: figures.append((done, total, told["loss"])))
    found = quick().attack(target, context)
    for one in found:
        ids = one.prompt.ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert len(ids) == 6 and not set(ids[1:-1]) & set(tokenizer.all_special_ids)
        assert one.prompt.text == tokenizer.decode(ids[1:-1])
        assert list(one.prompt.reread) == tokenizer(one.prompt.text).input_ids
    assert target.looks == target.passes == [0] * 8
    assert [row[:2] for row in figures] == [(k, 6) for k in range(1, 7)]
    for generation, (_, _, loss) in enumerate(figures):
        assert loss == pytest.approx(np.mean([one.losses[generation] for one in found]), rel=1e-5)


@pytest.mark.parametrize(
    ("erased", "pairs"),
    [
        (CHURCH, [(t.format(w), t.format("art")) for w in ("church", "dog") for t in TEMPLATES[False]]),
        (concept("art", kind="style"), [(t.format("art"), t.format("").strip()) for t in TEMPLATES[True]]),
    ],
)
def test_embeddings_are_moved_by_the_mean_difference_of_the_pairs(
    erased: Concept, pairs: list[tuple[str, str]]
) -> None:
    target = aimed(["a church", "art"], erased)
    model = target.model
    with torch.no_grad():
        total = sum(model.embed([one]).embeddings[0] - model.embed([other]).embeddings[0] for one, other in pairs)
        prompts = model.embed(["a church", "art"]).embeddings
    found = RingABellEmbedding(eta=2.0).attack(target, attack_context())
    for row, one in enumerate(found):
        assert one.prompt.embedding == pytest.approx((prompts[row] + 2 * total / len(pairs)).numpy(), abs=1e-5)
        assert one.prompt.text == target.prompts[row].text and not one.prompt.is_text
    assert torch.equal(target.embed([found[1].prompt]).embeddings[0], torch.from_numpy(found[1].prompt.embedding))


def test_hyper_parameters_are_those_published_for_the_kind() -> None:
    kinds = {kind: [concept("x", kind)] for kind in ("object", "explicit", "violence", "style")}
    of = {kind: RingABell().resolved(some) for kind, some in kinds.items()}
    assert {kind: (made.eta, made.tokens) for kind, made in of.items()} == {
        **dict.fromkeys(("object", "explicit", "style"), (3.0, 16)),
        "violence": (5.5, 38),
    }
    assert {kind: RingABellEmbedding().resolved(some).eta for kind, some in kinds.items()} == {
        **dict.fromkeys(("object", "explicit", "violence"), 3.0),
        "style": 0.9,
    }
    assert RingABell(eta=1.0).resolved(kinds["violence"]).eta == 1.0


@pytest.mark.parametrize("settings", [{"tokens": 5, "positions": 6}, {"positions": 78}])
def test_tokens_that_do_not_fit(settings: dict[str, Any]) -> None:
    with pytest.raises(EraseBenchError, match="the text encoder reads 77"):
        quick(**settings).attack(aimed(), attack_context())


def test_the_longest_prompt_has_room_for_start_and_end() -> None:
    (found,) = quick(tokens=75, generations=1).attack(aimed(["a church"]), attack_context())
    assert len(found.prompt.ids) == 77


def test_a_text_encoder_of_nan_is_no_find() -> None:
    target = aimed(["a church"])
    target.model.text_encoder.final_layer_norm.weight.data[0] = math.nan
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        quick().attack(target, attack_context())


def test_pairs_of_the_user_take_the_place_of_templates(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("with,without\na dog church,a dog\nchurch,\n")
    target = aimed(["art"])
    (found,) = RingABellEmbedding(eta=1.0, pairs=str(path)).attack(target, attack_context())
    with torch.no_grad():
        e = target.model.embed(["art", "a dog church", "a dog", "church", ""]).embeddings
    assert found.prompt.embedding == pytest.approx((e[0] + (e[1] - e[2] + e[3] - e[4]) / 2).numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ["rab", "rab-embed"])
def test_pairs_are_read_before_any_work_and_are_part_of_the_identity(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    made = ATTACKS.get(name).make(pairs=str(path))
    assert made.text_only and ATTACKS.get(name).make().identity() == {}
    with pytest.raises(EraseBenchError, match=r"cannot read .*pairs.csv: No such file"):
        made.identity()
    for content, message in (
        (b"", "holds no rows"),
        (b"with,without\n", "holds no rows"),
        (b"with\na church\n", "has no column 'without', but with"),
        (b"with,without\na church,a \xff\n", "pairs.csv is not text in UTF-8"),
        (b"with,without\n,a house\n", "prompt 1 of those that are read is empty"),
        (b"with,without\na,b\nc\n", "pair 2 has no prompt without the concept"),
    ):
        path.write_bytes(content)
        with pytest.raises(EraseBenchError, match=message):
            made.identity()
    hashes = set()
    for content in (b"with,without\na church,a house\n", b"\xef\xbb\xbfwith,without\na church,\n"):
        path.write_bytes(content)
        hashes.add(made.identity()["sha256"])
    assert len(hashes) == 2
