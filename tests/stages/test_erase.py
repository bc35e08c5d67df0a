"""A method that changes the text encoder has to say so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError
from erasebench.models.erasure import Erasure
from erasebench.stages.erase import check_text_encoder

WEIGHT = "text_encoder.x"


@pytest.mark.parametrize(
    "erasure", [Erasure({WEIGHT: torch.ones(1)}), Erasure(low_rank={WEIGHT: (torch.ones(1, 1), torch.ones(1, 1))})]
)
def test_a_text_encoder_that_changes_unsaid_is_an_error(erasure: Erasure) -> None:
    spec: dict[str, Any] = {"method": "mine"}
    with pytest.raises(EraseBenchError, match=r"mine changes the text encoder \(text_encoder.x\)"):
        check_text_encoder(Cell("erase", spec), erasure)
    check_text_encoder(Cell("erase", {**spec, "changes_text_encoder": True}), erasure)
    check_text_encoder(Cell("erase", spec), Erasure({"unet.x": torch.ones(1)}))
