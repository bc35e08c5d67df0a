"""The unerased model: nothing of it changes."""

from __future__ import annotations

from erasebench.methods.sd import Unerased
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from tests.tiny import concept, differing, erase_context, state, tiny_model


def test_nothing_changes() -> None:
    model = tiny_model()
    before, guidance = state(model), model.guidance
    erasure = Unerased().erase(model, [concept("church"), concept("dog")], erase_context())
    assert erasure == Erasure()
    with model.erased(erasure):
        assert not differing(before, state(model)) and model.guidance == guidance


def test_it_applies_to_everything_and_draws_no_random_number() -> None:
    plugin = METHODS.get("sd")
    method = plugin.make(**plugin.presets)
    assert type(method) is Unerased and not method.seeded and not method.guidance_only
    for domain in ("picturebook", "photo"):
        method.check(domain, [concept("nudity", "explicit")])
        assert not method.judges(domain, [concept("church")])
