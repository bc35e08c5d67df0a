"""What the benchmarks share: the built-in model, and timing that is fair on a machine whose speed varies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from erasebench.models.diffusion import DiffusionModel
from erasebench.models.loading import find_model, load_model

Show = Callable[[str, Mapping[str, str]], None]


@pytest.fixture(scope="session")
def model() -> DiffusionModel:
    """Picturebook in float32 on the CPU."""
    return load_model(find_model("picturebook"), "cpu", "float32")


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Prints a table of figures, whether or not pytest captures."""

    def table(title: str, figures: Mapping[str, str]) -> None:
        with capsys.disabled():
            print(f"\n\n{title}")
            for name, figure in figures.items():
                print(f"  {name:<46} {figure:>20}")

    return table
