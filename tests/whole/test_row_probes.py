"""What a row is asked beside its own concept: concepts erased together, other concepts, synonyms, further judges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from erasebench.engine.store import Store
from erasebench.judging import read_column, read_columns
from erasebench.metrics.metric import Measured, load_metrics
from erasebench.results.measure import collect
from erasebench.results.record import read_record
from erasebench.results.scores import read_scores
from erasebench.results.table import read_csv
from tests.engine.runs import command, forget_plugins, load_once, places, plan_of

ASKING = '''"""Metrics of everything that a row may be asked for."""

from erasebench.metrics.metric import Metric
from erasebench.metrics.stats import mean, rate
from erasebench.registry import METRICS


class Asking(Metric):
    unit, direction, meaning, on_request = "", "higher", "for a test", True


@METRICS.register("test-clip")
class Clip(Asking):
    title, probes, roles = "Clip", ("concept", "others"), {"clip": ("concept", "others")}

    def measure(self, measured, base):
        return mean(measured.asked("clip", "others"), measured.probe("others")["prompt_id"])


@METRICS.register("test-distance")
class Distance(Asking):
    title, probes, roles = "Distance", ("concept",), {"distance": ("concept",)}

    def measure(self, measured, base):
        return mean(measured.asked("distance", "concept"), measured.probe("concept")["prompt_id"])


@METRICS.register("test-synonyms")
class Synonyms(Asking):
    title, probes = "Synonyms", ("synonyms",)

    def measure(self, measured, base):
        images = measured.probe("synonyms")
        return rate(images["shown"], images["prompt_id"])
'''
OPTIONS = (
    *("--preset", "smoke", "--methods", "uce", "--concepts", "church+parachute,church,crayon", "--prompts", "2"),
    *("--retain-prompts", "4", "--reference-images", "4", "--steps", "1", "--workers", "1", "--device", "cpu"),
    *("--others", "neighbours,parachute,crayon", "--metrics", "test-clip,test-distance,test-synonyms,composition,cmmd"),
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("asked")
    (folder / "asking.py").write_text(ASKING)
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        assert command("run", *OPTIONS, "--plugins", folder / "asking.py", *places(folder)) == 0
    yield folder
    forget_plugins()


@pytest.fixture(scope="module")
def measured(asked: Path) -> dict[tuple[str, str], Measured]:
    record, scores = read_record(asked / "out"), read_scores(asked / "out")
    return {
        (one.row.method, one.row.concept): one.measured
        for one in collect(record, scores, Store(asked / "store"))
        if one.measured
    }


def test_concepts_erased_together_are_one_row_that_is_judged_member_by_member(
    measured: dict[tuple[str, str], Measured],
) -> None:
    joint = measured["uce", "church+parachute"].probe("concept")
    assert joint["label"].tolist() == ["church"] * 2 + ["parachute"] * 2
    alone = measured["sd", "church"].probe("concept")
    assert joint["prompt_id"].tolist()[:2] == alone["prompt_id"].tolist(), "they are asked what each alone is"
    erasure = plan_of(concepts=["church+parachute"]).rows[1].erasure
    assert erasure and [one["name"] for one in erasure.spec["concepts"]] == ["church", "parachute"]


def test_other_concepts_are_those_that_the_row_does_not_erase(measured: dict[tuple[str, str], Measured]) -> None:
    """Church's neighbours are gas pump and garbage truck, crayon's pencil, watercolor and Van Gogh."""
    labels = {key: dict.fromkeys(one.probe("others")["label"]) for key, one in measured.items()}
    assert list(labels["sd", "church"]) == ["gas-pump", "garbage-truck", "parachute", "crayon"]
    assert list(labels["sd", "church+parachute"]) == ["gas-pump", "garbage-truck", "golf-ball", "crayon"]
    assert list(labels["uce", "crayon"]) == ["pencil", "watercolor", "van-gogh", "parachute"]
    kinds = measured["sd", "church"].probe("others").groupby("label", sort=False)["kind"].unique()
    assert [list(own) for own in kinds] == [["neighbour"], ["neighbour"], ["naming"], ["naming"]]


def test_two_objects_at_once_are_judged_for_the_one_that_is_not_erased(
    measured: dict[tuple[str, str], Measured],
) -> None:
    images = measured["uce", "church"].probe("composition")
    assert images["text"].tolist() == [
        "a photo of a church next to a gas pump",
        "a photo of a church next to a garbage truck",
    ]
    assert images["label"].tolist() == ["gas-pump", "garbage-truck"] and set(images["kind"]) == {"composition"}
    joint = measured["uce", "church+parachute"].probe("composition")
    assert not {"church", "parachute"} & set(joint["label"]), "neither of them is another"
    assert "composition" not in measured["uce", "crayon"].probes, "a style is no object"
    found, base = (
        load_metrics()["composition"].measure(measured[name, "church"], measured["sd", "church"])
        for name in ("uce", "sd")
    )
    assert found.n == base.n


def test_features_of_clip_are_those_that_fid_compares_on_picturebook(
    measured: dict[tuple[str, str], Measured],
) -> None:
    for one in measured.values():
        for probe in ("retain", "reference"):
            assert np.array_equal(one.features(probe, "clip"), one.features(probe))
            assert one.probes[probe].judges == {"clip": "picturebook-clip"}
        assert len(one.features("retain", "clip")) == len(one.probe("retain"))
    plans = [plan_of(metrics=metrics) for metrics in ([], ["cmmd"])]
    assert {cell.key for cell in plans[0].cells} == {cell.key for cell in plans[1].cells}, "the judge is asked already"


def test_all_that_the_first_judges_say(asked: Path, measured: dict[tuple[str, str], Measured]) -> None:
    """Objects by the detector and styles by CLIP: each image's own columns, in the order of its scores."""
    one = measured["uce", "church"]
    scores, judged, ranks = one.probe("others"), one.judged("others"), one.ranks("others")
    assert judged.index.equals(scores.index) and ranks.index.equals(scores.index)
    probe = next(row for row in read_record(asked / "out").rows if row.method == "uce" and row.concept == "church")
    for of in probe.probes["others"].judged:
        folder = Store(asked / "store").read(of.cell)
        table, column = read_columns(folder), read_column(folder, of.label)
        own = scores[scores["label"] == of.label]
        for place, image in own.iterrows():
            key = (image["prompt_id"], image["seed"])
            assert judged.loc[place, of.label] == image["score"] == pytest.approx(column[key])
            others = table.loc[key]
            assert ranks[place] == 1 + int((others > others[of.label]).sum())
    assert {"church", "pencil"} <= set(judged.columns), "columns of both judges"
    assert judged.loc[scores["label"] == "crayon", "church"].isna().all()


def test_metrics_on_request_and_what_they_need(asked: Path, measured: dict[tuple[str, str], Measured]) -> None:
    rows = {(row.method, row.concept): row.metrics for row in read_csv((asked / "out" / "table.csv").read_text())}
    assert "test-clip" in rows["uce", "church"] and "test-synonyms" in rows["uce", "church"]
    assert rows["sd", "church"]["test-distance"].value == pytest.approx(0, abs=1e-4), "an image is its own original"
    assert rows["uce", "church"]["test-distance"].value > 2e-4
    synonyms = measured["uce", "church"].probe("synonyms")
    assert set(synonyms["label"]) == {"church"} and set(synonyms["kind"]) == {"synonym"}
    plain = plan_of(others=["crayon"]).rows[1]
    assert set(plain.probes) == {"concept", "retain", "others"} and not plain.probes["concept"].roles


def test_the_report_shows_other_concepts_and_synonyms_by_what_they_should_show(asked: Path) -> None:
    assert command("report", asked / "out", "--store", asked / "store") == 0
    page = (asked / "out" / "report.html").read_text(encoding="utf-8")
    assert "By synonyms alone" in page and "Other concepts, each judged for itself" in page
    wanted = [cell.partition("</td>")[0] for cell in page.split("<td ")[1:] if " data-wanted" in cell.partition(">")[0]]
    named = "gas-pump|garbage-truck|golf-ball|parachute|pencil|watercolor|van-gogh|crayon"
    assert wanted and all(re.search(rf"(shows|does not show) ({named}) \(", cell) for cell in wanted)
    assert not any("does not show church" in cell or "shows church" in cell for cell in wanted)
