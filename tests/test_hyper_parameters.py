from __future__ import annotations

import math

import pytest

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.hyper_parameters import hyper_parameters, make_plugin
from tests.plain import DEFAULTS, Nothing, Plain, Validated


def test_all_hyper_parameters_are_given_with_their_defaults() -> None:
    assert hyper_parameters(make_plugin(Plain, {"where": "inside"})) == DEFAULTS
    assert hyper_parameters(make_plugin(Validated, {"where": "inside"})) == {"where": "inside", "steps": 1000}
    assert hyper_parameters(Nothing()) == {}


def test_values_are_converted_and_are_fit_for_json() -> None:
    made = make_plugin(Plain, {"where": "inside", "steps": "20", "rate": "1e-4", "weight": 1, "words": ["a", "b"]})
    assert (made.steps, made.rate, made.words) == (20, 1e-4, ("a", "b"))
    assert isinstance(made.weight, float)
    assert hyper_parameters(made) == {**DEFAULTS, "steps": 20, "rate": 1e-4, "weight": 1.0, "words": ["a", "b"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 3}, "unknown hyper-parameter 'step'; nearest: steps"),
        ({"seen": []}, "unknown hyper-parameter 'seen'"),
        ({"where": "above"}, "^where: Input should be 'inside' or 'outside', not 'above'$"),
        ({"where": None}, "^where: Input should be 'inside' or 'outside', not None$"),
        ({"steps": "many"}, "^steps: Input should be a valid integer, .*, not 'many'$"),
        ({"steps": 1.5}, "^steps: Input should be a valid integer, .*, not 1.5$"),
        ({"steps": 0}, "^steps: Input should be greater than or equal to 1, not 0$"),
        ({"steps": 13}, "^steps must not be 13$"),
        ({"rate": 0}, "^rate: Input should be greater than 0, not 0$"),
        ({"rate": math.nan}, "^rate: Input should be a finite number, not nan$"),
        ({"own": math.nan}, "^own: Input should be a finite number, not nan$"),
        ({"weight": math.inf}, "^weight: Input should be a finite number, not inf$"),
        ({"weight": -0.1}, "^weight: Input should be greater than or equal to 0, not -0.1$"),
        ({"share": 1.1}, "^share: Input should be less than or equal to 1, not 1.1$"),
        ({"sampling_steps": 1001}, "^sampling_steps: Input should be less than or equal to 1000, not 1001$"),
        ({"words": ["unknown"]}, "^unknown word 'unknown'$"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(Plain, {"where": "inside", **values})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(EraseBenchError, match=r"^where: Field required$"):
        make_plugin(Plain, {})


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownNameError):
        make_plugin(Plain, {"were": "inside"})
