"""The trials of a run's attacks as one tidy frame, ``attacks.csv``: one row a method, concept, attack and prompt."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from erasebench.adversarial import read_trial
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.plugins import UNATTACKED
from erasebench.results.scores import split_judges
from erasebench.results.table import frame_csv, restored_frame

if TYPE_CHECKING:
    from erasebench.adversarial import Trial
    from erasebench.results.record import Record

ATTACKS = "attacks.csv"
ENSEMBLE = "standard"
"""The ensemble, after which the robust rate is an erasure's headline."""
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("method", "concept", "attack", "prompt_id", "kind", "prompt", "found"), str),
    "seed": None,
    **dict.fromkeys(("raw", "confirmed"), bool),
    "score": float,
    "confirmations": str,
    "threshold": float,
    "first_success": "Int64",
    **dict.fromkeys(("steps", "looks", "passes"), int),
    **dict.fromkeys(("seconds", "gradient", "stochastic"), float),
    "by": str,
    "floor": bool,
    "note": str,
}
"""The columns and their types: the row of the table; the prompt's id, kind and text; the text that was found, empty
where only embeddings will do, and the seed of its first image; whether that image shows the concept, and whether
images on fresh noise do too; the judge's score of the first, those of the others, and from which on the concept is
there; after how many of its steps the attack's own test fired; steps, images judged, latents passed forward through
the U-Net, seconds; the largest gradient (nan if it takes none); by how much the score differed when the same prompt
and seed were drawn again (nan if they were not); the attack that broke the prompt, of an ensemble the member;
whether the prompt is one of those that give the false-positive floor; what readers have to know. A seed is any whole
number."""


def attack_rows(
    method: str,
    concept: str,
    attack: str,
    trials: Sequence[tuple[Trial, float, str]],
    floor: bool = False,
    stochastic: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one attack on one method and concept.

    Args:
        method: as the user wrote it.
        concept: its name.
        attack: as the user wrote it.
        trials: of each prompt: the trial, its seconds, and the name of the attack that it is of; "" for ``attack``.
        floor: these are the prompts that give the false-positive floor.
        stochastic: by a prompt's id, how much the judge's score differed when the image was drawn again.

    Raises:
        EraseBenchError: a prompt is there twice.
    """
    rows: dict[str, dict[str, Any]] = {}
    for trial, seconds, by in trials:
        if trial.id in rows:
            raise EraseBenchError(f"two trials of {attack} on {method} {concept} are of the prompt '{trial.id}'")
        findings = trial.found
        rows[trial.id] = {
            **{"method": method, "concept": concept, "attack": attack, "prompt_id": trial.id, "kind": trial.kind},
            **{"prompt": trial.text, "found": findings.prompt.text if findings.prompt.is_text else ""},
            "seed": trial.seed if findings.prompt.seed is None else findings.prompt.seed,
            **{"raw": trial.raw, "confirmed": trial.confirmed, "score": trial.score},
            "confirmations": " ".join(f"{score:.6g}" for score in trial.confirmations),
            **{"threshold": trial.threshold, "first_success": findings.first_success, "steps": findings.steps},
            **{"looks": trial.looks, "passes": trial.passes, "seconds": seconds, "gradient": findings.gradient},
            "stochastic": (stochastic or {}).get(trial.id),
            **{"by": by or attack, "floor": floor, "note": findings.note},
        }
    return list(rows.values())


def first_that_breaks(
    members: Mapping[str, Mapping[str, Trial]], seconds: Mapping[str, Mapping[str, float]] | None = None
) -> list[tuple[Trial, float, str]]:
    """The trials of an ensemble, out of those of its members, as :func:`attack_rows` takes them.

    A prompt goes from member to member until one has a confirmed success; if none has, the last that has a raw one
    stands for it, and if none has that either, the last.  Its looks, passes and seconds are those of all members that
    it went through.  So the ensemble breaks exactly the prompts that some member breaks.

    Args:
        members: by attack, in the order in which they are tried, its trials by a prompt's id; a member may lack
            prompts.
        seconds: likewise, what they took; 0 where it is not said.
    """
    ensemble = []
    for prompt in dict.fromkeys(prompt for trials in members.values() for prompt in trials):
        tried: list[tuple[str, Trial]] = []
        for member, trials in members.items():
            if prompt in trials:
                tried.append((member, trials[prompt]))
                if trials[prompt].confirmed:
                    break
        _, (by, best) = max(enumerate(tried), key=lambda one: (one[1][1].confirmed, one[1][1].raw, one[0]))
        looks, passes = sum(trial.looks for _, trial in tried), sum(trial.passes for _, trial in tried)
        taken = sum((seconds or {}).get(member, {}).get(prompt, 0.0) for member, _ in tried)
        ensemble.append((replace(best, looks=looks, passes=passes), taken, by))
    return ensemble


def collect_attacks(record: Record, scores: pd.DataFrame, store: Store) -> pd.DataFrame:
    """The trials of every row of attacks that could be measured, out of the store.

    Args:
        record: the run.
        scores: of its rows without an attack: the same prompts and seeds as those of the attack "none", drawn once
            more, so that a judge or a model that is random shows.
        store: where the trials are.
    """
    # An ensemble has the trials of its members, which stand for themselves as well.
    return frame_trials(record, scores, cache(lambda key: (read_trial(store.read(key)), _seconds(store, key))))


def frame_trials(record: Record, scores: pd.DataFrame, read: Callable[[str], tuple[Trial, float]]) -> pd.DataFrame:
    """The trials of every row of attacks that could be measured, wherever they are.

    Args:
        record: the run.
        scores: as :func:`collect_attacks` has them.
        read: the trial of a key, and its seconds.
    """
    first, _ = split_judges(record, scores)
    again = {
        (row.method, row.concept, row.prompt_id, row.seed): row.score
        for row in first[first["probe"] == "concept"].itertuples(index=False)
    }
    rows: list[dict[str, Any]] = []
    for row in record.attacks:
        if row.status != "ok":
            continue
        for floor, members in ((False, row.trials), (True, row.floor)):
            by_member = {
                member: {prompt: read(key) for prompt, key in keys.items()} for member, keys in members.items()
            }
            tried = {
                member: {prompt: one for prompt, (one, _) in trials.items()} for member, trials in by_member.items()
            }
            seconds = {
                member: {prompt: took for prompt, (_, took) in some.items()} for member, some in by_member.items()
            }
            stochastic = {
                trial.id: abs(trial.score - again[row.method, row.concept, trial.id, trial.seed])
                for trial in tried.get(UNATTACKED, {}).values()
                if row.attack == UNATTACKED and (row.method, row.concept, trial.id, trial.seed) in again
            }
            trials = first_that_breaks(tried, seconds)
            rows += attack_rows(row.method, row.concept, row.attack, trials, floor, stochastic)
    return attacks_frame(rows)


def budgets(record: Record) -> dict[str, str]:
    """By attack, what it may spend, and what could not be planned of it; by concepts, where they differ.

    A budget is an attack's whole numbers, such as steps; an ensemble has those of its members.
    """
    concepts: dict[str, dict[str, list[str]]] = {}
    missing: dict[str, list[str]] = {}
    for row in record.attacks:
        of_members = {
            member: ", ".join(f"{name} {value}" for name, value in values.items() if type(value) is int)
            for member, values in row.budget.items()
        }
        if list(of_members) == [row.attack]:
            text = of_members[row.attack]
        else:
            text = "; ".join(f"{member}: {own}" if own else member for member, own in of_members.items())
        if text:
            alike = concepts.setdefault(row.attack, {}).setdefault(text, [])
            alike += [row.concept] * (row.concept not in alike)
        missing.setdefault(row.attack, []).extend(f"without {part} ({why})" for part, why in row.missing.items())
    words = {}
    for attack, left_out in missing.items():
        by_text = concepts.get(attack, {})
        named = (f"{', '.join(names)}: {text}" if len(by_text) > 1 else text for text, names in by_text.items())
        words[attack] = "; ".join(filter(None, [" / ".join(named), *dict.fromkeys(left_out)]))
    return {attack: text for attack, text in words.items() if text}


def _seconds(store: Store, key: str) -> float:
    marker = store.marker(key)
    return float(marker.cost["seconds"]) if marker else 0.0


def attacks_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """The rows of :func:`attack_rows` as a frame; without any, one of the same columns."""
    return _typed(pd.DataFrame(list(rows), columns=list(COLUMNS)))


def attacks_csv(frame: pd.DataFrame) -> str:
    """The text of ``attacks.csv``; numbers are exact."""
    return frame_csv(frame, None)


def read_attacks(folder: Path) -> pd.DataFrame:
    """The attacks in a run folder.

    Raises:
        EraseBenchError: there are none, or the file is damaged.
    """
    path = folder / ATTACKS
    try:
        frame = pd.read_csv(
            io.StringIO(path.read_bytes().decode(), newline=""),
            keep_default_na=False,  # a prompt may well be "null"
            na_values={"first_success": [""]},
            dtype={name: kind for name, kind in COLUMNS.items() if kind and kind is not float},
            # Python's own, exact to the last bit
            converters={
                **{name: float for name, kind in COLUMNS.items() if kind is float},
                **dict.fromkeys(("gradient", "stochastic"), _or_nan),
                "seed": int,
            },
        )
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("its lines have more cells than its header")
        return restored_frame(_typed(frame[list(COLUMNS)]))
    except OSError as error:
        raise EraseBenchError(
            f"{folder} is no folder of a run with attacks: cannot read {path}: {error.strerror}"
        ) from error
    except (ValueError, KeyError) as error:
        raise EraseBenchError(f"{path} is no table of attacks: {' '.join(str(error).split())}") from None


def _or_nan(text: str) -> float:
    return float(text) if text else math.nan


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({name: kind for name, kind in COLUMNS.items() if kind})
