"""How often the controls look, when they stop and what they return, on planted weaknesses and on scripted scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from erasebench.adversarial import AdversarialPrompt
from erasebench.attacks.controls import RandomPrefix, SeedSearch, Synonyms, Unchanged, reworded
from erasebench.concepts import Prompt
from erasebench.errors import NotApplicable
from erasebench.models.erasure import Erasure
from erasebench.plugins import Attack
from erasebench.sampling import Sampler
from erasebench.training.target import Looks, Target
from erasebench.training.token_ids import ordinary_ids
from tests.attacks.planted import PROMPTS, SECRET, THRESHOLD, as_prompts, attack_context, planted_target, secret_id
from tests.tiny import concept, tiny_model

SYNONYMS = ("art", "dog", "lighthouse of worship")
CHURCH = concept("church", synonyms=SYNONYMS)
CONFIRMING = range(3_100_000_000, 3_100_000_003)


class Scripted(Target):
    """A target whose scores are written down: ``score(row, prompt, number of the look at this row)``."""

    score: Callable[[int, AdversarialPrompt, int], float]
    seen: list[list[tuple[int, AdversarialPrompt]]]

    def look(
        self, rows: Sequence[int], prompts: Sequence[AdversarialPrompt], seeds: Sequence[int] | None = None
    ) -> Looks:
        assert seeds is None
        self.seen.append(list(zip(rows, prompts, strict=True)))
        scores = []
        for row, prompt in self.seen[-1]:
            self.looks[row] += 1
            scores.append(self.score(row, prompt, self.looks[row]))
        return Looks(np.zeros((len(rows), 1, 1, 3), np.uint8), np.array(scores, np.float32))


def scripted(prompts: Sequence[Prompt], score: Callable[[int, AdversarialPrompt, int], float]) -> Scripted:
    def never(*args: Any) -> Any:
        raise AssertionError("an image was drawn")

    target = Scripted(tiny_model(), Erasure(), CHURCH, prompts, Sampler(), never, THRESHOLD)
    target.score, target.seen = score, []
    return target


def looked_at(target: Scripted, row: int) -> list[AdversarialPrompt]:
    return [prompt for draw in target.seen for k, prompt in draw if k == row]


def controls() -> list[Attack]:
    """Each with few draws, which stop early."""
    made = SeedSearch(draws=6, early_stop=True), RandomPrefix(draws=6), Synonyms(early_stop=True)
    return [attack.resolved([CHURCH]) for attack in made]


@pytest.mark.parametrize("attack", controls(), ids=lambda attack: type(attack).__name__)
def test_fallen_prompts_leave_and_the_others_go_on(attack: Attack) -> None:
    """Of four prompts the first falls at the second look, the second at the first, the others never."""
    falls = {0: 2, 1: 1}
    draws = getattr(attack, "draws", len(SYNONYMS))
    texts = ["a church", "church", "old church", "new church"]
    target = scripted(as_prompts(texts), lambda row, prompt, look: 0.9 if falls.get(row) == look else look / 100)
    progress: list[tuple[int, int, Any]] = []
    found = attack.attack(target, attack_context(progress=lambda *told: progress.append(told)))
    assert target.looks == [2, 1, draws, draws] == [one.steps for one in found]
    assert [one.first_success for one in found] == [2, 1, None, None]
    # All that still stand are looked at together.
    assert [[row for row, _ in draw] for draw in target.seen] == [[0, 1, 2, 3], [0, 2, 3], *[[2, 3]] * (draws - 2)]
    assert [told[:2] for told in progress] == [(k, draws) for k in range(1, draws + 1)]
    for row, one in enumerate(found):
        # The last look was the best, for those that fell and for the others.  It is the very object, so that it need
        # not be drawn again.
        assert one.prompt is looked_at(target, row)[-1]


@pytest.mark.parametrize("attack", [SeedSearch(draws=5), RandomPrefix(draws=5, tokens=2, early_stop=False)])
def test_the_best_of_all_is_returned_and_all_are_counted(attack: Attack) -> None:
    """The first prompt never falls, the second falls twice, and best the second time."""
    scores = [[0.1, 0.4, 0.2, 0.4, 0.3], [0.0, 0.6, 0.2, 0.8, 0.1]]
    target = scripted(as_prompts(["a church", "church"]), lambda row, prompt, look: scores[row][look - 1])
    found = attack.attack(target, attack_context())
    assert [one.first_success for one in found] == [None, 2]
    assert [one.steps for one in found] == [5, 5] == target.looks
    assert found[0].prompt is looked_at(target, 0)[1]
    assert found[1].prompt is looked_at(target, 1)[3]
    assert [one.note for one in found] == [f"the concept is there in {n} of 5 images" for n in (0, 2)]


def test_seeds_are_others_than_the_prompt_has_and_is_confirmed_with() -> None:
    own = (0, 7, 1234567890, 4_294_967_295)
    prompts = [Prompt("church", "a church", seed, "naming") for seed in own]
    target = scripted(prompts, lambda row, prompt, look: 0.0)
    found = SeedSearch().attack(target, attack_context())
    for row, seed in enumerate(own):
        drawn = [prompt.seed for prompt in looked_at(target, row)]
        assert len(set(drawn)) == 40 and not set(drawn) & {seed, *(seed + fresh for fresh in CONFIRMING)}
        assert {prompt.text for prompt in looked_at(target, row)} == {"a church"}
    assert all(one.prompt.seed is not None for one in found)


@pytest.mark.parametrize(("kind", "tokens"), [("object", 3), ("style", 3), ("explicit", 5), ("violence", 5)])
def test_random_prefixes_are_ordinary_tokens_before_the_prompt(kind: str, tokens: int) -> None:
    target = scripted(as_prompts(["a church", "art"]), lambda row, prompt, look: 0.0)
    tokenizer = target.model.tokenizer
    attack = RandomPrefix().resolved([concept("x", kind)])
    attack.attack(target, attack_context())
    for row, prompt in enumerate(target.prompts):
        drawn = looked_at(target, row)
        assert len(drawn) == 40 and len({one.ids for one in drawn}) > 35
        own = tokenizer(prompt.text, add_special_tokens=False).input_ids
        for one in drawn:
            prefix = one.ids[1 : 1 + tokens]
            assert one.ids == (tokenizer.bos_token_id, *prefix, *own, tokenizer.eos_token_id)
            assert set(prefix) <= set(ordinary_ids(target.model).tolist())
            assert one.text == f"{tokenizer.decode(prefix)} {prompt.text}"
            assert list(one.reread) == tokenizer(one.text).input_ids


def test_a_prompt_at_the_token_limit_says_what_a_prefix_costs_it() -> None:
    whole, longer = " ".join("x" * 72), " ".join("x" * 74)
    target = scripted(as_prompts([whole, longer]), lambda row, prompt, look: 0.0)
    found = RandomPrefix(draws=2, tokens=3).attack(target, attack_context())
    assert [one.note for one in found] == ["", "behind a prefix, the prompt loses its last 2 tokens"]
    end = target.model.tokenizer.eos_token_id
    for one in found:
        assert len(one.prompt.ids) == 77 and one.prompt.ids[-1] == end
        assert len(one.prompt.reread) <= 77 and one.prompt.reread[-1] == end


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("A CHURCH by the sea", ["A chapel by the sea", "A house of worship by the sea"]),
        ("a church near a church", ["a chapel near a chapel", "a house of worship near a house of worship"]),
        ("a chapel, empty", ["a house of worship, empty"]),
        ("a house of worship", ["a chapel"]),
        ("churches", ["chapel, churches", "house of worship, churches"]),
        ("", ["chapel, ", "house of worship, "]),
    ],
)
def test_synonyms_take_the_place_of_the_concepts_words(text: str, texts: list[str]) -> None:
    assert reworded(text, concept("church", synonyms=("chapel", "house of worship"))) == texts


def test_a_prompt_of_the_only_synonym_stays_as_it_is() -> None:
    assert reworded("a chapel", concept("church", synonyms=("chapel",))) == ["a chapel"]
    assert reworded(r"a \1 church", concept("church", synonyms=(r"\1 \g<0>",))) == [r"a \1 \1 \g<0>"]
    longest = concept("springer", synonyms=("springer spaniel", "dog"))
    assert reworded("a springer spaniel", longest) == ["a dog"]


def test_synonyms_are_not_for_concepts_without() -> None:
    Synonyms().check("photo", CHURCH)
    with pytest.raises(NotApplicable, match="car has no synonyms"):
        Synonyms().check("photo", concept("car"))


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_nothing_planted_is_found_but_by_meeting_the_token_itself(part: Any) -> None:
    """Noise does not matter to the planted model, and three draws of three tokens rarely hold the secret."""
    target, fell = planted_target(part=part, unerased=1), list[int]()
    target.concept = CHURCH
    for attack in (Unchanged(), SeedSearch(draws=3), RandomPrefix(draws=3, tokens=3), Synonyms()):
        target.looks, target.passes = [0] * 8, [0] * 8
        found = attack.attack(target, attack_context())
        assert target.looks == [one.steps for one in found]
        assert target.passes == [looks * target.sampler.steps * 2 for looks in target.looks]
        scores = target.look(range(8), [one.prompt for one in found]).scores
        for one, score in zip(found, scores, strict=True):
            assert (one.first_success is not None) == (score >= THRESHOLD) == (secret_id() in one.prompt.reread)
        fell.append(sum(one.first_success is not None for one in found))
    assert fell[:2] == [0, 0] and fell[2] <= 2 and fell[3] == 0


def test_a_planted_synonym_is_found_at_its_turn() -> None:
    target = planted_target(unerased=1)
    target.concept = concept("church", synonyms=("dog", SECRET, "art"))
    every = Synonyms().attack(target, attack_context())
    assert [one.first_success for one in every] == [2] * 8
    # The prompt that is a synonym already has one less.
    assert target.looks == [2 if text == "art" else 3 for text in PROMPTS]
    assert [one.prompt.text for one in every[:2]] == [f"a {SECRET}", f"{SECRET} {SECRET}"]
    first = Synonyms(early_stop=True).attack(replace(target), attack_context())
    assert [one.steps for one in first] == [2] * 8
    assert [one.prompt.text for one in first] == [one.prompt.text for one in every]


@pytest.mark.parametrize("attack", controls(), ids=lambda attack: type(attack).__name__)
def test_a_prompt_finds_the_same_alone_and_among_eight(attack: Attack) -> None:
    """What is found hangs on noise and generators of each prompt, which are its own."""

    def found(prompts: Sequence[Prompt], seed: int = 0) -> list[Any]:
        target = planted_target(prompts, part="unet", unerased=1)
        target.concept = CHURCH
        # Depends on the prompt, the seed and how often this one was looked at, and on no other prompt.
        script = scripted(prompts, lambda row, prompt, look: hash((prompt.ids, prompt.seed or 0, look)) % 1000 / 1200)
        real, faked = attack.attack(target, attack_context(seed)), attack.attack(script, attack_context(seed))
        return list(zip(real, faked, strict=True))

    prompts = as_prompts(PROMPTS)
    together = found(prompts)
    for row in (0, 5):
        assert found([prompts[row]]) == [together[row]]
    if isinstance(attack, RandomPrefix):
        assert found(prompts, 1) != together


def test_an_unchanged_prompt_is_read_as_it_is() -> None:
    target = scripted(as_prompts(["a church"]), lambda row, prompt, look: 0.0)
    (found,) = Unchanged().attack(target, attack_context())
    assert found.prompt == AdversarialPrompt("a church", reread=tuple(target.model.tokenizer("a church").input_ids))
    assert target.seen == [] and found.first_success is None and found.steps == 0
