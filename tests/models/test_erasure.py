"""What a method returns survives the disk, and is refused if it is not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erasebench.models.erasure import Erasure, check_finite
from erasebench.models.guidance import ClassifierFreeGuidance, from_json, to_json
from erasebench.registry import RULES

FACTORS = (torch.randn(4, 2), torch.randn(2, 6))


def same(first: Erasure, second: Erasure) -> bool:
    pairs = [(first.weights[k], second.weights[k]) for k in first.weights]
    pairs += [(a, b) for k in first.low_rank for a, b in zip(first.low_rank[k], second.low_rank[k], strict=True)]
    return (
        set(first.weights) == set(second.weights)
        and set(first.low_rank) == set(second.low_rank)
        and all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
        and (first.guidance, first.trace) == (second.guidance, second.trace)
    )


@pytest.mark.parametrize(
    "erasure",
    [
        Erasure(),
        Erasure({"unet.a.weight": torch.randn(3, 4), "text_encoder.b": torch.randn(2).bfloat16()}),
        Erasure(low_rank={"unet.a.weight": FACTORS}),
        Erasure({"unet.a.weight": torch.randn(4, 6)}, {"unet.a.weight": FACTORS}),
        Erasure(guidance=ClassifierFreeGuidance("nudity, Ärger")),
        Erasure(trace=({"step": 1.0, "loss": 0.1}, {"step": 2.0, "loss": 1e-30})),
        Erasure(trace=({"step": 1.0, "word": "town"}, {"step": 2.0, "score": 0.25})),
    ],
    ids=["nothing", "weights", "low rank", "both", "guidance", "trace", "uneven trace"],
)
def test_what_is_saved_is_loaded(erasure: Erasure, tmp_path: Path) -> None:
    erasure.save(tmp_path)
    assert same(erasure, Erasure.load(tmp_path))


def test_a_record_is_kept_and_is_no_change_of_the_model(tmp_path: Path) -> None:
    erasure = Erasure(record={"embeddings": torch.rand(2, 3, 4)})
    erasure.save(tmp_path)
    loaded = Erasure.load(tmp_path)
    assert torch.equal(loaded.record["embeddings"], erasure.record["embeddings"])
    assert not loaded.weights and loaded.parameters_changed == 0


def test_slices_and_parameters_can_be_saved(tmp_path: Path) -> None:
    whole = torch.nn.Parameter(torch.randn(4, 6))
    Erasure({"unet.a": whole[:, 1:3], "unet.b": whole.t()}).save(tmp_path)
    found = Erasure.load(tmp_path)
    assert torch.equal(found.weights["unet.a"], whole[:, 1:3])
    assert torch.equal(found.weights["unet.b"], whole.t())


def test_equal_erasures_have_equal_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        torch.manual_seed(0)
        weights = {key: torch.randn(3) for key in ("unet.b", "unet.a")}
        Erasure(weights, {"unet.c": FACTORS}).save(tmp_path / name)
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]


def test_changed_parameters_are_counted() -> None:
    assert Erasure().parameters_changed == 0
    assert Erasure({"unet.a": torch.zeros(3, 4)}, {"unet.b": FACTORS}).parameters_changed == 12 + 8 + 12


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["weights", "up", "down"])
def test_numbers_that_are_not_finite_are_refused(bad: float, where: str) -> None:
    tensors = {"weights": torch.zeros(3), "up": torch.zeros(2, 1), "down": torch.zeros(1, 2)}
    tensors[where].view(-1)[-1] = bad
    erasure = Erasure({"unet.a": tensors["weights"]}, {"unet.b": (tensors["up"], tensors["down"])})
    with pytest.raises(FloatingPointError, match=f"in unet.{'a' if where == 'weights' else 'b'}$"):
        check_finite(erasure)


def test_finite_numbers_pass() -> None:
    check_finite(Erasure({"unet.a": torch.full((2,), 1e38)}, {"unet.b": FACTORS}))


@pytest.mark.parametrize("name", ["classifier-free", "safe-latent"])
def test_every_rule_survives_json(name: str) -> None:
    rule = RULES.get(name).make()
    assert to_json(rule)["rule"] == name and "plugin" not in to_json(rule)
    assert from_json(to_json(rule)) == rule


def test_classifier_free_guidance() -> None:
    prompt, other = torch.tensor([3.0]), torch.tensor([1.0])
    combine = ClassifierFreeGuidance("a dog").start()
    assert ClassifierFreeGuidance("a dog").texts == ("a dog",)
    for scale, wanted in ((0.0, 1.0), (1.0, 3.0), (7.5, 16.0)):
        assert combine(0, prompt, [other], scale).item() == wanted
