"""Labels of methods with seeds of their own, and which methods depend on a seed at all."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass

import pytest

from erasebench.config import make_config
from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError
from erasebench.plan import Plan, make_plan
from erasebench.plugins import Method
from erasebench.registry import METHODS
from erasebench.settings import resolve_method, resolve_methods, split_seed, with_seed


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("esd-x", ("esd-x", None)),
        ("esd-x[seed=3]", ("esd-x", 3)),
        ("esd-u[steps=200; seed=0 ;learning_rate=1e-4]", ("esd-u[steps=200;learning_rate=1e-4]", 0)),
        ("uce[preserve=neighbours;seed=7]", ("uce[preserve=neighbours]", 7)),
        ("dark-miner[pool_seed=1]", ("dark-miner[pool_seed=1]", None)),
    ],
)
def test_a_label_and_its_seed(label: str, parts: tuple[str, int | None]) -> None:
    assert split_seed(label) == parts
    without, seed = parts
    if seed is not None:
        assert split_seed(with_seed(without, seed)) == parts


@pytest.mark.parametrize("seed", ["-1", "1.5", "three", "true", str(2**63), ""])
def test_a_seed_that_is_none(seed: str) -> None:
    with pytest.raises(EraseBenchError, match=r"method esd-x\[seed=.*: seed is a whole number from 0"):
        resolve_method(f"esd-x[seed={seed}]", {})


def test_several_seeds_of_the_methods_that_depend_on_one() -> None:
    labels = ("sd", "esd-x", "uce", "esd-u[steps=9]", "esd-x[seed=8]", "esd-x[seed=5]")
    methods = resolve_methods(labels, {}, seed=4, count=3)
    assert [(method.label, method.seed) for method in methods] == [
        *(("sd", None), ("esd-x", None), ("esd-x[seed=5]", 5), ("esd-x[seed=6]", 6), ("uce", None)),
        *(("esd-u[steps=9]", None), ("esd-u[steps=9;seed=5]", 5), ("esd-u[steps=9;seed=6]", 6), ("esd-x[seed=8]", 8)),
    ]
    assert [method.label for method in resolve_methods(labels, {}, 4, 1)] == list(labels)


def plan(*methods: str, seeds: int | None = None, **options: object) -> Plan:
    given = {} if seeds is None else {"erasure_seeds": seeds}
    return make_plan(
        make_config(
            {"methods": list(methods), "concepts": ["church"], "attacks": ["none", "seed-search"], "device": "cpu"},
            given,
            options,
        )
    )


def test_seeds_leave_the_cells_that_there_were_as_they_are() -> None:
    before, one, three = (plan("esd-x", "uce", seeds=seeds) for seeds in (None, 1, 3))
    assert [cell.key for cell in before.cells] == [cell.key for cell in one.cells]
    assert {cell.key for cell in before.cells} < {cell.key for cell in three.cells}
    assert [row.method for row in three.rows] == ["sd", "esd-x", "esd-x[seed=1]", "esd-x[seed=2]", "uce"]
    assert [(row.method, row.attack) for row in three.attacks if row.method == "esd-x[seed=2]"] == [
        ("esd-x[seed=2]", "none"),
        ("esd-x[seed=2]", "seed-search"),
    ]

    def images(of: Plan, label: str) -> Cell:
        found = next(row.images for row in of.rows if row.method == label)
        assert found
        return found

    first, second = (images(three, label) for label in ("esd-x", "esd-x[seed=1]"))
    assert (first.reads["erasure"].spec["seed"], second.reads["erasure"].spec["seed"]) == (0, 1)
    assert first.spec == second.spec, "the images keep their seeds"
    alone = images(plan("esd-x", seed=1), "esd-x")
    assert alone.reads["erasure"].key == second.reads["erasure"].key, "an erasure's seed is the run's seed"


def test_a_hyper_parameter_must_not_be_called_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Seeded(Method):
        seed: int = 0

        def erase(self, model: object, concepts: object, context: object) -> object:  # type: ignore[override]
            raise NotImplementedError

    METHODS.register("seeded-of-its-own")(Seeded)
    try:
        with pytest.raises(EraseBenchError, match="has a hyper-parameter 'seed', which is the erasure's; rename it"):
            resolve_method("seeded-of-its-own", {})
    finally:
        del METHODS.loaded["seeded-of-its-own"]


def test_methods_that_say_they_depend_on_a_seed_read_it_and_no_others() -> None:
    modules: dict[str, set[bool]] = {}
    for name in METHODS.names():
        make = METHODS.get(name).make
        modules.setdefault(make.__module__, set()).add(make.seeded)  # type: ignore[attr-defined]
    assert {len(said) for said in modules.values()} == {1}
    reads = {module: "context.seed" in inspect.getsource(sys.modules[module]) for module in modules}
    assert {module: said.pop() for module, said in modules.items()} == reads
    assert sorted(set(reads.values())) == [False, True]
