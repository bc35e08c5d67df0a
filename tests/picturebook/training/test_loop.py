"""The training loop: resumable to the same bits, and it says what stops it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.picturebook.training import loop
from erasebench.picturebook.training.loop import Recipe, fit

RECIPE = Recipe(steps=20, learning_rate=1e-2, warmup=5, ema=0.9)


class Killed(Exception):
    pass


@dataclass
class Regression:
    """A tiny noisy regression whose batches depend on the step; can be killed, or diverge, at a step."""

    kill_at: int | None = None
    nan_at: int | None = None

    def __post_init__(self) -> None:
        torch.manual_seed(7)
        self.model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if step == self.kill_at:
            raise Killed
        x = torch.from_numpy(np.random.default_rng(step).normal(size=(16, 4))).float()
        error = self.model(x) - x.sum(dim=1, keepdim=True)
        return error.square().mean() * (float("nan") if step == self.nan_at else 1.0), {
            "error": float(error.detach().abs().mean())
        }


def state(objective: Regression) -> list[Tensor]:
    return list(objective.model.state_dict().values())


@pytest.mark.parametrize("kill_at", [1, 11, 19])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, kill_at: int) -> None:
    whole = Regression()
    fit(whole, RECIPE, tmp_path / "whole", every=0)
    with pytest.raises(Killed):
        fit(Regression(kill_at=kill_at), RECIPE, tmp_path / "killed", every=0)
    (tmp_path / "killed" / "checkpoint.partial").write_bytes(b"half a checkpoint")
    resumed = Regression()
    fit(resumed, RECIPE, tmp_path / "killed", every=0)
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(resumed), strict=True))
    # The negative control: a run that is not resumed but started anew for the remaining steps differs.
    other = Regression()
    fit(other, replace(RECIPE, steps=20 - kill_at), tmp_path / "other", every=0)
    assert not all(torch.equal(a, b) for a, b in zip(state(whole), state(other), strict=True))


def test_without_resume_an_old_checkpoint_is_ignored(tmp_path: Path) -> None:
    first, second = Regression(), Regression()
    fit(first, RECIPE, tmp_path, every=0)
    fit(second, RECIPE, tmp_path, resume=False, every=0)
    assert all(torch.equal(a, b) for a, b in zip(state(first), state(second), strict=True))
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [int(float(row.split(",")[0])) for row in rows[1:]] == [19]
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_a_corrupt_checkpoint_is_named(tmp_path: Path) -> None:
    fit(Regression(), RECIPE, tmp_path, every=0)
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2]):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(
            EraseBenchError, match=r"checkpoint\.pt is corrupt or of another model; start anew with --no-resume"
        ):
            fit(Regression(), RECIPE, tmp_path, every=0)


def test_divergence_is_an_error_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=r"diverged .* step=13"):
        fit(Regression(nan_at=13), RECIPE, tmp_path, every=0)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 13
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_a_fit_ends_after_its_seconds_with_the_average_of_the_steps_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(Regression):
        def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
            clock[0] += 0.2
            return super().loss(step)

    cut, short = Slow(), Regression()
    made = fit(cut, RECIPE, tmp_path / "cut", seconds=0.5)
    assert made == 3 < RECIPE.steps
    assert fit(short, RECIPE, tmp_path / "whole") == RECIPE.steps
    assert not all(torch.equal(a, b) for a, b in zip(state(cut), state(short), strict=True))
    assert fit(Slow(), RECIPE, tmp_path / "none", seconds=-1) == 0


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(steps=100, learning_rate=1.0, warmup=10, decay=0.5)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert all(a > b for a, b in itertools.pairwise(rates[51:]))
    assert 0 < rates[-1] < 0.03
