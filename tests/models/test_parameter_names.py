from __future__ import annotations

import pytest

from erasebench.errors import EraseBenchError
from erasebench.models.parameter_names import parameter_name


def test_an_unprefixed_key_of_both_parts_is_not_guessed() -> None:
    known = ["unet.a.weight", "text_encoder.a.weight"]
    assert parameter_name("text_encoder.a.weight", known) == "text_encoder.a.weight"
    with pytest.raises(EraseBenchError, match=r"'a\.weight' could be unet\.a\.weight or text_encoder\.a\.weight"):
        parameter_name("a.weight", known)
