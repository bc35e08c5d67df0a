"""Cells of what was submitted are known by its content alone; whole entries are in ``test_verify.py``."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from erasebench.adversarial import AdversarialPrompt, Trial
from erasebench.errors import EraseBenchError
from erasebench.replanning import Replanner, erasure_cell, found_cell
from erasebench.results.entry import Entry
from tests.results.trials import trial


def entry(method: str = "uce", **artefacts: str) -> Entry:
    named = {f"{name}.{'json' if name == 'guidance' else 'safetensors'}": said for name, said in artefacts.items()}
    return Entry.model_construct(method=method, concept="church", artefacts={**named, "scores.csv": "2" * 64})


def test_an_erasure_is_its_weights_and_its_guidance_and_nothing_else() -> None:
    one = erasure_cell(entry(erasure="0" * 64))
    assert one.stage == "erase" and one.spec["files"] == {"erasure.safetensors": "0" * 64} and not one.reads
    assert erasure_cell(entry("another name", erasure="0" * 64)).key == one.key
    others = [entry(erasure="1" * 64), entry(guidance="0" * 64), entry(erasure="0" * 64, guidance="0" * 64)]
    assert len({one.key, *(erasure_cell(other).key for other in others)}) == 4


def with_vectors(known: Trial, *values: float) -> Trial:
    prompt = AdversarialPrompt("<new>", vectors=np.array([values], np.float32))
    return replace(known, found=replace(known.found, prompt=prompt))


def test_a_find_is_its_prompt_its_seed_and_its_vectors() -> None:
    one = trial("p", "confirmed")
    assert found_cell(one).stage == "attack" and found_cell(one).key == found_cell(trial("p", "confirmed")).key
    others = [trial("q", "confirmed"), trial("p", "confirmed", text="other"), trial("p", "confirmed", seed=3)]
    vectors = [with_vectors(one, 0.0, 1.0), with_vectors(one, 0.0, 1.0), with_vectors(one, 0.0, 1.0 + 1e-6)]
    keys = [found_cell(other).key for other in (one, *others, *vectors)]
    assert len(set(keys)) == len(keys) - 1 and keys[-2] == keys[-3] != keys[-1]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"method": "esd-x"}, r"the artefacts in folder are of esd-x church$"),
        ({"concept": "nudity"}, r"the artefacts in folder are of uce nudity$"),
        ({"status": "failed"}, r"the artefacts in folder are of uce church$"),
        ({"threshold": None}, r"the judge eye of the entry has no threshold"),
    ],
)
def test_artefacts_that_are_of_another_row(said: dict[str, Any], message: str) -> None:
    facts = {"method": "uce", "concept": "church", "status": "ok", "threshold": 0.5, **said}
    judged = SimpleNamespace(judge="eye", label="church", threshold=facts.pop("threshold"))
    row = SimpleNamespace(**facts, probes={"concept": SimpleNamespace(judged=[judged])})
    artefacts = SimpleNamespace(folder="folder", record=SimpleNamespace(rows=[row]))
    own = Entry.model_construct(method="uce", concept="church", kind="object")
    with pytest.raises(EraseBenchError, match=message):
        Replanner(own, cast(Any, artefacts), cast(Any, None), cast(Any, None))
