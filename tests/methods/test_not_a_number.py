"""What is not a number is out of every range, also where a method is made in Python, past the command line's checks."""

from __future__ import annotations

import math

import pytest

from erasebench.errors import EraseBenchError
from erasebench.registry import METHODS


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("ap-x", "learning_rate", "must be positive"),
        ("ca", "learning_rate", "must be positive"),
        ("dm2", "clip", "must be positive"),
        ("dm2", "time_budget", "must be positive"),
        ("esd-u", "learning_rate", "must be positive"),
        ("fmn", "gradient_clip", "must be positive"),
        ("mace", "temperature", "must be positive"),
        ("salun", "learning_rate", "must be positive"),
        ("uce", "lamb", "must be positive"),
        ("uce", "erase_scale", "must be at least 0"),
        ("uce", "preserve_scale", "must be at least 0"),
        ("esd-x", "start_guidance", "must be at least 0"),
        ("ap-u", "start_guidance", "must be at least 0"),
        ("ca", "guidance_scale", "must be at least 0"),
        ("mace", "guidance_scale", "must be at least 0"),
        ("ap-x", "preservation_weight", "must be at least 0"),
        ("ca", "weight_decay", "must be at least 0"),
        ("ca", "prior_weight", "must be at least 0"),
        ("dm2", "preserve_weight", "must not be negative"),
        ("dm2", "guidance_scale", "must be at least 0"),
        ("dm2", "replay", "must be between 0 and 1"),
        ("fmn", "weight_decay", "must be at least 0"),
        ("fmn", "guidance_scale", "must be at least 0"),
        ("mace", "lamb", "must not be negative"),
        ("salun", "saliency", "must be more than 0 and at most 1"),
        ("salun", "alpha", "must be at least 0"),
        ("salun", "guidance_scale", "must be at least 0"),
        ("sld-medium", "scale", "must be at least 0"),
        ("sld-medium", "momentum_beta", "must be between 0 and 1"),
    ],
)
def test_nan_is_refused_by_the_check_of_a_range(method: str, option: str, message: str) -> None:
    plugin = METHODS.get(method)
    assert plugin.make(**{**plugin.presets, option: 0.5})
    with pytest.raises(EraseBenchError, match=rf"^{option} {message}, (but is|not) nan$"):
        plugin.make(**{**plugin.presets, option: math.nan})
