"""The project gates itself: ``results/picturebook/smoke``, made anew, must be no worse, and a broken run worse.

One method and one concept of it are made anew each time; all of it by ``make test-slow``, a broken run as well: each
time one is made of the new run, as if nothing had been erased.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

from erasebench.config import RunConfig
from erasebench.config_options import config_options, read_options
from erasebench.results.run_folder import read_run
from tests.engine.runs import command, load_once
from tests.marks import first_quick
from tests.pages import DOCS, ROOT, blocks

PART = ("--methods", "uce", "--concepts", "church")
BASE = ROOT / "results" / "picturebook" / "smoke"
RUN, COMPARE = (words for block in blocks(BASE / "README.md") for words in block.commands)
"""The commands of its page."""


def compare(*words: str | Path) -> int:
    """The exit code of the page's comparison with a new run, and more options."""
    new, *more = words
    return command(
        *(new if word == "NEW" else BASE if word.startswith("results/") else word for word in COMPARE), *more
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the runs and their store are; the model and judges are loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        yield tmp_path_factory.mktemp("gate")


def make(folder: Path, name: str, *more: str) -> Path:
    """A run as the page says, with other options over its own."""
    words: list[str | Path] = [*RUN[: RUN.index("--out")], "--store", folder / "store", "--out", folder / name, *more]
    assert command(*words) == 0
    return folder / name


@pytest.fixture(scope="module")
def new(folder: Path) -> Path:
    return make(folder, "new", *PART)


def test_the_code_as_it_is_is_no_worse(new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(new, "--allow-missing") == 0, capsys.readouterr().out
    assert capsys.readouterr().out.startswith("no worse: none of 2 comparisons\n")


@pytest.mark.slow
def test_every_method_and_concept_is_no_worse(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make(folder, "whole")
    capsys.readouterr()
    assert compare(whole) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.startswith("no worse: none of 12 comparisons\n")


def with_scores_of_the_unerased_model(new: Path, to: Path) -> Path:
    """The run as if uce's images of the concept were those of the unerased model."""
    shutil.copytree(new, to)
    scores = pd.read_csv(to / "scores.csv", dtype=str, keep_default_na=False)
    of = scores["probe"] == "concept"
    unerased = scores.loc[of & (scores["method"] == "sd"), "score"]
    scores.loc[of & (scores["method"] == "uce"), "score"] = unerased.to_numpy()
    scores.to_csv(to / "scores.csv", index=False)
    record = json.loads((to / "plan.json").read_text(encoding="utf-8"))
    record["files"]["scores.csv"] = hashlib.sha256((to / "scores.csv").read_bytes()).hexdigest()
    (to / "plan.json").write_text(json.dumps(record), encoding="utf-8")
    return to


@pytest.mark.parametrize("drawn", first_quick([False, True]))
def test_a_method_that_erases_no_more_is_worse(
    drawn: bool, folder: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if drawn:
        broken = make(folder, "broken", *PART, "--settings", "uce.erase_scale=0")
    else:
        broken = with_scores_of_the_unerased_model(new, tmp_path / "broken")
    capsys.readouterr()
    files = {name: tmp_path / name for name in ("junit", "markdown", "json")}
    assert (
        compare(broken, *(word for name, path in files.items() for word in (f"--{name}", path)), "--allow-missing") == 1
    )
    printed = capsys.readouterr().out
    assert printed.startswith("worse: 1 of 2 comparisons\n")
    assert "Not compared, of the base run: sd, nudity; uce, nudity; sld-max, church; sld-max, nudity" in printed
    content = json.loads(files["json"].read_text(encoding="utf-8"))
    [worse] = [change for change in content["changes"] if change["verdict"] == "worse"]
    assert (worse["method"], worse["concept"], worse["metric"]) == ("uce", "church", "ratio")
    assert worse["before"] == 0 and worse["after"] > 50
    assert files["markdown"].read_text(encoding="utf-8").startswith("### worse: 1 of 2 comparisons\n")
    cases = ElementTree.parse(files["junit"]).findall(".//testcase[failure]")
    assert [(case.get("classname"), case.get("name")) for case in cases] == [("uce, church", "Ratio (%)")]


def test_the_committed_run_is_small_whole_and_of_no_machine() -> None:
    run = read_run(BASE)
    assert run.record.protocol and len(run.rows) == 6
    kept = {path.name: path for path in BASE.iterdir()}
    assert set(kept) == {*run.record.files, "plan.json", "run.yaml", "README.md"}
    assert sum(path.stat().st_size for path in kept.values()) < 100_000
    texts = " ".join(path.read_text(encoding="utf-8") for path in kept.values())
    assert not any(word in texts for word in ("/home/", "/tmp/", "/root/", "/work/", "C:\\"))
    assert shlex.join(RUN[-2:]) == "--out results/picturebook/smoke" and run.config.out == Path(RUN[-1])


def test_the_workflow_of_the_page_hangs_together() -> None:
    [block] = [block for block in blocks(DOCS / "gate.md") if block.language == "yaml"]
    workflow = yaml.load(block.text, yaml.BaseLoader)  # whose `on` is no truth value
    assert set(workflow) == {"name", "on", "jobs"}
    steps = workflow["jobs"]["gate"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(step["uses"].startswith("actions/") and "@v" in step["uses"] for step in steps if "uses" in step)
    run, compare = block.commands
    assert (run[0], run[run.index("--out") + 1]) == ("run", "gate/new")
    assert compare[:3] == ["compare", "gate/base", "gate/new"]
    summary = compare[compare.index("--markdown") + 1]
    assert any(step.get("run", "").startswith(f"cat {summary} ") and step["if"] == "always()" for step in steps)
    store = RunConfig.model_fields["store"].default
    assert [step["with"]["path"] for step in steps if "path" in step.get("with", {})] == [str(store), "gate"]


def test_its_page_says_how_it_was_made() -> None:
    known = {option.opts[0]: option.name for option in config_options()}
    words = RUN[1:]
    options: dict[str, Any] = {known[name]: value for name, value in zip(words[::2], words[1::2], strict=True)}
    made, run = read_options(options), read_run(BASE)
    same = ("methods", "concepts", "prompts", "retain_prompts", "seed", "workers", "device", "out", "images_per_prompt")
    assert {key: getattr(made, key) for key in same} == {key: getattr(run.config, key) for key in same}
