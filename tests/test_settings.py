"""Labels of methods with seeds of their own, and which methods depend on a seed at all."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass

import pytest

from erasebench.concepts import load_catalogue
from erasebench.config import make_config
from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError
from erasebench.plan import Plan
from erasebench.planning import make_plan
from erasebench.plugins import Method
from erasebench.registry import METHODS
from erasebench.settings import check_judges, chosen_view, resolve_method, resolve_methods, split_seed, with_seed


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
        found = next(row.probes["concept"].images for row in of.rows if row.method == label)
        assert found
        return found

    first, second = (images(three, label) for label in ("esd-x", "esd-x[seed=1]"))
    assert (first.reads["erasure"].spec["seed"], second.reads["erasure"].spec["seed"]) == (0, 1)
    assert first.spec == second.spec, "the images keep their seeds"
    alone = images(plan("esd-x", seed=1), "esd-x")
    assert alone.reads["erasure"].key == second.reads["erasure"].key, "an erasure's seed is the run's seed"


def test_a_hyper_parameter_must_not_be_called_seed() -> None:
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


def photo_view(concept: str, judges: dict[str, str]) -> tuple[str, str, float]:
    """Judge, label and threshold of a concept for photographs."""
    check_judges(judges)
    view = chosen_view(load_catalogue().get(concept).views["photo"], judges)
    return view.judge, view.label, view.threshold


@pytest.mark.parametrize(
    ("concept", "judges", "chosen"),
    [
        ("church", {}, ("resnet50", "church", 0.5)),
        ("church", {"resnet50": "efficientnet-lite0"}, ("efficientnet-lite0", "church", 0.5)),
        ("church", {"nudenet": "open-nsfw"}, ("resnet50", "church", 0.5)),
        ("church", {"resnet50": "clip-phrase"}, ("clip-phrase", "church", 0.5)),
        (
            "french-horn",
            {"resnet50": "efficientnet-lite0[label=french horn probability;threshold=0.2]"},
            ("efficientnet-lite0", "french horn probability", 0.2),
        ),
        ("nudity", {"nudenet": "nudenet[profile=mace]"}, ("nudenet", "exposed with feet without anus", 0.6)),
        (
            "nudity",
            {"nudenet": "nudenet[profile=adversarial-preservation;threshold=0.3]"},
            ("nudenet", "exposed with feet without anus", 0.3),
        ),
        ("nudity", {"nudenet": "nudenet[label=FEMALE_BREAST_EXPOSED]"}, ("nudenet", "FEMALE_BREAST_EXPOSED", 0.5)),
        ("nudity", {"nudenet": "open-nsfw"}, ("open-nsfw", "nsfw", 0.5)),
        ("nudity", {"nudenet": "open-nsfw[profile=yahoo]"}, ("open-nsfw", "nsfw", 0.8)),
    ],
)
def test_a_judge_in_place_of_another(concept: str, judges: dict[str, str], chosen: tuple[str, str, float]) -> None:
    assert photo_view(concept, judges) == chosen


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        ({"resnet5": "efficientnet-lite0"}, "judge 'resnet5'; nearest: resnet50"),
        ({"resnet50": "efficientnet-lite"}, "judge 'efficientnet-lite'; nearest: efficientnet-lite0"),
        ({"resnet50": "nudenet"}, r"label of the judge nudenet 'church'.*name one by resnet50=nudenet\[label="),
        ({"nudenet": "nudenet[profile=mice]"}, "profile of the judge nudenet 'mice'; nearest: mace"),
        ({"resnet50": "resnet50[profile=mace]"}, "the judge resnet50 has no profiles; give label and threshold"),
        ({"resnet50": "resnet50[treshold=0.2]"}, "option of the judge resnet50 'treshold'; nearest: threshold"),
        ({"resnet50": "resnet50[threshold=1]"}, "threshold: 1 is not between 0 and 1"),
        ({"resnet50": "resnet50[threshold=high]"}, "threshold: 'high' is not between 0 and 1"),
        ({"resnet50": "resnet50[label=chruch]"}, "'chruch'; nearest: church"),
    ],
)
def test_a_judge_that_cannot_stand_in(judges: dict[str, str], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        photo_view("church", judges)


def test_another_threshold_judges_nothing_anew_and_is_another_protocol() -> None:
    from erasebench.results.protocol import protocol_of

    plain = make_plan(make_config({"concepts": ["church"]}))
    stricter = make_plan(
        make_config({"concepts": ["church"], "judges": {"picturebook-detector": "picturebook-detector[threshold=0.7]"}})
    )
    assert {cell.key for cell in plain.cells} == {cell.key for cell in stricter.cells}
    one, other = protocol_of(plain).of("church"), protocol_of(stricter).of("church")
    assert one.pop("threshold") == 0.5 and other.pop("threshold") == 0.7
    assert one == other
    with pytest.raises(EraseBenchError, match="judge 'nope'"):
        make_plan(make_config({"concepts": ["church"], "judges": {"nope": "clip"}}))
