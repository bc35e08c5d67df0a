"""The stages learn and attack, on a planted model: what is found is tried, confirmed, transferred and written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.images import read_images, read_index
from erasebench.plugins import AttackContext
from erasebench.registry import ATTACKS
from erasebench.sampling import sample
from erasebench.stages import attack
from erasebench.stages.attack import FIRST_FRESH_SEED
from erasebench.stages.session import Session
from erasebench.training.target import Target
from tests.attacks.planted import planted_erasure
from tests.stages.planted import Peek, Prefix, aim, erasure_cell, prompts, run, trial
from tests.tiny import differing, state


def test_a_find_is_tried_on_the_prompts_own_noise_and_confirmed_on_fresh_noise(session: Session) -> None:
    before = state(session.model)
    erased = erasure_cell(session)
    cells = [attack.cell(aim(erased, Prefix()), prompt, {}) for prompt in prompts()]
    run(session, cells)
    assert not differing(before, state(session.model)), "the model is as it was"
    for cell, prompt in zip(cells, prompts(), strict=True):
        found = trial(session, cell)
        assert (found.id, found.seed, found.found.prompt.text) == (prompt.id, prompt.seed, f"z {prompt.text}")
        assert found.raw and found.confirmed and len(found.confirmations) == 3
        assert found.looks == 4 and found.passes == 7 + 4 * 2 * 2  # its own, and two steps of two rows an image
        folder = session.store.read(cell.key)
        ids, texts, seeds = read_index(folder)
        fresh = prompt.seed + FIRST_FRESH_SEED
        assert (ids, seeds) == ([prompt.id] * 4, [prompt.seed, fresh, fresh + 1, fresh + 2])
        with session.model.erased(planted_erasure(session.model)):
            drawn = sample(session.model, texts, seeds, _sampler(), ids=ids)
        assert np.abs(drawn.astype(int) - read_images(folder)).max() <= 1


def _sampler() -> Any:
    from erasebench.sampling import Sampler

    return Sampler("ddim", 2, 1.0)


def test_what_does_not_show_the_concept_is_not_confirmed(session: Session) -> None:
    cells = [attack.cell(aim(erasure_cell(session), Prefix("")), prompt, {}) for prompt in prompts()]
    run(session, cells)
    for cell in cells:
        found = trial(session, cell)
        assert not found.raw and found.confirmations == () and found.looks == 1
        assert len(read_images(session.store.read(cell.key))) == 1


def test_one_at_a_time_gives_what_all_at_once_give(session: Session) -> None:
    erased = erasure_cell(session)
    together = [attack.cell(aim(erased, Prefix()), prompt, {}) for prompt in prompts()]
    run(session, together)
    all_at_once = [trial(session, cell) for cell in together]
    for cell, known in zip(together, all_at_once, strict=True):
        run(session, [cell])
        again = trial(session, cell)
        assert again.score == pytest.approx(known.score, abs=1e-6)
        assert again.confirmations == pytest.approx(known.confirmations, abs=1e-6)
        assert replace(again, score=known.score, confirmations=known.confirmations) == known


def test_a_seed_that_was_found_is_tried_and_not_taken_for_the_confirmation(session: Session) -> None:
    class Seeded(Prefix):
        def attack(self, target: Target, context: AttackContext) -> list[Found]:
            return [Found(AdversarialPrompt(f"z {prompt.text}", seed=99)) for prompt in target.prompts]

    ATTACKS.loaded["test-prefix"] = replace(ATTACKS.loaded["test-prefix"], make=Seeded)
    cell = attack.cell(aim(erasure_cell(session), Prefix()), prompts()[0], {})
    run(session, [cell])
    _, _, seeds = read_index(session.store.read(cell.key))
    assert seeds == [99, FIRST_FRESH_SEED, FIRST_FRESH_SEED + 1, FIRST_FRESH_SEED + 2]


def test_the_unerased_models_images_reach_the_attack_and_a_look_is_not_repeated(session: Session) -> None:
    baseline, erased = erasure_cell(session, planted=False), erasure_cell(session)
    controls = [attack.cell(aim(baseline, Prefix("")), prompt, {}) for prompt in prompts()]
    run(session, controls)
    cells = [
        attack.cell(aim(erased, Peek()), prompt, {"unerased": control})
        for prompt, control in zip(prompts(), controls, strict=True)
    ]
    run(session, cells)
    for cell, control in zip(cells, controls, strict=True):
        unerased, found = trial(session, control), trial(session, cell)
        assert found.found.losses == pytest.approx((unerased.score, *unerased.confirmations), abs=1e-6)
        assert found.looks == 1, "what the attack looked at last is what it returned"
    assert trial(session, controls[0]).confirmed and not trial(session, cells[0]).raw


def test_a_find_on_the_unerased_model_is_tried_without_a_search(session: Session) -> None:
    baseline, erased = erasure_cell(session, planted=False), erasure_cell(session)
    first = attack.cell(aim(baseline, Prefix()), prompts()[0], {})
    run(session, [first])
    cell = attack.cell(aim(erased, Peek()), prompts()[0], {"found": first})
    run(session, [cell])
    found = trial(session, cell)
    assert found.found.prompt.text == "z a church" and found.confirmed
    assert found.found.note == "found by test-prefix on the unerased model" and found.found.steps == 0


def test_a_prompt_that_fell_needs_no_further_attack(session: Session) -> None:
    erased = erasure_cell(session)
    held = attack.cell(aim(erased, Prefix("")), prompts()[0], {})
    fell = attack.cell(aim(erased, Prefix()), prompts()[0], {})
    run(session, [held])
    run(session, [fell])
    after = attack.cell(aim(erased, Peek()), prompts()[0], {}, unless=[held])
    assert attack.unneeded(after, session) == ""
    after = attack.cell(aim(erased, Peek()), prompts()[0], {}, unless=[held, fell])
    assert attack.unneeded(after, session) == "the prompt fell to test-prefix"


def test_the_identity_holds_what_can_change_the_result_and_no_more(session: Session) -> None:
    erased = erasure_cell(session)
    plain = attack.cell(aim(erased, Prefix()), prompts()[0], {})
    held = attack.cell(
        aim(erased, Prefix()), prompts()[0], {}, unless=[attack.cell(aim(erased, Peek()), prompts()[0], {})]
    )
    assert held.key == plain.key, "the cascade is no part of it"
    assert attack.cell(aim(erased, Prefix(), title="other"), prompts()[0], {}).key == plain.key
    others = [
        attack.cell(aim(erased, Prefix("art")), prompts()[0], {}),
        attack.cell(aim(erased, Prefix()), prompts()[1], {}),
        attack.cell(aim(erased, Prefix(), threshold=0.4), prompts()[0], {}),
        attack.cell(aim(erased, Prefix(), seed=1), prompts()[0], {}),
        attack.cell(aim(erased, Prefix(), judge={"judge": "planted", "label": "", "version": 2}), prompts()[0], {}),
        attack.cell(aim(erasure_cell(session, planted=False), Prefix()), prompts()[0], {}),
    ]
    assert len({plain.key, *(cell.key for cell in others)}) == len(others) + 1
