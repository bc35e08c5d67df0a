"""P4D on a planted weakness."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.attacks.p4d import P4D, clearest, encode_as_code
from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.plugins import Attack
from erasebench.registry import ATTACKS
from erasebench.training.target import Looks
from tests.attacks.planted import PROMPTS, as_prompts, attack_context, planted_target, secret_id
from tests.marks import first_quick
from tests.tiny import differing, state, tiny_model

NAMES = ("p4d-n", "p4d-k")
LOOK = 4
"""Passes of an image: two steps of the sampler, with the prompt and the blank one."""


def attack(name: str, **options: Any) -> Attack:
    """An attack of 60 steps with a candidate every 15, unless told otherwise, and few free tokens."""
    plugin = ATTACKS.get(name)
    small = {"steps": 60, "look_every": 15, "tokens": 6, "every": 1}
    return make_plugin(plugin.make, {**plugin.presets, **small, **options})


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("name", first_quick(NAMES))
def test_the_secret_is_found_within_60_steps(name: str, variant: str) -> None:
    target = planted_target([text for text in PROMPTS if text != "art"])
    every, before = range(len(target.prompts)), state(target.model)
    plain = target.look(every, [AdversarialPrompt(prompt.text) for prompt in target.prompts])
    assert plain.scores.max() < target.threshold
    results = attack(name, variant=variant).attack(target, attack_context(1))
    assert not differing(before, state(target.model))
    # Vectors that turn away from the secret at first do not come back so soon.
    assert sum(result.first_success is not None for result in results) >= 5
    scores = target.look(every, [result.prompt for result in results]).scores
    for prompt, result, score in zip(target.prompts, results, scores, strict=True):
        shown = result.first_success is not None
        assert result.first_success in (None, *range(15, 61, 15))
        assert (score >= target.threshold) == shown == (secret_id() in result.prompt.reread)
        assert result.steps == len(result.losses) == (60 if variant == "paper" else 45)
        assert result.gradient is not None
        assert result.gradient > 0
        if name == "p4d-n":
            assert len(result.prompt.ids) == 8
        else:
            assert own_tokens(result.prompt.ids) == target.model.tokenizer(prompt.text).input_ids[1:-1]
    # A candidate before the first step and after each 15; the official code leaves out the last.
    looks = 5 if variant == "paper" else 4
    assert target.looks == [2 + looks] * len(results)
    # The student's pass and the teacher's for each step.
    assert target.passes == [2 * results[0].steps + LOOK * (2 + looks)] * len(results)


def own_tokens(ids: tuple[int, ...]) -> list[int]:
    """The prompt's own tokens among those of P4D-K with a free one before each."""
    return [token for place, token in enumerate(ids[1:-1]) if place % 2]


@pytest.mark.parametrize("name", first_quick(NAMES))
def test_a_prompt_finds_the_same_in_a_batch_of_one_and_of_eight(name: str) -> None:
    whole = attack(name).attack(planted_target(exact=True), attack_context(3))
    alone: list[Found] = []
    few = 3
    for prompt in as_prompts(PROMPTS)[:few]:
        alone += attack(name).attack(planted_target([prompt], exact=True, batch_size=1), attack_context(3))
    for one, other in zip(whole[:few], alone, strict=True):
        assert one.prompt == other.prompt
        assert (one.first_success, one.steps) == (other.first_success, other.steps)
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-9, atol=1e-12)
    assert len({result.prompt.text for result in whole}) == len(whole)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_what_the_text_encoder_reads_in_the_search(variant: Literal["paper", "official"]) -> None:
    target = planted_target(["dog church art dog church"])
    tokenizer = target.model.tokenizer
    own = tokenizer("dog church art dog church", add_special_tokens=False).input_ids
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    between = P4D(free="between", variant=variant).open(target.model, target.prompts[0].text)
    alone = P4D(free="alone", variant=variant, tokens=2).open(target.model, "any")
    assert between is not None
    assert alone is not None
    assert between.slots == (1, 5)
    read, short = (prompt.filled(torch.tensor([90, 91])).tolist() for prompt in (between, alone))
    assert len(read) == len(short) == 77
    assert read[:8] == [start, 90, *own[:3], 91, *own[3:]]
    assert short[:4] == [start, 90, 91, end]
    assert set(short[4:]) == {end if variant == "paper" else 0}
    assert set(read[8:]) == {end if variant == "paper" else 0}


def test_as_many_candidates_as_published() -> None:
    assert P4D().blocks() == [50] * 60
    assert P4D(variant="official").blocks() == [50] * 59
    assert P4D(steps=70).blocks() == [50, 20]
    assert P4D(steps=70, variant="official").blocks() == [50]


def test_the_candidate_most_like_the_target_image_is_returned() -> None:
    target = planted_target(["a church"])
    likeness: list[float] = []
    seen: list[AdversarialPrompt] = []
    look, features = target.look, target.features
    assert features is not None
    wanted = features(target.unerased[0].images[:1])

    def record(rows: Any, prompts: Any, seeds: Any = None) -> Looks:
        looks = look(rows, prompts, seeds)
        likeness.append(float((features(looks.images) @ wanted.T)[0, 0]))
        seen.extend(prompts)
        return looks

    target.look = record  # type: ignore[method-assign]
    (result,) = attack("p4d-n").attack(target, attack_context(1))
    assert len(set(likeness)) > 1
    assert result.prompt is seen[int(np.argmax(likeness))]


def test_the_target_image_is_the_clearest_of_the_first() -> None:
    target = planted_target(["a church", "art"], unerased=4)
    for row, scores in enumerate(([0.1, 0.9, 0.2, 0.95], [0.8, 0.3, 0.3, 0.9])):
        images = np.stack([np.full((8, 8, 3), 10 * row + k, np.uint8) for k in range(4)])
        target.unerased = [
            *target.unerased[:row],
            Looks(images, np.array(scores, np.float32)),
            *target.unerased[row + 1 :],
        ]
    assert clearest(target, 3)[:, 0, 0, 0].tolist() == [1, 10]
    assert clearest(target, 4)[:, 0, 0, 0].tolist() == [3, 13]


def test_the_official_code_encodes_images_as_if_they_were_in_zero_to_one() -> None:
    model = tiny_model()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    found = encode_as_code(model, images, [torch.Generator().manual_seed(seed) for seed in (1, 2)])
    with torch.no_grad():
        posterior = model.vae.encode(torch.from_numpy(images / 255).float().permute(0, 3, 1, 2)).latent_dist
    noise = torch.cat([torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    expected = (posterior.mean + posterior.std * noise) * model.vae.config.scaling_factor
    torch.testing.assert_close(found, expected)


def test_the_teacher_is_the_unerased_model_with_the_original_prompt() -> None:
    target = planted_target(["a church"], exact=True)
    (result,) = attack("p4d-n", steps=1).attack(target, attack_context())
    model = target.model
    first = planted_target(["a church"], exact=True)
    (drawn,) = attack("p4d-n", steps=15, learning_rate=1e-9).attack(first, attack_context())
    ids = torch.tensor([[*drawn.prompt.ids, *[model.tokenizer.eos_token_id] * (77 - len(drawn.prompt.ids))]])
    with torch.no_grad():
        student = float(model.unet.brightness(model.embed_ids(ids).embeddings))
        with target.as_unerased():
            teacher = float(model.unet.brightness(model.embed(["a church"]).embeddings))
    assert teacher > 0.9
    # A prediction is off by what the brightness, doubled, is off, at the timestep's ratio of signal to noise.
    ratios = model.alphas_cumprod / (1 - model.alphas_cumprod)
    expected = ratios * (2 * (teacher - student)) ** 2
    for loss in (*result.losses, *drawn.losses):
        assert (expected / loss - 1).abs().min() < 1e-4
    assert result.losses[0] == drawn.losses[0]
    # A timestep of its own for each step.
    assert len(set(drawn.losses)) > 10


def test_weights_are_swapped_once_between_two_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    target = planted_target(["a church", "a dog"])
    swaps, erased = [], target.model.erased

    def swap(erasure: Any) -> Any:
        swaps.append(erasure)
        return erased(erasure)

    monkeypatch.setattr(target.model, "erased", swap)
    attack("p4d-k").attack(target, attack_context())
    # Once more to read the prompts.
    assert len(swaps) == 4 + 1


def test_prompts_without_room_are_not_attacked() -> None:
    long = " ".join(["art"] * 37)
    target = planted_target([f"{long} dog", "a church", long])
    results = attack("p4d-k", steps=15).attack(target, attack_context())
    assert [bool(result.note) for result in results] == [True, False, False]
    assert [result.steps for result in results] == [0, 15, 15]
    assert len(results[2].prompt.ids) == 77
    assert results[0].prompt.text == target.prompts[0].text
    assert not attack("p4d-n", steps=15).attack(target, attack_context())[0].note
    (alone,) = attack("p4d-k").attack(planted_target([f"{long} dog"]), attack_context())
    assert (alone.note, alone.first_success) == (results[0].note, None)


def test_images_must_be_comparable() -> None:
    target = planted_target(["a church"])
    target.features = None
    with pytest.raises(TypeError, match="no features"):
        attack("p4d-n").attack(target, attack_context())


def test_there_are_no_more_images_to_choose_from_than_confirmations_leave() -> None:
    assert make_plugin(ATTACKS.get("p4d-n").make, {"images": 4}).images == 4  # type: ignore[attr-defined]
    with pytest.raises(EraseBenchError, match="images"):
        make_plugin(ATTACKS.get("p4d-n").make, {"images": 5})


def test_the_union_is_made_of_its_members() -> None:
    union = make_plugin(ATTACKS.get("p4d-union").make, {})
    assert [type(attack(name)) for name in union.members] == [P4D, P4D]
    with pytest.raises(TypeError, match="p4d-n and p4d-k"):
        union.attack(planted_target(["a church"]), attack_context())


@pytest.mark.parametrize("name", NAMES)
def test_no_prompts(name: str) -> None:
    assert attack(name).attack(planted_target([]), attack_context()) == []
