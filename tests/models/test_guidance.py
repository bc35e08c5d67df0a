"""Safe latent guidance against its formulas written out number by number, and rules of plug-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.models.erasure import Erasure
from erasebench.models.export import check_exportable
from erasebench.models.guidance import ClassifierFreeGuidance, Guidance, SafeLatentGuidance, from_json, to_json
from erasebench.registry import METHODS, RULES, Registry, load_file
from erasebench.sampling import Sampler, sample
from tests.engine.runs import forget_plugins
from tests.tiny import concept, erase_context, tiny_model

CONSTANTS = {
    "weak": (15, 200.0, 0.0, 0.0, 0.0),
    "medium": (10, 1000.0, 0.01, 0.3, 0.4),
    "strong": (7, 2000.0, 0.025, 0.5, 0.7),
    "max": (0, 5000.0, 1.0, 0.5, 0.7),
    "soft": (1, 0.5, 0.3, 0.6, 0.2),
}


def predictions(steps: int, seed: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each step what is predicted for the prompt, the blank prompt and the safety text: ``[2, 2, 3, 3]`` each."""
    rng = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn((2, 2, 3, 3), generator=rng, dtype=torch.float64)

    return [(draw(), draw(), draw()) for _ in range(steps)]


def run(rule: Any, steps: list[tuple[Tensor, Tensor, Tensor]], scale: float) -> list[Tensor]:
    combine = rule.start()
    return [combine(step, p, [u, s], scale) for step, (p, u, s) in enumerate(steps)]


@pytest.mark.parametrize("name", CONSTANTS)
def test_combination_is_the_papers_number_by_number(name: str) -> None:
    warmup, scale, threshold, momentum_scale, beta = CONSTANTS[name]
    steps = predictions(18)
    found = run(SafeLatentGuidance("church", *CONSTANTS[name]), steps, 7.5)
    for place in range(found[0].numel()):
        v = 0.0
        for step, three in enumerate(steps):
            p, u, s = (float(tensor.flatten()[place]) for tensor in three)
            mu = 0.0 if p - s >= threshold else min(1.0, abs(p - s) * scale)
            g = mu * (s - u) + momentum_scale * v
            v = beta * v + (1 - beta) * g
            wanted = u + 7.5 * ((p - u) - (g if step >= warmup else 0.0))
            assert float(found[step].flatten()[place]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_before_the_warm_up_it_is_plain_guidance_while_momentum_moves() -> None:
    steps = predictions(4)
    late, early = SafeLatentGuidance("church", 3), SafeLatentGuidance("church", 0)
    plain = run(ClassifierFreeGuidance(), [(p, u, u) for p, u, _ in steps], 5.0)
    guided = run(late, steps, 5.0)
    assert all(torch.equal(a, b) for a, b in zip(guided[:3], plain[:3], strict=True))
    # At step 3 the momentum of the three silent steps is there, exactly as if they had not been silent.
    assert torch.equal(guided[3], run(early, steps, 5.0)[3])
    assert not torch.equal(guided[3], late.start()(3, steps[3][0], [*steps[3][1:]], 5.0))


def test_momentum_by_hand() -> None:
    """p = 0, s = 1, u = 0 everywhere: mu (s - u) is 1, so g = 1, 1 + .5 * .25, ... and v = .25, ..."""
    zero, one = torch.zeros(1), torch.ones(1)
    rule = SafeLatentGuidance("church", 0, 10.0, 0.0, momentum_scale=0.5, momentum_beta=0.75)
    found = run(rule, [(zero, zero, one)] * 3, 1.0)
    v1 = 0.25
    g2 = 1 + 0.5 * v1
    v2 = 0.75 * v1 + 0.25 * g2
    assert [float(x) for x in found] == [-1.0, -g2, -(1 + 0.5 * v2)]


def test_a_number_at_the_threshold_is_left_alone() -> None:
    rule = SafeLatentGuidance("church", 0, 1e6, threshold=0.5, momentum_scale=0.0)
    p, s, u = torch.tensor([0.5, 0.25]), torch.zeros(2), torch.ones(2)
    # First p - s = lambda: mu = 0, u + g (p - u).  Then below it: mu = 1, u + g (p - u - s + u).
    assert rule.start()(0, p, [u, s], 2.0).tolist() == [1 + 2 * (0.5 - 1), 1 + 2 * 0.25]


def test_without_limits_it_is_full_negative_guidance() -> None:
    (p, u, s), *_ = steps = predictions(1)
    (found,) = run(SafeLatentGuidance("church", 0, 1e30, threshold=1e30, momentum_scale=0.0), steps, 7.5)
    torch.testing.assert_close(found, u + 7.5 * ((p - u) - (s - u)))


def test_a_run_starts_without_the_momentum_of_the_last() -> None:
    rule, steps = SafeLatentGuidance("church", 0), predictions(3)
    assert all(torch.equal(a, b) for a, b in zip(run(rule, steps, 5.0), run(rule, steps, 5.0), strict=True))


def test_texts_are_the_blank_prompt_and_the_safety_text() -> None:
    assert SafeLatentGuidance("church, Van Gogh").texts == ("", "church, Van Gogh")


def test_pictures_do_not_depend_on_their_batch() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 4, 7.5)
    prompts, seeds = ["a church", "a dog", "art", "a church"], [0, 1, 2, 3]
    with model.erased(Erasure(guidance=SafeLatentGuidance("church", 1))):
        single = sample(model, prompts, seeds, sampler, batch_size=1)
        together = sample(model, prompts, seeds, sampler, batch_size=4)
        reversed_ = sample(model, prompts[::-1], seeds[::-1], sampler, batch_size=3)[::-1]
    assert np.abs(single.astype(int) - together).max() <= 1
    assert np.abs(single.astype(int) - reversed_).max() <= 1
    assert np.abs(single.astype(int) - sample(model, prompts, seeds, sampler)).max() > 3


RULE = """
from dataclasses import dataclass

from erasebench.models.erasure import Erasure
from erasebench.models.guidance import Guidance
from erasebench.plugins import Method
from erasebench.registry import METHODS, RULES


@RULES.register("far-away")
@dataclass(frozen=True)
class FarAway(Guidance):
    words: str = "art"
    strength: float = 20.0

    @property
    def texts(self):
        return "", self.words

    def start(self):
        def combine(step, prompt, others, guidance_scale):
            blank, words = others
            return blank + guidance_scale * (prompt - blank) - self.strength * (words - blank)

        return combine


@METHODS.register("far-away")
@dataclass(frozen=True)
class Further(Method):
    def erase(self, model, concepts, context):
        return Erasure(guidance=FarAway(concepts[0].phrase))
"""


@pytest.fixture
def rule_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "my_rule.py"
    path.write_text(RULE)
    yield path
    forget_plugins()


def test_a_plug_in_brings_a_rule(rule_file: Path, tmp_path: Path) -> None:
    """Erased with, saved, loaded and sampled with; also after the file was loaded anew."""
    model, sampler, prompts = tiny_model(), Sampler("ddim", 3, 4.0), ["a dog", "art"]
    load_file(rule_file)
    erasure = METHODS.get("far-away").make().erase(model, [concept("church")], erase_context())
    load_file(rule_file)
    erasure.save(tmp_path)
    assert json.loads((tmp_path / "guidance.json").read_text()) == {
        "rule": "far-away",
        "plugin": "my_rule",
        "words": "church",
        "strength": 20.0,
    }
    loaded = Erasure.load(tmp_path).guidance
    assert loaded and type(loaded) is RULES.get("far-away").make and loaded.texts == ("", "church")
    with model.erased(Erasure.load(tmp_path)):
        found = sample(model, prompts, [1, 2], sampler)
    with model.erased(erasure):
        np.testing.assert_array_equal(found, sample(model, prompts, [1, 2], sampler))
    assert np.abs(found.astype(int) - sample(model, prompts, [1, 2], sampler)).max() > 3
    with pytest.raises(EraseBenchError, match=r"a rule of guidance \(far-away\)"):
        check_exportable(erasure)


def test_a_stored_rule_whose_plug_in_is_missing(rule_file: Path, tmp_path: Path) -> None:
    load_file(rule_file)
    Erasure(guidance=RULES.get("far-away").make()).save(tmp_path)
    forget_plugins()
    with pytest.raises(EraseBenchError, match="rule 'far-away' is of the plug-in 'my_rule', which is missing: give"):
        Erasure.load(tmp_path)
    load_file(rule_file)
    assert Erasure.load(tmp_path).guidance


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"rule": "later"}, "unknown guidance rule 'later'; it may be of a later version"),
        (
            {"rule": "safe-latent", "strength": 1},
            "'safe-latent' cannot be made from its stored fields: .*strength",
        ),
        ({"safety": "church"}, "damaged: it has no name"),
        ([], "damaged: it has no name"),
    ],
)
def test_stored_rules_that_cannot_be_read(stored: Any, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        from_json(stored)


def test_a_rule_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry point is enough: nothing else names it."""
    (tmp_path / "package_of_rules.py").write_text(RULE.split("@METHODS")[0].replace('@RULES.register("far-away")', ""))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("theirs", "package_of_rules:FarAway", "erasebench.rules")
    monkeypatch.setattr("erasebench.registry.entry_points", lambda group: (point,) if group == point.group else ())
    registry: Registry[Any] = Registry(
        "erasebench.models.guidance:Guidance", "guidance rule", point.group, "erasebench.models"
    )
    monkeypatch.setattr("erasebench.models.guidance.RULES", registry)
    rule = from_json({"rule": "theirs", "plugin": "package_of_rules", "words": "church", "strength": 3.0})
    assert rule.texts == ("", "church")
    assert to_json(rule) == {"rule": "theirs", "plugin": "package_of_rules", "words": "church", "strength": 3.0}


def test_a_rule_that_is_not_registered_says_how_to() -> None:
    class Alone(Guidance):
        texts = ()

        def start(self) -> Any:
            raise AssertionError

    with pytest.raises(EraseBenchError, match=r"rule Alone of .* cannot be stored: put @RULES.register"):
        to_json(Alone())
