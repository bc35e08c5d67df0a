"""How far a suite's run is from what the suite says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erasebench.suite_scale import describe_scale
from erasebench.suites import layered_config, parse_suite
from tests.test_suites import OWN


def test_what_a_run_has_otherwise_than_its_suite_is_said(tmp_path: Path) -> None:
    own = str(tmp_path / "own.yaml")
    Path(own).write_text(OWN, encoding="utf-8")
    suite = parse_suite(Path(own))

    def said(preset: str | None = None, **options: Any) -> str:
        config = layered_config({"suite": own, **options}, preset=preset)
        return describe_scale(suite, config, "picturebook" if config.model == "picturebook" else "photo")

    quick = "Quick scale on Picturebook: not the paper's models or prompts. Stand-ins: church for van-gogh."
    assert said() == said(store="elsewhere", workers=2) == quick
    fewer = quick.replace("prompts. ", "prompts. 1 concept where the paper has 2. ")
    assert said(prompts=5, concepts=["church"]) == f"{fewer} Not as the suite has it: concepts, prompts (5, not 2)."
    assert said(settings={"uce": {"lamb": 0.3}}) == f"{quick} Not as the suite has it: settings of uce."
    assert said(steps=3).endswith("Not as the suite has it: steps (3, not 1).")
    assert "guidance_scale (2.5, not" in said(guidance_scale=2.5), "which the suite leaves to the model"
    assert said("paper") == "Paper scale on some/model."
    assert said(model="other/model").startswith("Paper scale on other/model. Not as the suite has it: model (other/")
    smoke = said("smoke", methods=["esd-u"], attacks=["none", "cce", "p4d-union"])
    assert "retain_prompts (6, not 4)" in smoke and smoke.endswith("settings of esd-u, cce, p4d-n, p4d-k.")
