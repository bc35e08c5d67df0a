"""Transfers name another attack, which they are not themselves."""

from __future__ import annotations

import pytest

from erasebench.attacks.transfer import EmbeddingTransfer, Transfer
from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.hyper_parameters import make_plugin
from erasebench.plugins import Attack
from erasebench.registry import ATTACKS
from tests.attacks.planted import attack_context, planted_target
from tests.tiny import concept

CHURCH = concept("church")


def test_cces_transfer_is_registered() -> None:
    plugin = ATTACKS.get("cce-transfer")
    made = make_plugin(plugin.make, plugin.presets)
    assert isinstance(made, Attack)
    made.check("photo", CHURCH)
    assert made.transfer_of == "cce" and made.threat_model == "embedding" and not made.learns


def test_any_attack_that_finds_embeddings_can_be_transferred() -> None:
    made = EmbeddingTransfer(of="soft-prompt")
    made.check("photo", CHURCH)
    assert made.transfer_of == "soft-prompt"


def test_which_attack_has_to_be_said() -> None:
    with pytest.raises(EraseBenchError, match="of"):
        make_plugin(ATTACKS.get("transfer").make, {})


def test_unknown_attacks() -> None:
    with pytest.raises(UnknownNameError, match="nearest: cce"):
        Transfer(of="ccee").check("photo", CHURCH)


@pytest.mark.parametrize("of", ["transfer", "cce-transfer"])
def test_transfers_of_transfers(of: str) -> None:
    with pytest.raises(EraseBenchError, match=f"'{of}' searches nothing itself"):
        EmbeddingTransfer(of=of).check("photo", CHURCH)


def test_embeddings_are_no_text() -> None:
    with pytest.raises(EraseBenchError, match="threat model of 'cce' is embedding; cce-transfer is for such attacks"):
        Transfer(of="cce").check("photo", CHURCH)


def test_it_searches_nothing() -> None:
    with pytest.raises(NotImplementedError, match="the finds of 'cce'"):
        EmbeddingTransfer(of="cce").attack(planted_target(["a church"]), attack_context())
