from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasebench.config import RunConfig, make_config, read_preset
from erasebench.config_options import config_options, read_options
from erasebench.errors import UnknownNameError


def test_every_key_is_an_option_with_help() -> None:
    options = {option.name: option for option in config_options()}
    assert set(options) == {*RunConfig.model_fields, "config", "preset"}
    assert all(getattr(option, "help", None) for option in options.values())


def test_options_go_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("prompts: 7\nseed: 3\nmethods: [uce]\n")
    given: dict[str, Any] = {"config": path, "preset": "smoke", "seed": "5", "methods": None}
    given |= {"prompt_sets": "i2p=a.csv,more=b=c.csv", "settings": "esd-x.steps=9,uce.guide=art"}
    config = read_options(given)
    assert (config.retain_prompts, config.prompts, config.seed, config.methods) == (6, 7, 5, ("uce",))
    assert config.prompt_sets == {"i2p": Path("a.csv"), "more": Path("b=c.csv")}
    assert config.settings["esd-x"] == {"steps": 9, "batch_size": 2, "sampling_steps": 4}
    assert config.settings["uce"] == {"guide": "art"}


def test_the_preset_fits_the_model(tmp_path: Path) -> None:
    assert read_options({}).batch_size == make_config(read_preset("quick")).batch_size == 25
    assert read_options({"model": "some/folder"}).images_per_prompt == 10
    path = tmp_path / "my.yaml"
    path.write_text("methods: [uce]\n")
    assert read_options({"config": path}).batch_size == 25
    path.write_text("model: some/folder\n")
    assert read_options({"config": path}).images_per_prompt == 10


def test_a_preset_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("preset: smoke\nprompts: 3\n")
    config = read_options({"config": path})
    assert (config.retain_prompts, config.prompts) == (6, 3)
    config = read_options({"config": path, "preset": "quick"})
    assert (config.retain_prompts, config.prompts) == (100, 3)
    path.write_text("preset: smok\n")
    with pytest.raises(UnknownNameError, match="unknown preset 'smok'; nearest: smoke"):
        read_options({"config": path})
