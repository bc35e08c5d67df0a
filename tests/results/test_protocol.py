"""Which rows of two runs can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.config import make_config, read_preset
from erasebench.plan import make_plan
from erasebench.results.protocol import Protocol, differences, protocol_of
from erasebench.results.record import read_record


def protocol(tmp_path: Path, **options: object) -> Protocol:
    places = {"store": tmp_path / "store", "out": tmp_path / "out", "device": "cpu"}
    given = {"methods": ["uce"], "concepts": ["church", "nudity"], **places, **options}
    return protocol_of(make_plan(make_config(read_preset("smoke"), given)))


def test_other_methods_seeds_and_folders_are_no_other_protocol(tmp_path: Path) -> None:
    one = protocol(tmp_path)
    same = protocol(
        tmp_path / "elsewhere", methods=["esd-x"], seed=7, concepts=["nudity", "church"], batch_size=3, attacks=["none"]
    )
    assert differences(one, same, "church") == []
    assert one.checksum("church") == same.checksum("church") != one.checksum("nudity")
    assert one.run_checksum() == same.run_checksum() != protocol(tmp_path, concepts=["church"]).run_checksum()


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
