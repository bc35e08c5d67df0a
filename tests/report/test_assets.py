"""Style sheets, scripts and templates that stand in the page itself."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from erasebench.report import assets
from erasebench.report.assets import LICENCES, asset, digest, environment

WEB = files("erasebench.report") / "web"
NAMES = sorted(path.name for path in WEB.iterdir() if path.name.endswith((".css", ".js")))


@pytest.mark.parametrize("name", NAMES)
def test_every_file_can_stand_in_a_page_and_loads_nothing(name: str) -> None:
    text = asset(name)
    assert (WEB / name).read_text(encoding="utf-8").strip() in text
    assert "@import" not in text and "url(http" not in text


def test_what_others_wrote_is_under_their_licence() -> None:
    for name, licence in LICENCES.items():
        text, known = asset(name), (WEB / licence).read_text(encoding="utf-8").strip()
        assert text.startswith("/*\n") and known in text.partition("*/")[0] and "*/" not in known
    assert {path.name for path in WEB.iterdir() if path.name.endswith(".LICENCE")} == set(LICENCES.values())
    assert {name for name in NAMES if ".min." in name} == set(LICENCES)


@pytest.mark.parametrize("end", ["</script>", "</SCRIPT ", "</style>"])
def test_a_file_that_would_end_its_element_is_refused(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "bad.js").write_text(f"const end = '{end}'")
    monkeypatch.setattr(assets, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"bad\.js would end its element"):
        asset.__wrapped__("bad.js")


def test_several_are_one_in_their_order() -> None:
    assert assets.assets(NAMES[:2]) == f"{asset(NAMES[0])}\n{asset(NAMES[1])}"
    assert assets.assets([]) == ""


def test_a_script_is_named_as_a_policy_names_it() -> None:
    """The example that the specification of Content Security Policy gives."""
    assert digest("alert('Hello, world.');") == "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
    assert base64.b64decode(digest("é").removeprefix("sha256-")) == hashlib.sha256(b"\xc3\xa9").digest()


def test_templates_escape_everything_and_miss_nothing() -> None:
    made = environment().from_string("<p title='{{ name }}'>{{ name }}</p>")
    assert made.render(name="<b>'&") == "<p title='&lt;b&gt;&#39;&amp;'>&lt;b&gt;&#39;&amp;</p>"
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        made.render()
    assert environment() is environment(), "templates are compiled once"
    assert environment().list_templates(extensions=["j2"]), "there are some"
