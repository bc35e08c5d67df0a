from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from erasebench.concepts import load_catalogue
from erasebench.description import describe
from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.judges.q16 import PROMPTS
from erasebench.listing import LISTED, names
from tests.engine.runs import command, forget_plugins

FILE = '''"""A paper (Author 2026)."""
from pathlib import Path
from dataclasses import dataclass
from typing import Annotated
from pydantic import Field
from erasebench.plugins import Method
from erasebench.registry import METHODS

@METHODS.register("described")
@dataclass(frozen=True)
class Described(Method):
    """Do nothing.

    Attributes:
        share: how much of ``nothing``.
    """

    share: Annotated[float, Field(gt=0, le=1)]
    path: Path = Path("a")

    def erase(self, model, concepts, context): ...
'''
CONCEPTS = """concepts:
  mine: {kind: object, phrase: my thing, views: {picturebook: {judge: clip-phrase, label: x, naming: [a thing]}}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "described_plugin.py").write_text(FILE)
    (tmp_path / "concepts.yaml").write_text(CONCEPTS)
    yield tmp_path
    forget_plugins()


def entries(text: str) -> dict[str, str]:
    """Each name of an aligned block with its text."""
    found = re.findall(r"^(\w+)  +(.*(?:\n {3,}\S.*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


def test_everything_that_is_built_in_can_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.concepts.load_catalogue", cache(load_catalogue))  # of hundreds
    for kind in LISTED:
        for name in names(kind):
            text = describe(name, kind)
            assert text.startswith(f"{name}: a")
            assert "``" not in text and "Attributes:" not in text
            wide = [line for line in text.splitlines() if len(line) > 80 and not re.match(r"    |.*https://\S*$", line)]
            assert not wide or kind in ("presets", "suites"), "a file is shown as it is"


def test_a_method() -> None:
    text = describe("esd-u")
    assert text.splitlines()[0] == "esd-u: a method, built-in"
    assert "Fine-tune the model to predict, for the concept, noise that leads away from it." in text
    told = entries(text)
    assert told["source"].startswith("ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023)")
    assert told["learning_rate"] == (
        "number > 0 or null default null, which means 1e-05; on Picturebook 0.0002 of Adam."
    )
    assert told["sampling_steps"].startswith("integer from 1 to 1000 default 50; on Picturebook 10 ")
    assert "default esd-u by this name, which means noxattn what is trained" in told["parameters"]
    assert told["variant"].startswith("paper, official-2023, official-2024 default paper ")


def test_the_files_of_metrics_and_judges_say_what_they_do_and_are_no_source() -> None:
    told = entries(describe("ratio"))
    assert told["about"].startswith("Ratio: how many images of a concept's prompts show it")
    assert "source" not in told
    told = entries(describe("nudenet"))
    assert told["about"].startswith("NudeNet: ") and "source" not in told


def test_values_that_depend_on_the_concept() -> None:
    assert "default null, which depends on the concept" in entries(describe("mace"))["task"]
    assert "default null, which means object" in entries(describe("mace", concept="church"))["task"]
    assert "default null, which means explicit" in entries(describe("mace", concept="nudity"))["task"]


def test_what_is_required_is_said(own: Path) -> None:
    told = entries(describe("described", plugins=[own / "described_plugin.py"]))
    assert told["source"] == "A paper (Author 2026)."
    assert told["share"] == "number > 0 and <= 1 required how much of nothing."
    assert told["path"] == "text default a"


def test_a_concept_of_ones_own(own: Path) -> None:
    told = entries(describe("mine", concept_files=[own / "concepts.yaml"]))
    assert told["phrase"] == "my thing"
    assert "judge clip-phrase, label x, threshold 0.5" in told["picturebook"]


def test_concepts_metrics_judges_and_presets() -> None:
    assert entries(describe("church"))["synonyms"] == "chapel, cathedral, house of worship"
    assert entries(describe("phrase:red car"))["phrase"] == "red car"
    assert entries(describe("ratio"))["column"] == "Ratio (%)"
    assert entries(describe("picturebook-style"))["labels"].startswith("photo, van-gogh")
    assert "retain_prompts: 6" in describe("smoke")


def test_a_judge_says_which_weights_it_reads_and_where_they_come_from() -> None:
    assert entries(describe("picturebook-q16"))["weights"].startswith("clip.safetensors, which ships with erasebench")
    assert f"{PROMPTS.name} from {PROMPTS.url}" in entries(describe("q16"))["weights"]
    for name in names("judges"):
        assert entries(describe(name, "judges"))["weights"]


def test_a_method_says_what_can_be_exported() -> None:
    assert entries(describe("dm2"))["note"] == "its change can be exported as a LoRA"
    assert "nothing to export" in entries(describe("sld-max"))["note"]
    assert "note" not in entries(describe("esd-x"))


def test_a_method_says_whether_it_depends_on_a_seed() -> None:
    for name, unseeded in (("uce", True), ("sld-max", True), ("esd-x", False), ("dm2", False)):
        assert ("it depends on no seed" in entries(describe(name)).get("note", "")) == unseeded


def test_names_that_are_wrong() -> None:
    with pytest.raises(UnknownNameError, match="unknown name 'esd-w'; nearest: esd-"):
        describe("esd-w")
    with pytest.raises(UnknownNameError, match="unknown name 'esd-u'; known: clip, "):
        describe("esd-u", "judges")
    with pytest.raises(EraseBenchError, match="'clip' is one of the judges and one of the metrics; choose with --kind"):
        describe("clip")
    with pytest.raises(EraseBenchError, match="--concept is for methods and attacks; 'church' is one of the concepts"):
        describe("church", concept="nudity")
    with pytest.raises(UnknownNameError, match="unknown concept 'chuch'; nearest: church"):
        describe("esd-u", concept="chuch")


def test_the_command(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("show", "described", "--plugins", own / "described_plugin.py") == 0
    assert capsys.readouterr().out.startswith("described: a method, erasebench_plugin_described_plugin\n")
    assert command("show", "clip", "--kind", "metrics") == 0
    assert command("show", "nothing-like-it") == 2


def test_concepts_and_presets_need_no_torch() -> None:
    code = "import sys\nfrom erasebench.description import describe\ndescribe('church'), describe('smoke')\n"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
