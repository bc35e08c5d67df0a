"""Attacks that find what is planted, and their cells, for tests of the stages that attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.adversarial import AdversarialPrompt, Found, read_trial
from erasebench.concepts import Prompt
from erasebench.engine.cells import Cell
from erasebench.judging import Images, Scores
from erasebench.plugins import Attack, AttackContext, ResolvedAttack, ThreatModel
from erasebench.stages import attack
from erasebench.stages.attack import Aim
from erasebench.stages.session import Session
from erasebench.training.target import Target
from tests.attacks.planted import THRESHOLD, as_prompts, brightness, features, planted_erasure
from tests.tiny import concept

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
