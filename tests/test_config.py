from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasebench.config import make_config, parse_method, read_layer, read_preset, split_list
from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.named_files import PRESETS


def test_a_later_layer_wins_key_by_key_and_setting_by_setting() -> None:
    low = {"steps": 5, "seed": 1, "settings": {"esd-x": {"steps": 2, "batch_size": 2}, "uce": {"lamb": 1.0}}}
    config = make_config(low, {"seed": 2, "settings": {"esd-x": {"steps": 9}}})
    assert (config.steps, config.seed) == (5, 2)
    assert config.settings == {"esd-x": {"steps": 9, "batch_size": 2}, "uce": {"lamb": 1.0}}
    assert low["settings"] == {"esd-x": {"steps": 2, "batch_size": 2}, "uce": {"lamb": 1.0}}


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_is_a_configuration(name: str) -> None:
    assert make_config(read_preset(name)).prompts >= 1


def test_yaml_brings_a_configuration_back(tmp_path: Path) -> None:
    config = make_config(
        read_preset("smoke"),
        {
            "methods": ["uce[lamb=0.3;guide='a: b']", "esd-x"],
            "concepts": ["phrase:rouge à lèvres", "church"],
            "store": tmp_path / "s",
            "prompt_sets": {"i2p": tmp_path / "i2p.csv"},
            "guidance_scale": 3.5,
            "compile": True,
        },
    )
    (tmp_path / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert make_config(read_layer(tmp_path / "run.yaml")) == config
    assert make_config(read_layer(tmp_path / "run.yaml")).to_yaml() == config.to_yaml()


def test_a_store_is_a_folder_or_a_url(tmp_path: Path) -> None:
    for text, store in (("s3://bucket/a", "s3://bucket/a"), ("some/where", Path("some/where"))):
        config = make_config({"store": text})
        assert config.store == store
        (tmp_path / "run.yaml").write_text(config.to_yaml())
        assert make_config(read_layer(tmp_path / "run.yaml")) == config


def test_a_run_of_the_baseline_alone_comes_back(tmp_path: Path) -> None:
    config = make_config({"concepts": ["church"]})
    (tmp_path / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert make_config(read_layer(tmp_path / "run.yaml")) == config
    assert config.methods == ()


def test_a_list_in_a_file_may_be_written_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("methods: uce, esd-x[steps=2;batch_size=1]\nconcepts: church")
    made = make_config(read_layer(tmp_path / "run.yaml"))
    assert made.methods == ("uce", "esd-x[steps=2;batch_size=1]") and made.concepts == ("church",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a, b ,c", ["a", "b", "c"]),
        ("a[x=1,2],b[y=[1,2]]", ["a[x=1,2]", "b[y=[1,2]]"]),
        ("", []),
        (",a,", ["a"]),
    ],
)
def test_lists_are_split_outside_brackets(text: str, parts: list[str]) -> None:
    assert split_list(text) == parts


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("uce", ("uce", {})),
        (" esd-u [steps=200; learning_rate=1.0e-4] ", ("esd-u", {"steps": 200, "learning_rate": 1e-4})),
        (
            "uce[guide=a b;lamb=.5;expand_prompts=false]",
            ("uce", {"guide": "a b", "lamb": 0.5, "expand_prompts": False}),
        ),
        ("uce[guide='a=b']", ("uce", {"guide": "a=b"})),
        ("uce[]", ("uce", {})),
        ("replay[method=esd-x[steps=2;seed=1];by=rab]", ("replay", {"method": "esd-x[steps=2;seed=1]", "by": "rab"})),
    ],
)
def test_a_method_has_its_options_in_brackets(text: str, method: tuple[str, dict[str, Any]]) -> None:
    assert parse_method(text) == method


@pytest.mark.parametrize("text", ["uce[lamb]", "uce[lamb=1", "", "[lamb=1]", "uce[lamb={]", "uce[a=1]b"])
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(EraseBenchError, match=r"write name or name|is no option; write|is no value"):
        parse_method(text)


def test_an_unknown_preset_or_key_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown preset 'smok'; nearest: smoke"):
        read_preset("smok")
    with pytest.raises(UnknownNameError, match="unknown configuration key 'batchsize'; nearest: batch_size"):
        make_config({"batchsize": 4})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[a]", "holds no mapping"), (b"a: [", "not valid YAML"), (b"\xff", "not valid YAML"), (b"", "holds no mapping")],
)
def test_a_file_that_holds_no_configuration(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(EraseBenchError, match=message) as error:
        read_layer(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
