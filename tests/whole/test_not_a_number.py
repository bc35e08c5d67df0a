"""What is not a number is out of every range, also where a method is made in Python, past the command line's checks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.registry import METHODS


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("ap-x", "learning_rate"),
        ("ca", "learning_rate"),
        ("dm2", "clip"),
        ("dm2", "time_budget"),
        ("esd-u", "learning_rate"),
        ("fmn", "gradient_clip"),
        ("mace", "temperature"),
        ("salun", "learning_rate"),
        ("uce", "lamb"),
        ("uce", "erase_scale"),
        ("uce", "preserve_scale"),
        ("esd-x", "start_guidance"),
        ("ap-u", "start_guidance"),
        ("ca", "guidance_scale"),
        ("mace", "guidance_scale"),
        ("ap-x", "preservation_weight"),
        ("ca", "weight_decay"),
        ("ca", "prior_weight"),
        ("dm2", "preserve_weight"),
        ("dm2", "guidance_scale"),
        ("dm2", "replay"),
        ("fmn", "weight_decay"),
        ("fmn", "guidance_scale"),
        ("mace", "lamb"),
        ("salun", "saliency"),
        ("salun", "alpha"),
        ("salun", "guidance_scale"),
        ("sld-medium", "scale"),
        ("sld-medium", "momentum_beta"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(method: str, option: str, value: float) -> None:
    plugin = METHODS.get(method)
    assert plugin.make(**{**plugin.presets, option: 0.5})
    with pytest.raises(EraseBenchError, match=rf"^{option}: Input should be a finite number, not {value}$"):
        plugin.make(**{**plugin.presets, option: value})


def test_every_number_of_every_method_has_to_be_finite() -> None:
    for name in METHODS.names():
        plugin = METHODS.get(name)
        made: Any = plugin.make
        for field in dataclasses.fields(made):
            if "float" in str(field.type) or field.type in ("NonNegative", "Positive", "Share"):
                with pytest.raises(EraseBenchError, match=rf"^{field.name}: Input should be a finite number, not nan$"):
                    make_plugin(plugin.make, {**plugin.presets, field.name: math.nan})
