"""The image viewer's section of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from erasebench.engine.store import Store
from erasebench.results.run_folder import RunFolder


def viewer_section(runs: Sequence[RunFolder], stores: Sequence[Store], out: Path) -> Markup:
    """The section of images; empty until there is a viewer.

    Args:
        runs: what to show.
        stores: of each run, where its images are.
        out: the report's file, beside which larger images may lie.
    """
    return Markup()
