"""The files of ``docs/extending.md``, each run by the command line as it stands on the page."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasebench.concepts import load_catalogue
from erasebench.engine.store import Store
from erasebench.images import read_images
from erasebench.models.erasure import Erasure
from erasebench.registry import KINDS, RULES
from erasebench.results.rows import TableRow
from erasebench.results.table import read_csv
from tests.engine.runs import command, forget_plugins, load_once, with_packages
from tests.pages import ROOT, blocks

BLOCKS = blocks(ROOT / "docs" / "extending.md")
FILES = {block.file: block.text for block in BLOCKS if block.file}
COMMANDS = [words for block in BLOCKS for words in block.commands]
TINY = (
    *("--preset", "smoke", "--device", "cpu", "--workers", "1", "--steps", "1"),
    *("--prompts", "1", "--retain-prompts", "2", "--reference-images", "4"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the store of all runs is; the model and judges are loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        yield tmp_path_factory.mktemp("extending")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_plugins()


def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[TableRow]:
    """The rows of the page's own command for some of its files, which alone are in the working folder."""
    for name in names:
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    words = next(words for words in COMMANDS if names[0] in words)
    assert command(*words, *TINY, "--store", folder / "store", "--out", tmp_path / "out") == 0
    assert {path.name for path in tmp_path.iterdir()} == {*names, "out"}
    return read_csv((tmp_path / "out" / "table.csv").read_text(encoding="utf-8"))


def payload(folder: Path, tmp_path: Path, method: str, cell: str) -> Path:
    """The stored folder of a method's images of the concept, or of its erasure."""
    store = Store(folder / "store")
    rows: list[dict[str, Any]] = json.loads((tmp_path / "out" / "plan.json").read_text())["rows"]
    row = next(row for row in rows if row["method"] == method)
    return store.read(row["probes"]["concept"]["images"] if cell == "images" else row[cell])


def changed(folder: Path, tmp_path: Path, method: str) -> bool:
    """Whether a method's images differ from the unerased model's."""
    erased, base = (read_images(payload(folder, tmp_path, name, "images")) for name in (method, "sd"))
    return not np.array_equal(erased, base)


def test_nothing_on_the_page_is_tried_by_none_of_these_tests() -> None:
    assert all(block.file or block.commands for block in BLOCKS)
    assert len(COMMANDS) == 6 and set(FILES) == {
        *("saturation_change.py", "chapel.yaml", "whiteness.py", "snowy-field.yaml", "compose_not.py"),
        *("read_as_anchor.py", "repeat_concept.py", "pyproject.toml"),
    }


def test_a_metric_is_a_column(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, erased = run(folder, tmp_path, monkeypatch, "saturation_change.py")
    assert base.metrics["saturation_change"].value == 0
    assert erased.metrics["saturation_change"].value != 0
    assert "Saturation (levels)" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_a_concept_is_asked_for_with_its_own_prompts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(folder, tmp_path, monkeypatch, "chapel.yaml")
    assert [(row.method, row.concept) for row in rows] == [("sd", "chapel"), ("uce", "chapel")]
    concept = load_catalogue([tmp_path / "chapel.yaml"]).get("chapel")
    prompts = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")
    assert any(prompt in prompts for prompt in concept.views["picturebook"].naming)


def test_a_judge_judges_the_concept_that_asks_for_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(folder, tmp_path, monkeypatch, "whiteness.py", "snowy-field.yaml")
    assert [row.judge for row in rows] == ["whiteness 1: white >= 0.25"] * 2


def test_a_rule_of_guidance_changes_images(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(folder, tmp_path, monkeypatch, "compose_not.py")
    assert [row.method for row in rows] == ["sd", "not[strength=0.5]"]
    assert changed(folder, tmp_path, "not[strength=0.5]")


def test_a_method_changes_the_text_encoder_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(folder, tmp_path, monkeypatch, "read_as_anchor.py")
    assert [row.method for row in rows] == ["sd", "read-as-anchor", "read-as-anchor[strength=0.5]"]
    assert changed(folder, tmp_path, "read-as-anchor")
    weights = Erasure.load(payload(folder, tmp_path, "read-as-anchor", "erasure")).weights
    assert len(weights) == 1 and all(name.startswith("text_encoder.") for name in weights)


def test_an_attack_is_tried_on_every_method(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in run(folder, tmp_path, monkeypatch, "repeat_concept.py") if row.attack]
    assert [(row.method, row.attack) for row in rows] == [
        (method, attack) for method in ("sd", "uce") for attack in ("none", "repeat-concept[times=3]")
    ]
    assert rows[-1].metrics["looks"].value >= 3 and "guard-in-loop" in rows[-1].flags


def test_a_package_brings_them_all(folder: Path, tmp_path: Path) -> None:
    points = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    assert set(points) <= {*(registry.group for registry in (*KINDS.values(), RULES)), "erasebench.concepts"}
    package = tmp_path / "my_erasures"
    for name, text in FILES.items():
        place = tmp_path if name.endswith(".toml") else package / "concepts" if name.endswith(".yaml") else package
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    # What an installation leaves, without the seconds that pip takes.
    metadata = tmp_path / "my_erasures-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-erasures\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    run = with_packages(
        tmp_path,
        *("run", *TINY, "--methods", "not,read-as-anchor", "--concepts", "snowy-field"),
        *("--attacks", "repeat-concept", "--attack-prompts", "1"),
        *("--store", folder / "store", "--out", tmp_path / "out"),
    )
    assert run.returncode == 0, run.stderr
    rows = read_csv((tmp_path / "out" / "table.csv").read_text(encoding="utf-8"))
    assert {row.attack for row in rows} == {"", "none", "repeat-concept"}
    rows = [row for row in rows if not row.attack]
    assert [row.method for row in rows] == ["sd", "not", "read-as-anchor"]
    assert all(row.judge == "whiteness 1: white >= 0.25" and "saturation_change" in row.metrics for row in rows)
