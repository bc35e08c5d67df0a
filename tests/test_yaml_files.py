"""YAML says what it says once, and no page of it is a page too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erasebench.errors import EraseBenchError
from erasebench.yaml_files import MAX_NODES, parse_yaml, read_yaml

NINES = "9" * 5000


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: [1, 2.5, x, true, null]", {"a": [1, 2.5, "x", True, None]}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: &x {c: 1}\nb: {<<: *x, d: 2}", {"a": {"c": 1}, "b": {"c": 1, "d": 2}}),
        ("1e-4", "1e-4"),
    ],
)
def test_plain_documents(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2020-13-45", "^not valid YAML: month must be in 1..12$"),
        ('a: !!int "abc"', "^not valid YAML: invalid literal for int"),
        (f"a: {NINES}", "^not valid YAML: a number of too many digits$"),
        (f"a: {'[' * 3000}{']' * 3000}", "levels|depth"),
        (f"a: {'[' * 101}{']' * 101}", "line 1: more than 100 levels|depth"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "^line 4: 'c' is given twice$"),
        ("? [a]\n: 1", "line 1: .*unhashable"),
        ("? {a: 1, a: 2}\n: 1", "line 1: 'a' is given twice"),
        ("a: &x [*x]", "^line 1: an alias leads to itself$"),
        ("a: &x {<<: *x}", "^line 1: an alias leads to itself$"),
        ("a: !!set {b, c}", "^line 1: the tag !!set is not read here$"),
        ("a: !!python/object/apply:os.system [x]", "^line 1: the tag !!python/object/apply:os.system is not read"),
        ("a: !mine 1", "^line 1: the tag !mine is not read here$"),
        ("a: 1\n---\nb: 2", "line 2: "),
        ("a: \0", "not valid YAML: "),
        ("a: [", "not valid YAML: "),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def aliases(levels: int, merge: bool = False) -> str:
    """Lists of ten aliases of the list before, or mappings that merge it ten times over."""
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x]"]
    for k in range(1, levels):
        ten = ", ".join([f"*a{k - 1}"] * 10)
        lines.append(f"a{k}: &a{k} {{<<: [{ten}]}}" if merge else f"a{k}: &a{k} [{ten}]")
    return "\n".join(lines)


@pytest.mark.parametrize("merge", [False, True])
def test_aliases_may_stand_for_much_and_not_for_more(merge: bool) -> None:
    assert len(parse_yaml(aliases(4, merge))) == 4
    with pytest.raises(EraseBenchError, match=f"aliases stand for more than {MAX_NODES:,} values"):
        parse_yaml(aliases(30, merge))


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xff")
    with pytest.raises(EraseBenchError, match=r"my\.yaml: not valid YAML: "):
        read_yaml(path)
    with pytest.raises(EraseBenchError, match=r"cannot read .*none\.yaml: No such file or directory"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(EraseBenchError, match=r"cannot read .*: Is a directory"):
        read_yaml(tmp_path)
