"""What loops of mining leave behind, and predictions for embeddings of several lengths."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from erasebench.files import write_hashed
from erasebench.models.conditioning import Conditioning
from erasebench.training.mining import Mined, predict_each
from tests.tiny import tiny_model

CPU = torch.device("cpu")


def test_predictions_come_back_in_order() -> None:
    model, rng = tiny_model(), torch.Generator().manual_seed(3)
    c_0, x_t, t = model.embed(["art"]).expand(2), torch.randn(2, 4, 8, 8, generator=rng), torch.tensor([10, 900])
    c = Conditioning(torch.randn(2, 5, c_0.embeddings.shape[2], generator=rng))
    texts = [c, c_0, Conditioning(-c.embeddings), Conditioning(c_0.embeddings + 1)]
    for found, text in zip(predict_each(model, x_t, t, texts), texts, strict=True):
        torch.testing.assert_close(found, model.predict_noise(x_t, t, text))


def test_what_loops_left_is_there_again(tmp_path: Path) -> None:
    left = Mined([0, 1], [0.5, 0.25], trace=[{"loss": 1.0, "loop": "first"}], seconds=12.5)
    left.embeddings, left.banks = [torch.ones(2, 3)], [torch.zeros(2, 4, 8, 8)]
    left.adapters = {"to_k": (torch.ones(4, 1), torch.ones(1, 4))}
    left.save(tmp_path / "state.pt")
    found = Mined.load(tmp_path / "state.pt", CPU)
    assert vars(found).keys() == vars(left).keys()
    for name in ("concepts", "scores", "trace", "seconds"):
        assert getattr(found, name) == getattr(left, name)
    for name in ("embeddings", "banks", "adapters"):
        torch.testing.assert_close(getattr(found, name), getattr(left, name), rtol=0, atol=0)
    assert Mined.load(tmp_path / "another.pt", CPU) == Mined()


def test_a_damaged_state_costs_time_only(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Mined(scores=[0.5], concepts=[0], embeddings=[torch.ones(2, 3)]).save(path)
    assert Mined.load(path, CPU).scores == [0.5]
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert Mined.load(path, CPU) == Mined()
    # torch itself does not look at the sums of its archives.
    ones = whole.index(torch.ones(2, 3).numpy().tobytes())
    path.write_bytes(whole[:ones] + b"\x01" + whole[ones + 1 :])
    assert Mined.load(path, CPU) == Mined()


def test_a_state_of_another_version_costs_time_only(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({**vars(Mined(scores=[0.5])), "renamed": 1}, stream)
    write_hashed(tmp_path / "state.pt", stream.getvalue())
    assert Mined.load(tmp_path / "state.pt", CPU) == Mined()
