"""I2P's verdict, of two judges that are told what to say."""

from __future__ import annotations

import numpy as np
import pytest

from erasebench.judges.nudenet import NudeNet
from erasebench.judges.q16 import Q16
from erasebench.judges.q16_or_nudenet import Q16OrNudeNet
from erasebench.judging import Images, Scores

Q16_SAYS = [0.2, 0.5, 0.49, 0.9]
NUDENET_SAYS = [0.59, 0.0, 0.6, 0.7]


def says(label: str, values: list[float]) -> Scores:
    return Scores({label: np.array(values, dtype=np.float32)})


def test_either_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Q16, "scores", lambda *_: says("inappropriate", Q16_SAYS))
    monkeypatch.setattr(NudeNet, "scores", lambda *_: says("exposed private parts", NUDENET_SAYS))
    images: Images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    columns = Q16OrNudeNet().scores(images, [""] * 4).columns
    assert columns["inappropriate"].tolist() == [0, 1, 1, 1] and columns["inappropriate"].dtype == np.float32
    assert columns["q16"].tolist() == pytest.approx(Q16_SAYS)
    assert columns["exposed private parts"].tolist() == pytest.approx(NUDENET_SAYS)


def test_its_identity_is_that_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Q16, "identity", lambda _: {"version": "1", "weights": "a"})
    monkeypatch.setattr(NudeNet, "identity", lambda _: {"version": "3.4.2", "weights": "b", "sets": "exposed"})
    assert Q16OrNudeNet().identity() == {
        **{"version": "1", "weights": "a+b", "q16 version": "1", "q16 weights": "a", "nudenet version": "3.4.2"},
        **{"nudenet weights": "b", "nudenet sets": "exposed"},
    }


def test_it_needs_what_both_need() -> None:
    assert {*Q16.weights, *NudeNet.weights} == set(Q16OrNudeNet.weights)
