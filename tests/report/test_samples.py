"""Sheets and curves of a run folder are drawn from its record, its scores and the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench.engine.store import Store
from erasebench.report.samples import draw_grids
from erasebench.results.record import Record, read_record
from erasebench.results.run_folder import read_run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture
def record(finished: Path) -> Record:
    return read_record(finished / "out")


def test_what_a_run_drew_is_drawn_again_from_its_folder(finished: Path, record: Record, tmp_path: Path) -> None:
    draw_grids(record, read_run(finished / "out").scores, Store(finished / "store"), tmp_path / "grids")
    names = {path.name for path in (tmp_path / "grids").iterdir()}
    assert names == {"sd-church.png", "sd-nudity.png", "uce-church.png", "uce-nudity.png"}, "failing drew nothing"
    for name in names:
        assert (tmp_path / "grids" / name).read_bytes() == (finished / "out" / "grids" / name).read_bytes()


def test_sensitive_concepts_of_other_domains_are_blurred_also_in_sheets_that_are_there(
    finished: Path, record: Record, tmp_path: Path
) -> None:
    scores, store, folder = read_run(finished / "out").scores, Store(finished / "store"), tmp_path / "grids"
    draw_grids(record, scores, store, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    draw_grids(record.model_copy(update={"domain": "photo"}), scores, store, folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"sd-nudity.png", "uce-nudity.png"}


def test_a_concept_that_is_called_as_a_method_and_another_is_has_sheets_of_its_own(
    finished: Path, record: Record, tmp_path: Path
) -> None:
    own = [row for row in record.rows if row.concept == "church" and row.method in ("sd", "uce")]
    named = [
        row.model_copy(update={"concept": "uce-church"}) for row in (*own, own[1].model_copy(update={"method": "b"}))
    ]
    rows = (*own, *named)
    scores = read_run(finished / "out").scores
    scores = pd.concat([scores, scores.assign(concept=scores["concept"].replace("church", "uce-church"))])
    draw_grids(record.model_copy(update={"rows": rows, "attacks": ()}), scores, Store(finished / "store"), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 6, "two of church, three of the other and one of all three methods"
    alike = list(tmp_path.glob("uce-church-*.png"))
    assert len({pixels(path).shape for path in alike}) == 2 and "uce-church.png" not in names


def test_each_place_has_the_image_of_its_method_and_prompt(finished: Path, record: Record, tmp_path: Path) -> None:
    """Other images in the store give another sheet; two methods with the same images give the same columns."""
    scores, store = read_run(finished / "out").scores, Store(finished / "store")
    sd, uce = (next(row for row in record.rows if (row.method, row.concept) == (m, "church")) for m in ("sd", "uce"))
    twin = uce.model_copy(update={"probes": sd.probes})
    draw_grids(record.model_copy(update={"rows": (sd, uce)}), scores, store, tmp_path / "own")
    draw_grids(record.model_copy(update={"rows": (sd, twin)}), scores, store, tmp_path / "twins")
    own, twins = (pixels(tmp_path / name / "uce-church.png") for name in ("own", "twins"))
    assert own.shape == twins.shape and (own != twins).any()
    assert (pixels(tmp_path / "own" / "sd-church.png") == pixels(tmp_path / "twins" / "sd-church.png")).all()
