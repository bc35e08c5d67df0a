"""The report as a file: complete, self-contained, small, and safe whatever names are in it."""

from __future__ import annotations

import hashlib
import html
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.report.html import REPORT, SCRIPTS, STYLES, render_report, write_report
from erasebench.results.flags import FLAGS
from erasebench.results.ranking import ranks_frame
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder, read_run
from erasebench.results.seeds import seeds_frame
from tests.engine.runs import command
from tests.marks import first_quick
from tests.report.synthetic import HOSTILE, METHODS, matrix, model_row, run_of

WEB = files("erasebench.report") / "web"
LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href", "ping"}


class Page(HTMLParser):
    """The elements of a page, as (tag, attributes, text)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._within.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def full() -> Iterator[tuple[RunFolder, str]]:
    """A run with everything but images, and its page."""
    attacks = [
        "none",
        "seed-search",
        "rab",
        "cce",
        "standard",
        *(f"replay[run=x;method={m};by=rab]" for m in METHODS[1:3]),
    ]
    rows = matrix(METHODS, ["church", "nudity"], attacks, {"mace": ("collapsed",), "ca": ("wide", "odd")})
    rows[3] = replace(rows[3], status="failed", reason="out of memory", metrics={})
    run = run_of(rows)
    yield run, render_report([run], [], Path("report.html"))


def check_links(page: Page, folder: Path | None = None) -> None:
    """Ids are distinct, links lead somewhere, in the page or its folder, labels name something, nothing is loaded."""
    ids = set(page.ids)
    assert len(ids) == len(page.ids)
    for tag, attributes in page.elements:
        for name in ("href", "xlink:href"):
            target = attributes.get(name, "")
            if target.startswith("#"):
                assert target[1:] in ids, target
            elif target and not target.startswith("data:"):
                assert folder and (folder / target).is_file(), (tag, target)
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= ids
        assert not [name for name in attributes if name in LOADS and attributes[name].startswith(("http", "//"))]
        assert not [name for name in attributes if name.startswith("on")]
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}


def test_every_section_is_there_and_every_link_leads_somewhere(full: tuple[RunFolder, str]) -> None:
    page = Page(full[1])
    check_links(page)
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == [
        *("findings", "flags", "results", "attacks", "tradeoff", "overall", "budget", "transfer"),
        *("failures", "costs", "provenance", "cite"),
    ]
    links = {attributes["href"] for attributes in page.all("a")}
    assert {f"#{name}" for name in sections} <= links
    assert {"row-uce~church", "attacked-dm2~nudity", "flag-collapsed", "flag-odd", "drawer"} <= set(page.ids)


def test_it_is_complete_without_scripts(full: tuple[RunFolder, str]) -> None:
    """Numbers, flags with remedies and files are in the markup itself."""
    without = re.sub(r"<script>.*?</script>", "", full[1], flags=re.DOTALL)
    text = " ".join("".join(Page(without).text).split())
    for words in (
        "Least is left by",
        "What to do",
        "Look at its images of unrelated prompts",
        "out of memory",
        "checksum",
    ):
        assert words in text
    downloads = [a["download"] for a in Page(without).all("a") if a.get("href", "").startswith("data:")]
    assert {
        "table.csv",
        "table.json",
        "costs.csv",
        "judges.csv",
        "standings-church.json",
        "overall-church.csv",
        "transfer-church~rab.csv",
    } <= set(downloads)


def test_a_flag_says_its_cause_its_meaning_and_its_remedy_each_once(full: tuple[RunFolder, str]) -> None:
    (note,) = re.findall(r'<details id="flag-wide">.*?</details>', full[1], re.DOTALL)
    told = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", note))
    flag = FLAGS["wide"]
    texts = {name: html.unescape(text) for name, text in told.items() if name != "Carried by"}
    assert texts == {"Cause": flag.cause, "Meaning": flag.meaning, "What to do": flag.remedy}


def test_only_its_own_scripts_may_run(full: tuple[RunFolder, str]) -> None:
    (policy,) = [a["content"] for a in Page(full[1]).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert (
        policy.startswith("default-src 'none';")
        and "http" not in policy
        and "'unsafe-inline'; script-src 'sha256-" in policy
    )
    assert full[1].count("<script>") == policy.count("sha256-")


def test_it_has_no_dates_and_is_the_same_twice() -> None:
    run = run_of(matrix(METHODS[:2], ["church"], ["none", "rab"]))
    page, again = (render_report([run], [], Path("report.html")) for _ in range(2))
    assert page == again and {"tradeoff", "overall", "budget"} <= set(Page(page).ids)


def page_with(name: str) -> Page:
    """The page of a small run in which everything that users can name is called so."""
    rows = matrix(["sd", name], [name], ["none", name], {name: ("not-erased", name)})
    run = run_of([*rows, TableRow(f"{name}2", name, "failed", name)], {name: name})
    record = run.record.model_copy(update={"model": name})
    run = replace(run, folder=Path(name.replace("/", "")), environment={"packages": {name: name}}, record=record)
    return Page(render_report([run], [], Path("report.html")))


@pytest.fixture(scope="module")
def plain() -> Counter[str]:
    return html_tags(page_with("plain"))


def html_tags(page: Page) -> Counter[str]:
    """The page's elements, without those of charts, whose labels depend on the names' lengths."""
    drawn = {"svg", "g", "path", "use", "text", "tspan", "defs", "rect", "clippath"}
    return Counter(tag for tag, _ in page.elements if tag not in drawn)


@pytest.mark.parametrize("name", first_quick(["\"'><img src=x onload=x>$x^2$ & ]]>", *HOSTILE]))
def test_hostile_names_are_text_everywhere(name: str, plain: Counter[str]) -> None:
    page = page_with(name)
    check_links(page)
    assert html_tags(page) == plain
    assert "".join(page.text).count(name) > 20


def test_the_pages_own_code_is_small_and_what_is_not_ours_is_as_released() -> None:
    own = [path for path in WEB.iterdir() if path.name.endswith((".css", ".js", ".j2"))]
    assert sum(len(path.read_bytes()) for path in own) < 150e3
    assert set(STYLES + SCRIPTS) - {"viewer.css", "viewer.js"} <= {path.name for path in own}
    tablesort = (WEB / "tablesort.min.js").read_bytes()
    assert hashlib.sha256(tablesort).hexdigest() == "ee99f17ebc985170899a004e9f6bf09e7f60eb4b459b6bfe6683cf0140352c63"


def test_its_licence_stands_with_what_is_not_ours(full: tuple[RunFolder, str]) -> None:
    assert "tablesort v5.7.1" in full[1] and "The above copyright notice and this permission notice" in full[1]


def test_the_command_writes_beside_the_run_and_says_so(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(finished / "out", tmp_path / "out")
    assert command("report", out) == 0
    assert capsys.readouterr().out.startswith(str(out / REPORT))
    page = Page((out / REPORT).read_text(encoding="utf-8"))
    check_links(page, out)
    assert "images" in page.ids and page.all("img")
    words = "".join(page.text)
    assert "failing" in words and "diverged" in words and "no nudity" in words
    assert "picturebook-detector" in words and read_run(out).record.protocol.run_checksum() in words  # type: ignore[union-attr]


def test_ranks_and_several_seeds_are_shown_where_a_run_has_them() -> None:
    methods = ("a[seed=1]", "a[seed=2]", "b")
    rows = [model_row(method, "church", hits) for method, hits in zip(methods, (1, 2, 9), strict=True)]
    known = {"concept": "church", "attack": "", "metric": "ratio"}
    ranks = [{**known, "method": method, "value": 1, "rank_low": 1, "rank_high": 2, "of": 2} for method in ("a", "b")]
    spread = {**known, "method": "a", "seeds": 2, "mean": 3.75, "sd": 1.8, "min": 2.5, "max": 5, "low": 0, "high": 20}
    run = run_of(rows, ranks=ranks_frame(ranks), seeds=seeds_frame([spread]))
    page = Page(render_report([run], [], Path("report.html")))
    check_links(page)
    text = " ".join("".join(page.text).split())
    assert {"ranks", "seeds"} <= set(page.ids) and "No two of 2 methods can be told apart by Ratio" in text
    assert "Least is left by a: 3.8 % [0.0, 20.0]. No other method can be told apart from that: paired tests" in text
    assert "2.50 to 5.00" in text
    without = Page(render_report([run_of(rows)], [], Path("report.html")))
    assert not {"ranks", "seeds"} & set(without.ids)


@pytest.mark.slow
def test_training_curves_come_from_the_store(finished: Path, tmp_path: Path) -> None:
    run = read_run(finished / "out")
    shutil.copytree(finished / "store", tmp_path / "store")
    store = Store(tmp_path / "store")
    assert 'id="curves"' not in render_report([run], [store], tmp_path / REPORT)
    (row,) = [row for row in run.record.rows if row.method == "uce" and row.concept == "church"]
    assert row.erasure
    shutil.rmtree(store.folder(row.erasure))
    with pytest.raises(EraseBenchError, match=r"no sound erasure of uce church: .* is missing; .*--no-images"):
        write_report([finished / "out"], tmp_path / REPORT, tmp_path / "store")
    assert not (tmp_path / REPORT).exists()


def test_runs_side_by_side(finished: Path, tmp_path: Path) -> None:
    second = shutil.copytree(finished / "out", tmp_path / "out")
    file = write_report([finished / "out", second], tmp_path / "both.html", finished / "store")
    page = Page(file.read_text(encoding="utf-8"))
    check_links(page, tmp_path)
    words = " ".join("".join(page.text).split())
    assert "out (1) · out (2)" in words and "church, nudity ✓ can be compared" in words
    assert {"shared-uce~church", "r1-row-uce~church", "r2-row-uce~church", "images"} <= set(page.ids)


def test_without_images_no_store_is_needed(finished: Path, tmp_path: Path) -> None:
    missing = tmp_path / "store"
    with pytest.raises(EraseBenchError, match=r"the store .*store, which --store names, is not there; .*--no-images"):
        write_report([finished / "out"], tmp_path / REPORT, missing)
    assert (
        command("report", finished / "out", "--out", tmp_path / "deep" / REPORT, "--store", missing, "--no-images") == 0
    )
    assert (tmp_path / "deep" / REPORT).exists() and not missing.exists()


def test_the_old_page_keeps_its_originals_until_the_new_one_is_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = write_report([finished / "out"], tmp_path / REPORT)
    check_links(Page(file.read_text(encoding="utf-8")), tmp_path)
    monkeypatch.setattr("erasebench.report.viewer.BUDGET", 5_000)
    with monkeypatch.context() as full:
        full.setattr("erasebench.report.html.write_durably", fail)
        with pytest.raises(EraseBenchError, match="is full"):
            write_report([finished / "out"], file)
    before = Page(file.read_text(encoding="utf-8"))
    check_links(before, tmp_path)
    after = Page(write_report([finished / "out"], file).read_text(encoding="utf-8"))
    shown = {a["href"] for a in after.all("a") if a.get("href", "").startswith("report-images/")}
    assert {f"report-images/{path.name}" for path in (tmp_path / "report-images").iterdir()} == shown, "only the shown"
    assert 0 < len(shown) < len({a["href"] for a in before.all("a") if a.get("href", "").startswith("report-images/")})


def test_a_store_that_the_run_names_and_is_gone(finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished / "out", tmp_path / "out")
    config = out / "run.yaml"
    config.write_text(re.sub("(?m)^store: .*$", "store: elsewhere", config.read_text()))
    with pytest.raises(EraseBenchError, match=r"the store elsewhere, which .* names \(as seen from here\)"):
        write_report([out])


@pytest.mark.parametrize("what", ["twice", "nothing", "folder"])
def test_bad_input_is_refused(finished: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, tuple[list[str | Path], str]] = {
        "twice": (
            [finished / "out", finished / "out" / "." / ".." / "out", "--out", tmp_path / "both.html"],
            "a run is named twice",
        ),
        "nothing": ([tmp_path], "is no folder of a finished run"),
        "folder": ([finished / "out", "--out", tmp_path], "is a directory"),
    }
    options, message = arguments[what]
    assert command("report", *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_report_replaces_no_table_and_no_report_of_one_of_several_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "leaderboard.csv"
    table.write_text("rows")
    assert command("report", finished / "out", "--out", table, "--store", finished / "store") == 2
    assert "leaderboard.html" in capsys.readouterr().err and table.read_text() == "rows"
    assert command("report", finished / "out", finished / "out", "--store", finished / "store") == 2
    assert "--out FILE.html" in capsys.readouterr().err
