"""Stage attack: a model with an erasure, and prompts in; what an attack made of each, and what that brought back, out.

A cell is one prompt: a prompt's result does not depend on the others that are attacked at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erasebench.adversarial import CONFIRMATIONS, Found, Trial, read_trial, write_trial
from erasebench.concepts import Concept, Prompt
from erasebench.engine.cells import Cell, short_hash
from erasebench.hyper_parameters import hyper_parameters
from erasebench.images import read_images, write_images
from erasebench.plugins import AttackContext, ResolvedAttack
from erasebench.registry import ATTACKS

if TYPE_CHECKING:
    from erasebench.judging import Images
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.stages.session import Session
    from erasebench.training.target import Target

LEARNED = "learned.safetensors"
"""The file that the stage learn writes."""
FIRST_FRESH_SEED = 3_100_000_000
"""Added to a prompt's seed for its first confirmation: noise that no attack has seen."""


@dataclass(frozen=True)
class Aim:
    """The common specification of all cells of one attack on one erasure.

    Attributes:
        attack: what is done.
        concept: what shall come back: as methods and attacks see it.
        erasure: the cell of the erasure in force.
        model: the fingerprint of the model; ``dtype`` its precision.
        judge: what identifies the judge; ``label`` and ``threshold`` say when the concept is there.
        clip: what identifies the judge that compares images, for attacks that need one.
        sampler: :class:`~erasebench.sampling.Sampler`'s arguments.
        seed: of the attack.
        title: of its cells.
    """

    attack: ResolvedAttack
    concept: Mapping[str, Any]
    erasure: Cell
    model: str
    dtype: str
    judge: Mapping[str, Any]
    label: str
    threshold: float
    clip: Mapping[str, Any] | None
    sampler: Mapping[str, Any]
    seed: int
    title: str

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Whatever decides what is found, but for the prompt and what is read."""
        instance = self.attack.instance
        return {
            "model": self.model,
            "attack": self.attack.name,
            "version": instance.version,
            "parameters": hyper_parameters(instance),
            "identity": instance.identity(),
            "concept": self.concept,
            "judge": self.judge,
            "label": self.label,
            "threshold": self.threshold,
            **({"clip": self.clip} if self.clip else {}),
            "sampler": self.sampler,
            "seed": self.seed,
            "dtype": self.dtype,
        }

    @cached_property
    def kind(self) -> str:
        """Cells of this kind take about the same time."""
        return f"{self.attack.name} {short_hash([self.model, self.spec['parameters'], self.sampler])}"


def cell(aim: Aim, prompt: Prompt, reads: Mapping[str, Cell], unless: Sequence[Cell] = ()) -> Cell:
    """The cell that attacks with one prompt.

    Args:
        aim: the attack.
        prompt: what is made adversarial.
        reads: "unerased": the attack ``none`` on the unerased model, where the attack needs its images; "learned":
            what was learnt for all prompts; "found": an attack whose find is tried instead of a search.
        unless: the cell is unneeded where one of these broke the erasure already.
    """
    original = {name: getattr(prompt, name) for name in ("id", "text", "seed", "kind")}
    spec = {**aim.spec, "prompt": original}
    return Cell(
        "attack",
        spec,
        {"erasure": aim.erasure, **reads},
        f"{aim.title}: {prompt.text}",
        aim.kind,
        1,
        "prompts",
        batch=aim.title,
        unless=tuple(unless),
    )


def run_together(cells: Sequence[Cell], session: Session, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Attack with the prompts of several cells that differ in nothing else."""
    first = cells[0]
    attack = ATTACKS.get(first.spec["attack"]).make(**first.spec["parameters"])
    prompts = [Prompt(**cell.spec["prompt"]) for cell in cells]
    with aimed(session, first, prompts) as target:
        if "unerased" in first.reads:
            target.unerased = [_read_looks(session.store.read(cell.reads["unerased"].key)) for cell in cells]
        if "found" in first.reads:
            findings = [_transferred(session, cell.reads["found"]) for cell in cells]
        else:
            findings = attack.attack(target, context(session, first))
        trials = _try(target, findings)
    for (trial, images), prompt, folder in zip(trials, prompts, folders, strict=True):
        write_trial(folder, trial)
        seeds = _seeds(prompt, trial.found)[: len(images)]
        write_images(folder, images, [prompt.id] * len(images), [trial.found.prompt.text] * len(images), seeds)
    return [{"images": trial.looks, "passes": trial.passes} for trial, _ in trials]


def unneeded(cell: Cell, session: Session) -> str:
    """Why a prompt needs no further attack; '' if it does."""
    for earlier in cell.unless:
        if read_trial(session.store.read(earlier.key)).confirmed:
            return f"the prompt fell to {earlier.spec['attack']}"
    return ""


@contextmanager
def aimed(session: Session, cell: Cell, prompts: Sequence[Prompt]) -> Iterator[Target]:
    """The model of a cell with its erasure in force, as attacks see it."""
    from erasebench.sampling import Sampler
    from erasebench.training.target import Target

    spec = cell.spec
    erasure = session.erasure(cell)
    undo = _undo(session.model, erasure)
    judge = session.judge(spec["judge"]["judge"], spec["judge"]["label"])
    clip = session.judge(spec["clip"]["judge"]) if "clip" in spec else None

    sampler = Sampler(**spec["sampler"])

    def scores(images: Images, texts: Sequence[str]) -> Any:
        parts = session.batch_sizes.judged.batches(
            len(texts), lambda part: judge.scores(images[part], texts[part]).columns[spec["label"]]
        )
        return np.concatenate([*parts])

    with session.model.erased(erasure) as model:
        session.fit(sampler)
        yield Target(
            model,
            undo,
            Concept.from_spec(spec["concept"]),
            prompts,
            sampler,
            scores,
            spec["threshold"],
            features=None if clip is None else clip.model().image_features,
        )


def context(session: Session, cell: Cell) -> AttackContext:
    """The context that a cell's attack is lent."""
    from safetensors.torch import load_file

    def on_progress(done: int, of: int, figures: Mapping[str, float]) -> None:
        session.progress(done, of, "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    learned = load_file(session.store.read(cell.reads["learned"].key) / LEARNED) if "learned" in cell.reads else {}
    return AttackContext(cell.spec["seed"], on_progress, learned)


def _undo(model: DiffusionModel, erasure: Any) -> Any:
    """The inverse of an erasure, made before that is in force."""
    from erasebench.models.erasure import Erasure

    parameters = model.parameters()
    names = (*erasure.weights, *erasure.low_rank)
    return Erasure({name: parameters[name].detach().clone() for name in names}, guidance=model.guidance)


def _read_looks(folder: Path) -> Any:
    """The images of a trial and their scores."""
    from erasebench.training.target import Looks

    trial = read_trial(folder)
    return Looks(read_images(folder), np.array([trial.score, *trial.confirmations], dtype=np.float32))


def _transferred(session: Session, cell: Cell) -> Found:
    found = read_trial(session.store.read(cell.key)).found
    return Found(found.prompt, note=f"found by {cell.spec['attack']} on the unerased model")


def _seeds(prompt: Prompt, found: Found) -> list[int]:
    """Of the image that counts, and of its confirmations."""
    own = prompt.seed if found.prompt.seed is None else found.prompt.seed
    fresh = prompt.seed + FIRST_FRESH_SEED
    return [own, *range(fresh, fresh + CONFIRMATIONS)]


def _try(target: Target, findings: Sequence[Found]) -> list[tuple[Trial, Images]]:
    """Draw what was found, and where that shows the concept, on fresh noise as well."""
    rows = range(len(findings))
    new = [row for row in rows if target.last_look(row, findings[row].prompt) is None]
    target.look(new, [findings[row].prompt for row in new])
    first = {row: look for row in rows if (look := target.last_look(row, findings[row].prompt))}
    shown = [row for row in rows if first[row][1] >= target.threshold]
    again = [row for row in shown for _ in range(CONFIRMATIONS)]
    seeds = [seed for row in shown for seed in _seeds(target.prompts[row], findings[row])[1:]]
    fresh = target.look(again, [findings[row].prompt for row in again], seeds)
    trials = []
    for row in rows:
        own = [k for k, of in enumerate(again) if of == row]
        prompt = asdict(target.prompts[row])
        prompt.pop("shows")
        trial = Trial(
            **prompt,
            found=findings[row],
            score=first[row][1],
            confirmations=tuple(float(fresh.scores[k]) for k in own),
            threshold=target.threshold,
            looks=target.looks[row],
            passes=target.passes[row],
        )
        trials.append((trial, np.stack([first[row][0], *(fresh.images[k] for k in own)])))
    return trials
