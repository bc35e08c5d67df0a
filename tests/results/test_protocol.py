"""Which rows of two runs can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.config import make_config, read_preset
from erasebench.planning import make_plan
from erasebench.results.protocol import Protocol, attack_differences, differences, protocol_of
from erasebench.results.record import read_record


def protocol(tmp_path: Path, **options: object) -> Protocol:
    places = {"store": tmp_path / "store", "out": tmp_path / "out", "device": "cpu"}
    given = {"methods": ["uce"], "concepts": ["church", "nudity"], **places, **options}
    return protocol_of(make_plan(make_config(read_preset("smoke"), given)))


def test_other_methods_seeds_and_folders_are_no_other_protocol(tmp_path: Path) -> None:
    one = protocol(tmp_path)
    same = protocol(tmp_path / "elsewhere", methods=["esd-x"], seed=7, concepts=["nudity", "church"], batch_size=3)
    assert differences(one, same, "church") == []
    assert one.checksum("church") == same.checksum("church") != one.checksum("nudity")
    assert one.run_checksum() == same.run_checksum() != protocol(tmp_path, concepts=["church"]).run_checksum()


ATTACKS = ["seed-search", "standard"]


def test_attacks_are_known_by_prompts_budget_and_judge_and_not_by_methods_and_seeds(tmp_path: Path) -> None:
    one = protocol(tmp_path, attacks=ATTACKS)
    same = protocol(tmp_path, methods=["sld-max", "esd-x"], attacks=[*ATTACKS, "cce"], seed=3, floor_prompts=1)
    for attack in ("none", *ATTACKS):
        assert attack_differences(one, same, "church", attack) == []
        assert one.attack_checksum("church", attack) == same.attack_checksum("church", attack) != ""
        assert one.attack_checksum("nudity", attack) != one.attack_checksum("church", attack)
    # What attacks add does not touch what holds without them.
    bare = protocol(tmp_path)
    assert one.checksum("church") == bare.checksum("church") and one.run_checksum() != bare.run_checksum()
    assert bare.attack_checksum("church", "standard") == ""
    assert attack_differences(one, bare, "church", "standard") is None


@pytest.mark.parametrize(
    ("options", "attack", "difference"),
    [
        ({"attack_prompts": 3}, "seed-search", "attacked prompts: "),
        ({"settings": {"seed-search": {"draws": 3}}}, "seed-search", "draws of seed-search: "),
        ({"settings": {"unlearndiff": {"steps": 3}}}, "standard", "steps of unlearndiff: "),
    ],
)
def test_an_attack_of_another_budget_cannot_be_compared(
    options: dict[str, object], attack: str, difference: str, tmp_path: Path
) -> None:
    one, other = (protocol(tmp_path, attacks=ATTACKS, **more) for more in ({}, options))
    lines = attack_differences(one, other, "church", attack)
    assert lines and len(lines) == 1 and lines[0].startswith(difference)
    assert one.attack_checksum("church", attack) != other.attack_checksum("church", attack)
    assert one.checksum("church") == other.checksum("church") and one.run_checksum() != other.run_checksum()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"steps": 7}, "sampler steps: 6 and 7"),
        ({"guidance_scale": 3.0}, "sampler guidance_scale: 5.0 and 3.0"),
        ({"dtype": "bfloat16"}, "dtype: float32 and bfloat16"),
        ({"prompts": 3}, "prompts: 4 images of 4 prompts "),
        ({"images_per_prompt": 2}, "prompts: 4 images of 4 prompts "),
        ({"prompt_kinds": ["naming"]}, "prompts: 4 images of 4 prompts "),
        ({"retain_prompts": 5}, "unrelated prompts: 6 images of 6 prompts "),
        ({"reference_images": 17}, "reference images: "),
    ],
)
def test_what_differs_is_named(options: dict[str, object], difference: str, tmp_path: Path) -> None:
    one, other = protocol(tmp_path), protocol(tmp_path, **options)
    (found,) = differences(one, other, "nudity")
    assert found.startswith(difference)
    assert one.checksum("nudity") != other.checksum("nudity")


def test_another_judge_is_another_protocol(tmp_path: Path) -> None:
    one = protocol(tmp_path)
    other = one.model_copy(update={"concepts": {"church": {**one.concepts["church"], "threshold": 0.7}}})
    assert differences(one, other, "church") == ["threshold: 0.5 and 0.7"]


def test_the_record_of_a_run_holds_it(finished: Path) -> None:
    found = read_record(finished / "out").protocol
    assert found and set(found.concepts) == {"church", "nudity"}
    facts = found.of("church")
    assert facts["judge"] and str(facts["judge"]).startswith("picturebook-detector 1 ")
    assert facts["label"] == "church" and facts["threshold"] == 0.5 and facts["model"] == "picturebook"


def test_numbers_of_other_concepts_enter_no_checksum_of_the_concept(tmp_path: Path) -> None:
    plain, asked, more = (protocol(tmp_path, others=others) for others in ([], ["crayon"], ["crayon", "tench"]))
    assert plain.checksum("church") == asked.checksum("church") and plain.run_checksum() != asked.run_checksum()
    assert differences(plain, asked, "church") == []
    (line,) = differences(asked, more, "church")
    assert line.startswith("prompts of other concepts: ")
