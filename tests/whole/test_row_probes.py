"""What a row is asked beside its own concept: concepts erased together, other concepts, synonyms, further judges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from erasebench.concepts import load_catalogue
from erasebench.config import make_config
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.judging import read_column, read_columns
from erasebench.metrics.metric import Measured, Metric, load_metrics
from erasebench.metrics.stats import Estimate, rate
from erasebench.plan import Plan
from erasebench.planning import make_plan
from erasebench.prompts import COMPOSITIONS, composed_prompts
from erasebench.results.measure import collect
from erasebench.results.record import read_record
from erasebench.results.scores import read_scores
from erasebench.results.table import read_csv
from tests.engine.runs import command, forget_plugins, load_once, places

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


def plan_of(**options: object) -> Plan:
    return make_plan(make_config({"methods": ["uce"], "concepts": ["church"], "device": "cpu", **options}))


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


def test_pairs_of_objects_by_turns() -> None:
    catalogue = load_catalogue()
    church, tench, gas_pump, crayon, springer = map(
        catalogue.get, ("church", "tench", "gas-pump", "crayon", "english-springer")
    )
    prompts = composed_prompts([church, tench], [tench, crayon, gas_pump, springer], 7)
    assert [prompt.text for prompt in prompts[:5]] == [
        "a photo of a church next to a gas pump",
        "a photo of a church next to an English springer",
        "a photo of a tench next to a gas pump",
        "a photo of a tench next to an English springer",
        "a photo of a gas pump and a church",
    ]
    assert len(prompts) == 4 * len(COMPOSITIONS) == len({prompt.id for prompt in prompts})
    assert prompts[4].shows == ("church", "gas-pump") and {prompt.seed for prompt in prompts} == {7}
    assert not composed_prompts([crayon], [church], 0) and not composed_prompts([church], [church], 0)


def test_the_same_others_are_drawn_once_by_the_unerased_model() -> None:
    rows = plan_of(concepts=["church", "parachute"], others=["church", "parachute", "crayon"]).rows
    assert rows[0].probes["others"].images.key == rows[1].probes["others"].images.key
    assert rows[2].probes["others"].images.key != rows[3].probes["others"].images.key


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


def test_a_judges_own_rank_counts() -> None:
    judged = pd.DataFrame({"church": [0.2, 0.9], "church rank": [7.0, 1.0], "tench": [0.1, 0.95], "tench rank": [9, 2]})
    scores = pd.DataFrame({"probe": "others", "label": ["church", "tench"], "score": [0.2, 0.95]})

    class Fixed(Measured):
        def judged(self, probe: str) -> pd.DataFrame:
            return judged

    assert Fixed("sd", "x", "object", scores, {}).ranks("others").tolist() == [7.0, 2.0]


def test_metrics_on_request_and_what_they_need(asked: Path, measured: dict[tuple[str, str], Measured]) -> None:
    rows = {(row.method, row.concept): row.metrics for row in read_csv((asked / "out" / "table.csv").read_text())}
    assert "test-clip" in rows["uce", "church"] and "test-synonyms" in rows["uce", "church"]
    assert rows["sd", "church"]["test-distance"].value == pytest.approx(0, abs=1e-4), "an image is its own original"
    assert rows["uce", "church"]["test-distance"].value > 2e-4
    synonyms = measured["uce", "church"].probe("synonyms")
    assert set(synonyms["label"]) == {"church"} and set(synonyms["kind"]) == {"synonym"}
    plain = plan_of(others=["crayon"]).rows[1]
    assert set(plain.probes) == {"concept", "retain", "others"} and not plain.probes["concept"].roles


def test_numbers_of_other_concepts_enter_no_checksum_of_the_concept() -> None:
    from erasebench.results.protocol import differences, protocol_of

    plain, asked, more = (protocol_of(plan_of(others=others)) for others in ([], ["crayon"], ["crayon", "tench"]))
    assert plain.checksum("church") == asked.checksum("church") and plain.run_checksum() != asked.run_checksum()
    assert differences(plain, asked, "church") == []
    (line,) = differences(asked, more, "church")
    assert line.startswith("prompts of other concepts: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concepts": ["church+church"]}, "names church twice"),
        ({"concepts": ["church+nudity"]}, "of the kinds object, explicit, which are not counted alike"),
        ({"concepts": ["church+chruch"]}, "church"),
        ({"concepts": ["church+tench+"]}, "an empty name in 'church"),
        ({"others": ["neighbors"]}, "neighbours"),
        ({"metrics": ["raito"]}, "ratio"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message.replace("(", r"\(")):
        plan_of(**options)


def test_a_metric_of_others_without_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(Metric):
        probes, title, direction, meaning, on_request = ("others",), "Kept", "higher", "for a test", True

        def measure(self, measured: Measured, base: Measured | None) -> Estimate:
            return rate(np.array([True]))

    monkeypatch.setattr("erasebench.planning.asked_metrics", lambda names: {"ratio": Kept()})
    with pytest.raises(EraseBenchError, match="name some with --others"):
        plan_of(metrics=["ratio"])


def test_the_report_shows_other_concepts_and_synonyms_by_what_they_should_show(asked: Path) -> None:
    assert command("report", asked / "out", "--store", asked / "store") == 0
    page = (asked / "out" / "report.html").read_text(encoding="utf-8")
    assert "By synonyms alone" in page and "Other concepts, each judged for itself" in page
    wanted = [cell.partition("</td>")[0] for cell in page.split("<td ")[1:] if " data-wanted" in cell.partition(">")[0]]
    named = "gas-pump|garbage-truck|golf-ball|parachute|pencil|watercolor|van-gogh|crayon"
    assert wanted and all(re.search(rf"(shows|does not show) ({named}) \(", cell) for cell in wanted)
    assert not any("does not show church" in cell or "shows church" in cell for cell in wanted)
