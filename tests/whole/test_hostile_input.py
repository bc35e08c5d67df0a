"""Whatever a configuration, a concept file or a file of prompts holds: it is read, or one clear line says why not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from erasebench.concepts import Catalogue, load_catalogue
from erasebench.concepts._files import read
from erasebench.config import RunConfig, make_config, parse_method, read_layer
from erasebench.errors import EraseBenchError
from erasebench.prompts import read_retain
from erasebench.yaml_files import parse_yaml

fuzz = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "\0", "\ud800", "\x1b[2J", "\u202e", "\u200b", "=cmd|x", "../..", "<b>", "all", "a" * 5000]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.sampled_from([10**4000, -1, 0, 2**63, 1e308])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(TEXTS, st.integers()), inner)),
    max_leaves=6,
)
KEYS = st.one_of(st.sampled_from(sorted(RunConfig.model_fields)), TEXTS)
YAML = st.text(alphabet="ab1-:,[]{}&*!#|>'\"%@`? \n\t.<=~\0\x85\ud7ff", max_size=60)
CONCEPT: dict[str, Any] = {
    "concepts": {
        "balloon": {
            "kind": "object",
            "phrase": "balloon",
            "synonyms": ["air balloon"],
            "anchor": "kite",
            "neighbours": ["parachute"],
            "views": {"photo": {"judge": "clip-phrase", "label": "balloon", "threshold": 0.5, "naming": ["a balloon"]}},
        }
    },
    "retain": {"photo": [{"prompt": "a dog", "shows": ["balloon"]}]},
    "families": {
        "painters": {
            **{"kind": "style", "judge": "clip-style", "domain": "photo", "naming": ["art by {}"]},
            "phrases": ["Anna Alba", "Bert Blau"],
        }
    },
    "groups": {"two": ["balloon", "parachute"]},
    "prompt_sets": {"mine": {"title": "mine", "url": "https://example.org", "concepts": {"balloon": {"rows": 3}}}},
}


@contextmanager
def said_in_one_line() -> Iterator[None]:
    """Let errors of ours pass, if they are fit for the terminal."""
    try:
        yield
    except EraseBenchError as error:
        assert str(error).strip() and len(str(error)) < 20_000


@settings(fuzz, max_examples=60)
@given(st.dictionaries(KEYS, VALUES, max_size=3), st.dictionaries(KEYS, VALUES, max_size=2))
@example({"settings": {"uce": {"lamb": float("nan")}}}, {})
@example({"store": "a\0b"}, {"store": "c"})
def test_layers_of_a_configuration(first: dict[Any, Any], second: dict[Any, Any]) -> None:
    with said_in_one_line():
        made = make_config(first, second)
        assert make_config(parse_yaml(made.to_yaml())).to_yaml() == made.to_yaml()


@fuzz
@given(st.one_of(YAML, st.binary(max_size=40)))
def test_pages_that_look_like_yaml(text: str | bytes) -> None:
    with said_in_one_line():
        parse_yaml(text)


@fuzz
@given(st.one_of(TEXTS, st.builds("{}[{}={}]".format, TEXTS, TEXTS, YAML)))
def test_methods_with_options(text: str) -> None:
    with said_in_one_line():
        name, options = parse_method(text)
        assert name and isinstance(options, dict)


@cache
def packaged(path: Path) -> Any:
    return read(path)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A concept file with one thing in it replaced, taken away or added."""

    def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [here, *(place for key, one in inner for place in places(one, (*here, key)))]

    def change(value: Any, place: tuple[Any, ...], how: str, new: Any) -> Any:
        if not place:
            return new
        copy = value.copy()
        key, *rest = place
        if rest or how == "replace":
            copy[key] = change(value[key], tuple(rest), how, new)
        elif how == "remove":
            del copy[key]
        elif isinstance(copy, dict):
            copy[draw(TEXTS)] = new
        else:
            copy.insert(0, new)
        return copy

    place = draw(st.sampled_from([place for place in places(CONCEPT) if place]))
    changed: dict[str, Any] = change(CONCEPT, place, draw(st.sampled_from(["replace", "remove", "add"])), draw(VALUES))
    return changed


def test_the_concept_file_that_is_damaged_below_is_whole(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(CONCEPT))
    known = load_catalogue([tmp_path / "my.yaml"])
    assert known.get("balloon").neighbours == ("parachute",) and known.get("painters").members


@settings(fuzz, max_examples=60)
@given(content=damaged())
def test_concept_files(monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]) -> None:
    monkeypatch.setattr(
        "erasebench.concepts.reading.read", lambda path: read(path) if path.name == "my.yaml" else packaged(path)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my.yaml"
        path.write_bytes(yaml.safe_dump(content).encode(errors="surrogatepass"))
        with said_in_one_line():
            assert isinstance(load_catalogue([path]), Catalogue)
        with said_in_one_line():
            make_config(read_layer(path))


@fuzz
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='prompt,"\n\r\0 =\x1b\u200b', max_size=60).map(str.encode)))
@example(b'prompt\n"')
@example(b"prompt,prompt\na,b")
@example(b"prompt\n\xe2\x80\x8b")
def test_files_of_prompts(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("my.csv", "my.json"):
            path = Path(folder) / name
            path.write_bytes(content)
            with said_in_one_line():
                assert read_retain(path, 0)
