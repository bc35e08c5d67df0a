"""The stages learn and attack, on a planted model: what is found is tried, confirmed, transferred and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.adversarial import AdversarialPrompt, Found, read_trial
from erasebench.concepts import Prompt
from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.images import read_images, read_index, write_images
from erasebench.judging import Images, Scores, write_scores
from erasebench.plugins import Attack, AttackContext, ResolvedAttack, ThreatModel
from erasebench.registry import ATTACKS
from erasebench.sampling import sample
from erasebench.stages import attack, learn
from erasebench.stages.attack import FIRST_FRESH_SEED, Aim
from erasebench.stages.session import Session
from erasebench.training.target import Target
from tests.attacks.planted import THRESHOLD, as_prompts, brightness, features, planted_erasure, planted_model
from tests.tiny import concept, differing, state

PROMPTS = ("a church", "the church", "art")


@dataclass(frozen=True)
class Prefix(Attack):
    """Put a word before each prompt."""

    threat_model: ClassVar[ThreatModel] = "text-black-box"
    word: str = "z"

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        target.spend(range(len(target.prompts)), 7)
        return [
            Found(AdversarialPrompt(f"{self.word} {prompt.text}".strip()), 3, 5, (0.5,)) for prompt in target.prompts
        ]


@dataclass(frozen=True)
class Learner(Prefix):
    """Learn how bright the images are, and say so."""

    learns: ClassVar[bool] = True

    def learn(self, target: Target, images: Images, context: AttackContext) -> dict[str, Tensor]:
        return {"order": torch.from_numpy(images.mean((1, 2, 3))), "drawn": torch.tensor(float(target.guided))}

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        found = super().attack(target, context)
        return [replace(one, losses=tuple(context.learned["order"].tolist())) for one in found]


@dataclass(frozen=True)
class Peek(Attack):
    """Remember the unerased model's scores."""

    threat_model: ClassVar[ThreatModel] = "text-black-box"

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        own = [AdversarialPrompt(prompt.text) for prompt in target.prompts]
        target.look(range(len(own)), own)
        return [
            Found(prompt, losses=tuple(map(float, look.scores)))
            for prompt, look in zip(own, target.unerased, strict=True)
        ]


class PlantedJudge:
    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        return Scores({"church": brightness(images)})

    def model(self) -> Any:
        return type("Clip", (), {"image_features": staticmethod(features)})()


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for made in (Prefix, Learner, Peek):
        ATTACKS.register(f"test-{made.__name__.lower()}")(made)
    yield
    for made in (Prefix, Learner, Peek):
        del ATTACKS.loaded[f"test-{made.__name__.lower()}"]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    made = Session(cast(Any, None), "cpu", "float32", Store(tmp_path / "store"))
    made.model = planted_model()
    monkeypatch.setattr(Session, "judge", lambda self, name, label="": PlantedJudge())
    return made


def aim(erasure: Cell, made: Attack, **changes: Any) -> Aim:
    name = f"test-{type(made).__name__.lower()}"
    about = concept("church").spec("photo")
    sampler = {"name": "ddim", "steps": 2, "guidance_scale": 1.0, "size": None}
    aimed = Aim(
        ResolvedAttack(name, name, made), about, erasure, "model", "float32", {"judge": "planted", "label": ""},
        "church", THRESHOLD, None, sampler, 0, f"{name} planted church",
    )  # fmt: skip
    return replace(aimed, **changes)


def erasure_cell(session: Session, planted: bool = True) -> Cell:
    from erasebench.models.erasure import Erasure

    cell = Cell("erase", {"planted": planted})
    with session.store.writing(cell, {}) as folder:
        (planted_erasure(session.model) if planted else Erasure()).save(folder)
    return cell


def run(session: Session, cells: Sequence[Cell]) -> None:
    """Compute cells together, and commit them."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        folders = [stack.enter_context(session.store.writing(cell, {})) for cell in cells]
        attack.run_together(cells, session, folders)


def trial(session: Session, cell: Cell) -> Any:
    return read_trial(session.store.read(cell.key))


def prompts() -> list[Prompt]:
    return as_prompts(PROMPTS)


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


def test_what_is_learnt_comes_from_the_clearest_images_and_reaches_every_prompt(session: Session) -> None:
    erased = erasure_cell(session)
    images, judged = Cell("generate", {"of": "church"}), Cell("judge", {"of": "church"})
    pixels = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (50, 200, 100)])
    ids = ["a", "b", "c"]
    with session.store.writing(images, {}) as folder:
        write_images(folder, pixels, ids, ids, [0, 0, 0])
    with session.store.writing(judged, {}) as folder:
        write_scores(folder, Scores({"church": brightness(pixels)}), ids, [0, 0, 0])
    for source, order in ((judged, (200, 100, 50)), (None, (50, 200, 100))):
        learned = learn.cell(aim(erased, Learner()), images, source)
        with session.store.writing(learned, {}) as folder:
            learn.run(learned, session, folder)
        cell = attack.cell(aim(erased, Learner()), prompts()[0], {"learned": learned})
        run(session, [cell])
        assert trial(session, cell).found.losses == pytest.approx(order)


def test_an_attack_that_learns_no_numbers_fails(session: Session, tmp_path: Path) -> None:
    class Lost(Learner):
        def learn(self, target: Target, images: Images, context: AttackContext) -> dict[str, Tensor]:
            return {"vectors": torch.tensor([float("nan")])}

    ATTACKS.loaded["test-learner"] = replace(ATTACKS.loaded["test-learner"], make=Lost)
    images = Cell("generate", {})
    with session.store.writing(images, {}) as folder:
        write_images(folder, np.zeros((1, 8, 8, 3), np.uint8), ["a"], ["a"], [0])
    with pytest.raises(FloatingPointError, match="not finite: vectors"):
        learn.run(learn.cell(aim(erasure_cell(session), Learner()), images, None), session, tmp_path)


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
