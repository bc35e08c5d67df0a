"""``erasebench plan --precision``: what it says, and what it takes from an earlier run."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.metrics.precision import intraclass_correlation
from erasebench.precision import parse_precision
from erasebench.results.scores import read_scores
from tests.engine.runs import command, fast_stages, places, run_tiny


@pytest.mark.parametrize(("text", "half"), [("2%", 0.02), (" 2.5% ", 0.025), ("10 %", 0.1)])
def test_a_precision_is_written_in_per_cent(text: str, half: float) -> None:
    assert parse_precision(text) == pytest.approx(half)


@pytest.mark.parametrize("text", ["2", "0.02", "2  %", "two", "", "-2%", "2%%", ".5%", "nan%"])
def test_other_ways_to_write_it_are_refused(text: str) -> None:
    with pytest.raises(EraseBenchError, match=r"is no precision; write .* in per cent, such as 2%"):
        parse_precision(text)
    for wide in ("0%", "50%", "120%"):
        with pytest.raises(EraseBenchError, match="more than 0% and less than 50%, not"):
            parse_precision(wide)


def test_without_an_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ("plan", "--device", "cpu", "--concepts", "church,nudity", *places(tmp_path))
    assert command(*plan, "--precision", "2") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: '2' is no precision") and not captured.out
    assert command(*plan) == 0
    before = capsys.readouterr().out
    assert command(*plan, "--precision", "12%") == 0
    out = capsys.readouterr().out
    assert out.startswith(before), "what a plan says comes first"
    assert out[len(before) :].splitlines() == [
        "",
        "To know a rate, such as Ratio, to +-12 points (95 % interval) takes, with one image a prompt:",
        "       63 prompts where half of the images show the concept, the worst case",
        "       26 prompts where 10 % or 90 % do",
        "church has 40 prompts in this domain, too few for the worst case: --prompts 40 gives +-14.8 points there.",
        "  --images-per-prompt 6 makes up for it, with 240 images.",
        "nudity has 80 prompts in this domain, enough: --prompts 63.",
        "How far images of one prompt agree (ICC): 0.5 by assumption, until a run in --out has several.",
    ]
    assert command(*plan, "--precision", "2%") == 0
    out = capsys.readouterr().out
    assert "    2,398 prompts where half" in out
    assert "  However many images of each, +-11 points are left; only more prompts do (--concept-files)." in out
    assert not (tmp_path / "store").exists() and not (tmp_path / "out").exists()


def test_after_a_run_its_rates_and_its_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(tmp_path, "--prompts", "8", "--images-per-prompt", "3") == 0
    scores = read_scores(tmp_path / "out").query("probe == 'concept'").assign(shown=lambda s: s.score >= s.threshold)
    shares = scores.groupby("method")["shown"].mean()
    agreed = [intraclass_correlation(own["shown"], own["prompt_id"]) for _, own in scores.groupby("method")]
    capsys.readouterr()
    plan = ("plan", "--device", "cpu", "--concepts", "church,nudity", *places(tmp_path))
    assert command(*plan, "--precision", "5%") == 0
    out = capsys.readouterr().out
    hardest = (shares - 0.5).abs().idxmin()
    for method in ("sd", hardest):
        assert f"where {100 * shares[method]:.3g} % do, as of {method} on church in {tmp_path / 'out'}" in out
    assert f"(ICC): {sum(agreed) / 3:.2g} on church, as in {tmp_path / 'out'}; 0.5 elsewhere, by assumption" in out
    assert "nudity has 80 prompts" in out and "10 % or 90 %" not in out
