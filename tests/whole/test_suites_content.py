"""The packaged suites: whether what they name is there, and whether their quick scale can run on Picturebook."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from erasebench.concepts import Catalogue, load_catalogue
from erasebench.config import RunConfig, make_config
from erasebench.errors import NotApplicable
from erasebench.metrics.metric import load_metrics
from erasebench.named_files import suite_files
from erasebench.planning import make_plan
from erasebench.registry import JUDGES
from erasebench.results.published import OR, read_published
from erasebench.settings import (
    check_judges,
    chosen_view,
    judge_options,
    plugin_settings,
    resolve_attack,
    resolve_method,
)
from erasebench.suites import Scale, Suite, parse_suite, read_suite

NAMES = sorted(suite_files())
OF_PAPERS = [name for name, path in sorted(suite_files().items()) if parse_suite(path).paper]
PAPERS = {"adversarial-preservation", "dark-miner", "esd", "i2p", "mace"}
SCALES: tuple[Scale, ...] = ("paper", "quick")
DOMAINS = {"paper": "photo", "quick": "picturebook"}
MOST_IMAGES = 700
"""Of a quick run; at four a second on one processor three minutes, which leaves one for erasures."""


@cache
def catalogue() -> Catalogue:
    return load_catalogue()


@cache
def suite(name: str) -> Suite:
    return read_suite(name)


@cache
def numbers() -> pd.DataFrame:
    return read_published()


@cache
def config(name: str, scale: Scale) -> RunConfig:
    return make_config(*suite(name).of_scale(scale))


def erased(run: RunConfig) -> set[str]:
    """The names of concepts and groups that a run erases."""
    return set(run.concepts)


def members(names: tuple[str, ...]) -> list[str]:
    """The concepts of a run's list, those of groups and joint ones one by one."""
    return [part.name for name in names if name != "neighbours" for part in catalogue().get(name).parts]


@cache
def published(name: str) -> pd.DataFrame:
    """The reported numbers of a suite's tables, of the model that it erases from."""
    known = numbers()[(numbers()["source"] == suite(name).paper) & numbers()["table"].isin(suite(name).tables)]
    model = config(name, "paper").model
    return known[known["model"] == {"stabilityai/stable-diffusion-2-base": "SD v2.0"}.get(model, model)]


def test_every_table_with_runs_has_a_suite() -> None:
    assert len(NAMES) == 26
    covered = {(suite(name).paper, table) for name in NAMES for table in suite(name).tables}
    tables = numbers()[["source", "table"]].drop_duplicates().itertuples(index=False)
    assert {(row.source, row.table) for row in tables} - covered == {
        ("dark-miner", "Table S6"),  # of the score that its method verifies by
        ("dark-miner", "Table S7"),
        ("adversarial-preservation", "Table 3"),  # compares words
        ("mace", "Table 8"),  # counts images
        ("esd", "Figure 6"),  # asks people
    }
    assert {suite(name).paper for name in NAMES} == {*PAPERS, None}


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_is_there(name: str) -> None:
    for scale in SCALES:
        run = config(name, scale)
        assert run.methods and run.concepts, scale
        for one in (*members(run.concepts), *members(run.others)):
            assert DOMAINS[scale] in catalogue().get(one).views, (scale, one)
        settings = plugin_settings(DOMAINS[scale], run.settings)
        for method in run.methods:
            resolve_method(method, settings)
        for attack in run.attacks:
            resolve_attack(attack, settings)
        assert set(run.metrics) <= set(load_metrics())
        assert set(run.prompt_sets) <= set(catalogue().prompt_sets)
        check_judges(run.judges)
        for text in run.judges.values():
            judge, options = judge_options(text)
            assert options.get("label") in (None, *(JUDGES.get(judge).make().labels or ()))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_runs_and_what_it_prints(name: str) -> None:
    paper, quick = config(name, "paper"), config(name, "quick")
    assert paper.model != "picturebook" and quick.model == "picturebook"
    assert not quick.prompt_sets, "Picturebook has prompts of its own"
    metrics = load_metrics()
    for metric in suite(name).table.metrics:
        assert metric in paper.metrics or not metrics[metric].on_request, f"{metric} is printed and not measured"
    needed = {probe for metric in suite(name).table.metrics for probe in metrics[metric].probes}
    assert ("others" in needed) <= bool(paper.others and quick.others)
    assert ("attacked" in needed) == bool(paper.attacks)


@pytest.mark.parametrize("name", OF_PAPERS)
def test_it_runs_what_the_papers_tables_have(name: str) -> None:
    run, lines = config(name, "paper"), published(name)
    assert len(lines), "the tables have numbers of another model only"
    measured = {"sd", *run.methods}
    for cell in lines["method"].unique():
        assert not cell or measured & set(cell.split(OR)), cell
    for cell in lines["attack"].unique():
        assert not cell or set(run.attacks) & set(cell.split(OR)), cell
    assert set(lines["concept"]) - {""} <= erased(run)
    asked = set(lines["metric"]) - {""}
    assert asked <= set(suite(name).table.metrics)


@pytest.mark.parametrize("name", OF_PAPERS)
def test_something_is_measured_beside_what_is_reported(name: str) -> None:
    quick, stand_ins, reported = config(name, "quick"), suite(name).stand_ins, set(published(name)["concept"])
    assert set(stand_ins.values()) <= erased(quick)
    # A number of no one concept is of all.
    assert {stand_ins.get(concept, concept) for concept in reported} & {*erased(quick), ""}
    assert {"sd", *quick.methods} & {one for cell in published(name)["method"] for one in cell.split(OR)}


def test_dark_miners_objects_are_judged_by_a_yolo_as_in_the_paper() -> None:
    run = config("dark-miner-table-1", "paper")
    for name in ("church", "french-horn"):
        view = chosen_view(catalogue().get(name).views["photo"], run.judges)
        assert (view.judge, view.label, view.threshold) == ("yolov8-imagenette", name.replace("-", " "), 0.5)
    assert run.judges["nudenet"] == "nudenet[profile=dark-miner]", "the layer of a scale replaces all judges"
    settings = plugin_settings("photo", run.settings)
    for name in run.concepts:
        attack = resolve_attack("cce", settings).instance.resolved([catalogue().get(name).seen_in("photo")])
        assert attack.images == 1000, "also of styles"  # type: ignore[attr-defined]


def test_what_cannot_be_erased_at_paper_scale_is_said() -> None:
    found = set()
    for name in NAMES:
        run = config(name, "paper")
        settings, said = plugin_settings("photo", run.settings), suite(name)
        for text, concept in product(run.methods, run.concepts):
            parts = [part.seen_in("photo") for part in catalogue().get(concept).parts]
            method = resolve_method(text, settings)
            made = method.instance.resolved(parts)
            try:
                made.check("photo", parts)
            except NotApplicable as reason:
                found.add((name, method.name))
                if "prior=FILE" in str(reason):
                    assert any("mace.prior=FILE" in line for line in said.unverified), name
                else:
                    assert any(method.name in key.lower().split() for key in said.unavailable), (name, str(reason))
    assert {method for _, method in found} == {"ca", "mace"}


@pytest.mark.parametrize("name", NAMES)
def test_what_fid_needs_is_said(name: str) -> None:
    metrics = load_metrics()
    asked = {one for one in suite(name).table.metrics if "reference" in metrics[one].probes}
    assert any("--fid-reference" in line for line in suite(name).unverified) == bool(asked)


@pytest.mark.parametrize("name", NAMES)
def test_its_quick_scale_is_small_and_can_run(name: str, tmp_path: Path) -> None:
    folders = {"store": tmp_path / "store", "out": tmp_path / "out"}
    plan = make_plan(config(name, "quick").model_copy(update=folders))
    assert plan.source.name == "picturebook"
    assert not [row.reason for row in plan.rows if row.reason] and not [row for row in plan.attacks if row.reason]
    drawn = [cell.spec["prompts"] for cell in plan.cells if cell.stage == "generate" and "prompts" in cell.spec]
    if name != "dark-miner-table-1":  # which is run once, with all that is implemented
        assert 0 < sum(map(len, drawn)) <= MOST_IMAGES
