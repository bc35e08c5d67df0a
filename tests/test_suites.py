"""Suites: their files, the layers that they are of a configuration, and what a run of one leaves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from erasebench.config import make_config, read_preset
from erasebench.description import describe
from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.listing import listing, names
from erasebench.named_files import PRESETS, suite_files
from erasebench.planning import make_plan
from erasebench.report.html import write_report
from erasebench.results.record import read_record
from erasebench.results.run_folder import read_run
from erasebench.suites import (
    FILE,
    layered_config,
    parse_suite,
    read_suite,
    suite_details,
)
from tests.engine.runs import command, done, fast_stages, forget_plugins, places
from tests.marks import some_quick

OWN = """\
title: "A paper, table 1: two concepts"
paper: dark-miner
tables: [Table 1]
protocol: >
  What the paper
  did (section 5).
unverified: ["the seeds"]
unavailable: {M1: captions by a model}
all:
  methods: [uce]
  steps: 1
  settings: {uce: {lamb: 0.2}, esd-x: {steps: 3}}
paper_scale: {model: some/model, concepts: [nudity, church], prompts: 7}
quick_scale: {concepts: [church, nudity], prompts: 2, retain_prompts: 4, reference_images: 4}
stand_ins: {van-gogh: church}
table: {columns: [concept, metric], metrics: [ratio, clip], average: true}
"""
TINY = ("--device", "cpu", "--workers", "1")
SOME = ("dark-miner-table-1", "erase-eval", "esd-figure-7", "i2p", "mace-celebrities")
"""Suites that differ most."""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    return str(tmp_path / "own.yaml")


@pytest.mark.parametrize("name", some_quick(zip(SOME), zip(sorted(suite_files()))))
def test_every_suite_can_be_run_at_both_scales(name: str) -> None:
    suite = read_suite(name)
    quick, paper = (layered_config({"suite": name}, preset=scale) for scale in ("quick", "paper"))
    assert (quick.suite, quick.model) == (name, "picturebook") and paper.model != "picturebook"
    for config in (quick, paper):
        assert config.concepts and set(config.metrics) <= {*suite.table.metrics, *config.metrics}
    assert suite.paper is None or suite.tables


def test_dark_miners_quick_run_has_the_cells_of_the_same_options() -> None:
    less = {"methods": ["uce"], "concepts": ["church", "nudity"], "device": "cpu"}
    by_name = make_plan(layered_config({"suite": "dark-miner-table-1", **less}))
    attacks = ["none", "rab", "unlearndiff", "p4d-uda", "cce"]
    by_options = make_plan(layered_config({**less, "attacks": attacks, "attack_prompts": 5}))
    assert {cell.key for cell in by_name.cells} == {cell.key for cell in by_options.cells}


def test_layers_are_preset_suite_scale_file_and_options(own: str, tmp_path: Path) -> None:
    config = layered_config({"suite": own})
    assert (config.suite, config.model, config.concepts, config.prompts) == (
        *(own, "picturebook", ("church", "nudity")),
        2,
    )
    assert config.batch_size == make_config(read_preset("quick")).batch_size and config.steps == 1
    assert config.settings["uce"] == {"lamb": 0.2} and "cce" in config.settings, "those of the preset stay"
    (tmp_path / "file.yaml").write_text(f"suite: {own}\nprompts: 3\nretain_prompts: 5\n")
    config = layered_config({"retain_prompts": 6}, tmp_path / "file.yaml")
    assert (config.suite, config.prompts, config.retain_prompts, config.reference_images) == (own, 3, 6, 4)
    (tmp_path / "preset.yaml").write_text(f"suite: {own}\npreset: smoke\nseed: 2\n")
    config = layered_config({}, tmp_path / "preset.yaml")
    smoke = read_preset("smoke")
    assert (config.prompts, config.seed, config.concepts) == (smoke["prompts"], 2, ("church", "nudity"))
    assert config.steps == smoke["steps"] and config.settings["esd-x"] == {**smoke["settings"]["esd-x"]}


@pytest.mark.parametrize(
    ("preset", "model", "expected"),
    [
        (None, None, ("picturebook", ("church", "nudity"), 25)),
        ("quick", None, ("picturebook", ("church", "nudity"), 25)),
        ("paper", None, ("some/model", ("nudity", "church"), None)),
        (None, "other/model", ("other/model", ("nudity", "church"), None)),
        ("paper", "other/model", ("other/model", ("nudity", "church"), None)),
        ("quick", "my-picturebook", ("my-picturebook", ("church", "nudity"), 25)),
        ("smoke", None, ("picturebook", ("church", "nudity"), 25)),
        ("smoke", "other/model", ("other/model", ("nudity", "church"), None)),
    ],
)
def test_preset_and_model_choose_the_scale(
    own: str, preset: str | None, model: str | None, expected: tuple[str, tuple[str, ...], int]
) -> None:
    given = {"suite": own} | ({"model": model} if model else {})
    config = layered_config(given, preset=preset)
    assert (config.model, config.concepts, config.batch_size) == expected


@pytest.mark.parametrize("preset", [None, "paper", "smoke"])
def test_the_file_that_a_run_leaves_brings_it_back(own: str, tmp_path: Path, preset: str | None) -> None:
    given: dict[str, Any] = {"suite": own, "concepts": ["church"], "prompts": 9, "settings": {"uce": {"lamb": 0.4}}}
    config = layered_config(given, preset=preset)
    (tmp_path / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert layered_config({}, tmp_path / "run.yaml") == config
    assert layered_config({"prompts": 8}, tmp_path / "run.yaml") == config.model_copy(update={"prompts": 8})


def test_without_a_suite_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(make_config({"concepts": ["church"]}).to_yaml(), encoding="utf-8")
    assert layered_config({}, tmp_path / "run.yaml").suite is None


def changed(old: str, new: str) -> str:
    assert old in OWN
    return OWN.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "holds no mapping"),
        ("title: [", "not valid YAML"),
        (changed("title:", "titel:"), "unknown key 'titel'; nearest: title"),
        (changed("protocol: >", "stand: >"), "unknown key 'stand'; nearest: stand_ins"),
        (changed('title: "A paper, table 1: two concepts"\n', ""), "title: field required"),
        (changed("columns:", "column:"), "table: unknown key 'column'; nearest: columns"),
        (changed("columns: [concept, metric]", "columns: [concept]"), "table.columns: columns are metric, and concept"),
        (changed("columns: [concept, metric]", "columns: [method, metric]"), "table.columns.0: "),
        (changed("metrics: [ratio, clip]", "metrics: []"), "table.metrics: "),
        (changed("[ratio, clip]", "[ratio, clop]"), "table.metrics: unknown metric 'clop'; nearest: clip"),
        (changed("steps: 1", "step: 1"), "all: unknown configuration key 'step'; nearest: steps"),
        (changed("steps: 1", "steps: -1"), "all: configuration key steps: "),
        (changed("prompts: 7", "prompt: 7"), "paper_scale: unknown configuration key 'prompt'; nearest: prompts"),
        (changed("retain_prompts: 4", "suite: own"), "quick_scale: unknown configuration key 'suite'"),
        (changed("unverified: [", "unverified: {a: ").replace('seeds"]', 'seeds"}'), "unverified: "),
        (changed("paper: dark-miner", "paper: dark-mine"), "unknown paper 'dark-mine'; nearest: dark-miner"),
        (changed("paper: dark-miner\n", ""), "tables: of which paper is not said; add the key paper"),
        (changed("[Table 1]", "[Table 11]"), "tables: unknown table 'Table 11'; nearest: Table 1, "),
        (changed("van-gogh: church", "goth: church"), "stand_ins: unknown concept of these tables 'goth'"),
        (changed("van-gogh: church", "airplane: church"), "stand_ins: unknown concept of these tables 'airplane'"),
        (
            changed("van-gogh: church", "van-gogh: chuch"),
            "stand_ins.van-gogh: unknown concept 'chuch'; nearest: church",
        ),
        (changed("van-gogh: church", "van-gogh: church+chuch"), "stand_ins.van-gogh: unknown concept 'chuch'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EraseBenchError) as caught:
        read_suite(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_stand_in_may_be_several_concepts_that_are_erased_together(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(changed("van-gogh: church", "van-gogh: church+tench"), encoding="utf-8")
    assert read_suite(str(tmp_path / "own.yaml")).stand_ins == {"van-gogh": "church+tench"}


def test_a_metric_of_the_table_has_to_be_asked_for(tmp_path: Path) -> None:
    plugin = tmp_path / "own_suite_metric.py"
    plugin.write_text(
        "from erasebench.metrics.metric import Metric\n"
        "from erasebench.metrics.stats import UNDEFINED\n"
        "from erasebench.registry import METRICS\n\n"
        '@METRICS.register("own-suite-metric")\n'
        "class Own(Metric):\n"
        '    probes, title, direction, meaning, on_request = ("concept",), "Own", "lower", "nothing", True\n\n'
        "    def measure(self, measured, base):\n        return UNDEFINED\n"
    )
    path = tmp_path / "own.yaml"
    path.write_text(changed("[ratio, clip]", "[ratio, own-suite-metric]"), encoding="utf-8")
    try:
        with pytest.raises(EraseBenchError, match="unknown metric 'own-suite-metric'"):
            read_suite(str(path))
        with pytest.raises(EraseBenchError, match=r"only where it is asked for, which the paper scale does not; add"):
            read_suite(str(path), [plugin])
        path.write_text(path.read_text().replace("steps: 1", "metrics: own-suite-metric"), encoding="utf-8")
        assert layered_config({"suite": str(path), "plugins": [plugin]}).metrics == ("own-suite-metric",)
    finally:
        forget_plugins()


def test_an_unknown_suite_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown suite 'dark-miner-tabel-1'; nearest: dark-miner-table-1"):
        layered_config({"suite": "dark-miner-tabel-1"})
    with pytest.raises(EraseBenchError, match=r"cannot read no\.yaml: No such file"):
        layered_config({"suite": "no.yaml"})


def test_another_package_brings_suites_but_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suites_elsewhere").mkdir()
    for name in ("theirs", "dark-miner-table-1"):
        (tmp_path / "suites_elsewhere" / f"{name}.yaml").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = (EntryPoint("theirs", "suites_elsewhere", "erasebench.suites"),)
    monkeypatch.setattr("erasebench.registry.entry_points", lambda group: points)
    assert read_suite("theirs").title == "A paper, table 1: two concepts"
    assert suite_files()["dark-miner-table-1"].parent != tmp_path / "suites_elsewhere"
    assert "dark-miner-table-1.yaml is left out: another is called" in capsys.readouterr().err
    assert listing("suites", "the*") == ["theirs  A paper, table 1: two concepts"]


def test_what_a_suite_is_can_be_shown(own: str) -> None:
    told = dict(suite_details(parse_suite(Path(own))))
    assert told["protocol"] == ["What the paper did (section 5)."]
    assert told["quick scale"][:2] == ["the preset quick", "methods uce"]
    assert "concepts nudity, church" in told["paper scale"]
    assert told["unavailable"] == ["M1: captions by a model"] and told["stand-ins"] == ["church for van-gogh"]
    text = describe("dark-miner-table-1")
    assert text.startswith("dark-miner-table-1: a suite, ") and "published" in text
    assert set(names("suites")) == set(suite_files()) and not set(names("suites")) & {p.stem for p in PRESETS.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of the suite ``own.yaml``."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "own.yaml").write_text(OWN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert command("run", "--suite", folder / "own.yaml", *TINY, *places(folder)) == 0
        yield folder


def test_a_run_leaves_the_papers_table(finished: Path) -> None:
    out = finished / "out"
    text = (out / "suite.md").read_text(encoding="utf-8")
    assert text.startswith("# A paper, table 1: two concepts\n\nQuick scale on Picturebook: not the paper's models")
    assert "| church / Ratio (%) ↓ |" in text and "| average / Ratio (%) ↓ |" in text
    assert "- Not available: M1: captions by a model\n" in text
    lines = (out / "suite.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split(",")[:3] == ["method", "church / ratio", "church / clip"]
    assert [line.split(",")[0] for line in lines[1:]] == ["sd", "uce"]
    assert (out / FILE).read_text(encoding="utf-8") == OWN and FILE in read_record(out).files
    assert read_run(out).config.suite == str(finished / "own.yaml")


def test_the_same_run_by_its_file_computes_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / "out" / "suite.csv").read_bytes()
    monkeypatch.setattr("erasebench.stages.session.Session.work", lambda *_: pytest.fail("something is computed"))
    assert command("run", "--config", finished / "out" / "run.yaml") == 0
    assert done(finished) == [] and (finished / "out" / "suite.csv").read_bytes() == before


def test_the_report_has_the_suite_without_its_file(finished: Path, tmp_path: Path) -> None:
    file = write_report([finished / "out"], tmp_path / "report.html", images=False)
    text = file.read_text(encoding="utf-8")
    assert "What the paper did (section 5)." in text and "<li>the seeds</li>" in text and 'id="suite-1"' in text


def test_reproduce_reads_a_run_or_makes_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = finished / "own.yaml"
    assert command("reproduce", own, "--run", finished / "out", "--csv", tmp_path / "beside.csv") == 0
    said = capsys.readouterr().out
    assert "Measured on Picturebook with stand-ins: not a reproduction." in said
    assert "sd / church for van-gogh" in said
    assert (tmp_path / "beside.csv").read_text().startswith("source,table,row,column,method,concept,stand_in,")
    monkeypatch.setattr("erasebench.stages.session.Session.work", lambda *_: pytest.fail("something is computed"))
    assert command("reproduce", own, *TINY, *places(finished)) == 0
    assert capsys.readouterr().out == said


def test_what_cannot_be_reproduced(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, out = finished / "own.yaml", finished / "out"
    (tmp_path / "none.yaml").write_text(changed("paper: dark-miner\ntables: [Table 1]\n", "").replace(
        "stand_ins: {van-gogh: church}\n", ""
    ))  # fmt: skip
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("dark-miner-tabel-1", "--run", out), "unknown suite 'dark-miner-tabel-1'; nearest: dark-miner-table-1"),
        ((own, "--run", tmp_path), "is no folder of a finished run"),
        (("dark-miner-table-1", "--run", out), f"is a run of the suite {own}, not of the suite dark-miner-table-1"),
        ((own, "--run", out, "--prompts", "3"), "--run reads a run as it is: --prompts would change nothing"),
        ((tmp_path / "none.yaml", "--run", out), "is a run of the suite"),
    ]
    for words, message in cases:
        assert command("reproduce", *words) == 2
        assert message in capsys.readouterr().err


def test_a_suite_that_is_wrong_stops_a_run_before_any_work(tmp_path: Path, own: str) -> None:
    Path(own).write_text(changed("[ratio, clip]", "[ratio, clop]"), encoding="utf-8")
    assert command("run", "--suite", own, *TINY, *places(tmp_path)) == 2
    assert not (tmp_path / "out").exists()
