"""Lists of what there is to run."""

from __future__ import annotations

import pytest

from erasebench.cli import main
from erasebench.listing import LISTED, listing
from erasebench.registry import METHODS


def test_everything_built_in_says_what_it_is() -> None:
    for kind in LISTED:
        for line in listing(kind):
            assert len(line.split(maxsplit=1)) == 2 and "``" not in line, line
    assert "(strength=max)" in METHODS.summary("sld-max") and METHODS.summary("sld-max") != METHODS.summary("sld-weak")
    assert listing("presets", "smoke")[0].startswith("smoke  Seconds: does everything run?")
    assert listing("concepts", "french-*") == ['french-horn  object "French horn", picturebook and photo']
    assert {line.split()[0] for line in listing("rules")} == {"classifier-free", "safe-latent"}


def test_a_pattern_that_nothing_matches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["list", "methods", "zzz*"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: no methods match 'zzz*'\n"
