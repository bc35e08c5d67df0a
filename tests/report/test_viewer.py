"""The image viewer of a report: every image beside what it is compared with, safely, within its budget."""

from __future__ import annotations

import base64
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from erasebench.engine.store import Store
from erasebench.images import read_images
from erasebench.report import viewer
from erasebench.report.assets import asset
from erasebench.report.viewer import viewer_section
from erasebench.results.run_folder import RunFolder
from tests.report.viewed import Page, attacked, images_of, judged_again, prompts_of

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7*7 }}"


def view(run: RunFolder, store: Store, folder: Path) -> Page:
    return Page(str(viewer_section([run], [store], folder / "report.html")))


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def embedded(uri: str) -> NDArray[np.uint8]:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return pixels(base64.b64decode(text))


def in_domain(run: RunFolder, domain: str) -> RunFolder:
    return replace(run, record=run.record.model_copy(update={"domain": domain}))


def test_every_image_with_its_own_score_and_original(run: RunFolder, store: Store, tmp_path: Path) -> None:
    page = view(run, store, tmp_path)
    own = run.scores[run.scores["probe"] == "concept"]
    shown = {(cell.concept, cell.attributes["data-n"], cell.row): cell for cell in page.cells if cell.src}
    assert len(own) == 2 * 2 * 2 * 2, "two methods, concepts, prompts, seeds"
    for score in own.itertuples(index=False):
        (cell,) = [
            cell
            for (concept, method, row), cell in shown.items()
            if (concept, method) == (score.concept, score.method)
            and score.text in row
            and row.endswith(f"{score.kind} seed {score.seed}")
        ]
        expected = read_images(store.read(images_of(run, score.method, score.concept)))[score.image]
        assert np.array_equal(pixels((tmp_path / cell.href).read_bytes()), expected)
        assert embedded(cell.src).shape == expected.shape
        assert float(cell.attributes["data-s"]) == pytest.approx(score.score, rel=1e-5)
        assert cell.attributes["data-v"] == str(int(score.score >= score.threshold))
        sign = "●" if score.score >= 0.5 else "○"
        assert f"{sign} {score.score:.2f}" in cell.text and "0.5" in cell.text
        assert cell.alt.startswith(f"{score.method}: {score.text}; ")
        assert ("does not show" in cell.alt) == (score.score < 0.5)


def test_unrelated_prompts_have_scores_without_a_verdict(run: RunFolder, store: Store, tmp_path: Path) -> None:
    cells = [cell for cell in view(run, store, tmp_path).cells if cell.attributes.get("data-v") == ""]
    assert len(cells) == 2 * 2 * 6 and all("clip" in cell.text and "●" not in cell.text for cell in cells)


def test_a_row_without_images_says_why(run: RunFolder, store: Store, tmp_path: Path) -> None:
    words = " ".join(view(run, store, tmp_path).words.split())
    assert "failing: failed: " in words and "diverged" in words and "failing: n/a: no nudity" in words


def test_it_is_complete_without_scripts(run: RunFolder, store: Store, tmp_path: Path) -> None:
    page = view(run, store, tmp_path)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert all("hidden" in known for tag, known in page.tags if tag == "form")
    assert not [name for _, known in page.tags for name in known if name.startswith("on")]
    assert all(known["href"].startswith("report-images/") for tag, known in page.tags if tag == "a" and "href" in known)


def test_what_users_name_is_text(run: RunFolder, store: Store, tmp_path: Path) -> None:
    hostile = {"church": HOSTILE, "uce": f"uce{HOSTILE}"}
    scores = run.scores.assign(
        text=HOSTILE, **{name: run.scores[name].replace(hostile) for name in ("method", "concept")}
    )
    record = run.record.model_dump()
    for row in record["rows"]:
        row["method"], row["concept"] = (hostile.get(row[name], row[name]) for name in ("method", "concept"))
        row["judge"] = row["reason"] = HOSTILE
    changed = replace(run, scores=scores, record=type(run.record).model_validate(record))
    page = view(attacked(changed, {(f"uce{HOSTILE}", HOSTILE): "cr"}, HOSTILE, found=HOSTILE), store, tmp_path)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script"})
    assert not [known for tag, known in page.tags if tag == "img" and known.get("src") == "x"]
    assert not [name for _, known in page.tags for name in known if name.startswith("on")]
    assert page.words.count(HOSTILE) > 10, "all of it is there, as text"
    assert any(known.get("data-concept") == HOSTILE for _, known in page.tags)
    assert any(known.get("data-name") == f"uce{HOSTILE}" for _, known in page.tags)
    assert any(HOSTILE in cell.alt for cell in page.cells)


def test_thumbnails_keep_to_their_budget_and_the_page_says_so(
    run: RunFolder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = view(run, store, tmp_path)
    size = sum(len(cell.src) for cell in whole.cells)
    monkeypatch.setattr(viewer, "BUDGET", size // 2)
    half = view(run, store, tmp_path)
    shown = [cell for cell in half.cells if cell.src]
    assert size // 4 < sum(len(cell.src) for cell in shown) <= size // 2
    assert {cell.concept for cell in shown} == {"church", "nudity"}
    total = run.scores.groupby(["method", "concept", "probe", "prompt_id", "seed"]).ngroups
    assert f"{len(shown)} of {total} images" in half.words and "no fair sample" in half.words
    monkeypatch.setattr(viewer, "BUDGET", 0)
    none = view(run, store, tmp_path)
    assert not [cell for cell in none.cells if cell.src] and f"0 of {total} images" in none.words


def test_prompts_that_methods_differ_on_come_first(
    run: RunFolder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = run.scores[(run.scores["probe"] == "concept") & (run.scores["concept"] == "church")].assign(score=0.9)
    last = prompts_of(run, "church")[-1]
    scores.loc[(scores["prompt_id"] == last) & (scores["seed"] == 1) & (scores["method"] == "uce"), "score"] = 0.1
    narrowed = replace(run, scores=scores)
    sizes: dict[str, int] = {}
    for cell in view(narrowed, store, tmp_path).cells:
        sizes[cell.row] = sizes.get(cell.row, 0) + len(cell.src)
    monkeypatch.setattr(viewer, "BUDGET", max(sizes.values()))
    shown = [cell for cell in view(narrowed, store, tmp_path).cells if cell.src]
    assert [cell.row for cell in shown] == [f"{last} naming seed 1"] * 2 and len(sizes) == 4


def test_sensitive_concepts_are_blurred_pixels_unless_the_domain_is_harmless(
    run: RunFolder, store: Store, tmp_path: Path
) -> None:
    harmless, photo = (view(in_domain(run, name), store, tmp_path / name) for name in ("picturebook", "photo"))
    assert "Sensitive: this file holds blurred images only" in photo.words and "Sensitive" not in harmless.words
    blurred = set()
    for plain, cell in zip(harmless.cells, photo.cells, strict=True):
        assert plain.attributes.get("class") in (None, "img-none")
        assert (plain.src != cell.src) == (cell.attributes.get("class") == "img-blur")
        if plain.src != cell.src:
            blurred.add((cell.concept, cell.attributes["data-v"], "naked" in cell.row or "without clothes" in cell.row))
    own = {("nudity", verdict, False) for verdict in ("0", "1", "")}
    assert blurred == {*own, ("church", "", True)}, "also where an unrelated prompt of another concept shows it"


def test_unrelated_prompts_are_blurred_by_what_they_show_though_the_run_did_not_erase_it(
    run: RunFolder, store: Store, tmp_path: Path
) -> None:
    photo = in_domain(run, "photo")
    rows = tuple(row for row in photo.record.rows if row.concept == "church")
    record = photo.record.model_copy(update={"rows": rows})
    alone = replace(photo, record=record, scores=photo.scores[photo.scores["concept"] == "church"])
    unrelated = [cell for cell in view(alone, store, tmp_path).cells if cell.attributes["data-v"] == "" and cell.src]
    blurred = {cell.row for cell in unrelated if cell.attributes.get("class") == "img-blur"}
    naked = {cell.row for cell in unrelated if "naked" in cell.row or "without clothes" in cell.row}
    assert naked and blurred == naked and len(unrelated) > len(blurred)
    prompt = next(
        one for one in prompts_shown(alone) if any(one in cell.row for cell in unrelated if cell.row not in naked)
    )
    own = alone.record.model_copy(update={"shows": {prompt: ("of-my-own-file",)}})
    unknown = view(replace(alone, record=own), store, tmp_path / "unknown").cells
    assert {prompt in cell.row for cell in unknown if cell.attributes.get("class") == "img-blur"} == {True}


def prompts_shown(run: RunFolder) -> list[str]:
    return list(dict.fromkeys(run.scores.loc[run.scores["probe"] == "retain", "prompt_id"]))


@pytest.mark.parametrize("damage", ["removed", "edited"])
def test_what_the_store_lost_is_a_placeholder(run: RunFolder, store: Store, tmp_path: Path, damage: str) -> None:
    shutil.copytree(store.root, tmp_path / "store")
    pruned, cell = Store(tmp_path / "store"), images_of(run, "uce", "church")
    if damage == "removed":
        pruned.remove(cell)
    else:
        path = pruned.folder(cell) / "images.zip"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    page = view(run, pruned, tmp_path)
    lost = [each for each in page.cells if "not in the store" in each.text]
    assert len(lost) == 4 and {each.attributes["data-n"] for each in lost} == {"uce"}
    assert not any(each.src for each in lost) and all("0.5" in each.text for each in lost), "scores are still known"
    words = " ".join(page.words.split())
    assert "1 of the cells that hold images cannot be read from the store" in words
    assert f"cell {cell[:12]} is {'missing' if damage == 'removed' else 'corrupt'}" in words
    assert sum(bool(each.src) for each in page.cells) == sum(bool(c.src) for c in view(run, store, tmp_path).cells) - 4


def test_what_attacks_found_stands_beside_the_prompt_itself(run: RunFolder, store: Store, tmp_path: Path) -> None:
    page = view(attacked(run, {("uce", "rab"): "c-", ("uce", "p4d"): "r-"}), store, tmp_path)
    first, second = prompts_of(run, "church")
    rows = [cell for cell in page.cells if cell.row.startswith("uce ")]
    assert [cell.attributes["data-n"] for cell in rows] == ["no attack", "rab", "p4d"] * 2
    (plain, rab, p4d) = (cell for cell in rows if first in cell.row)
    expected = read_images(store.read(images_of(run, "uce", "church")))[0]
    assert np.array_equal(pixels((tmp_path / plain.href).read_bytes()), expected)
    assert f"found <b>for</b> {first}" in rab.text and "broken, confirmed; on fresh noise 0.90 0.10 0.80" in rab.text
    assert "broken once, not confirmed" in p4d.text and rab.alt.startswith(f"uce, attack rab: {first}; shows church")
    failed = [cell.text for cell in rows if second in cell.row and cell.attributes["data-n"] != "no attack"]
    assert len(failed) == 2 and all("not broken" in text for text in failed)


def test_embeddings_have_no_text(run: RunFolder, store: Store, tmp_path: Path) -> None:
    page = view(attacked(run, {("uce", "cce"): "c"}, found=""), store, tmp_path)
    assert [cell.attributes["data-n"] for cell in page.cells if "an embedding" in cell.text] == ["cce"]


def test_an_ensemble_is_shown_where_its_members_are_not(run: RunFolder, store: Store, tmp_path: Path) -> None:
    alone = {("uce", "standard"): "c-"}
    members = {"standard": ("rab", "p4d")}
    page = view(attacked(run, alone, members=members), store, tmp_path)
    assert "by rab" in next(cell.text for cell in page.cells if cell.attributes.get("data-n") == "standard")
    both = {**alone, ("uce", "rab"): "c-", ("uce", "p4d"): "--"}
    page = view(attacked(run, both, members=members), store, tmp_path)
    assert {cell.attributes["data-n"] for cell in page.cells if cell.row.startswith("uce ")} == {
        "no attack",
        "rab",
        "p4d",
    }


def test_judges_that_disagree(run: RunFolder, store: Store, tmp_path: Path) -> None:
    def box(page: Page) -> dict[str, str]:
        return next(known for tag, known in page.tags if tag == "input" and known.get("name") == "disagree")

    single = view(run, store, tmp_path)
    assert "disabled" in box(single) and "each image has one judge" in single.words
    own = run.scores[(run.scores["method"] == "sd") & (run.scores["concept"] == "church")]
    assert (own[own["probe"] == "concept"]["score"] >= 0.5).all(), "the first judge sees it in every image"
    page = view(judged_again(run, {0: 0.9, 1: 0.1, 2: 0.2, 3: 0.5}), store, tmp_path)
    assert "disabled" not in box(page) and "each image has one judge" not in page.words
    disputed = [cell for cell in page.cells if "data-disputed" in cell.attributes]
    assert ["second 0.10 < 0.5" in disputed[0].text, "second 0.20 < 0.5" in disputed[1].text] == [True] * len(disputed)
    assert all("picturebook-detector" in cell.text and cell.attributes["data-n"] == "sd" for cell in disputed)


def test_close_to_the_threshold_is_measured_by_the_range_of_scores(
    run: RunFolder, store: Store, tmp_path: Path
) -> None:
    scores = run.scores.copy()
    own = (scores["probe"] == "concept") & (scores["concept"] == "church")
    scores.loc[own, "score"] = [0.3, 0.31, 0.46, 0.49, 0.5, 0.53, 0.6, 0.7]  # a tenth of their range is 0.04
    page = view(replace(run, scores=scores), store, tmp_path)
    cells = [cell for cell in page.cells if cell.concept == "church" and cell.attributes.get("data-v")]
    close = sorted(float(cell.attributes["data-s"]) for cell in cells if "data-close" in cell.attributes)
    assert close == [0.46, 0.49, 0.5, 0.53]


def test_the_same_cells_of_two_runs_are_one_column_and_others_are_told_apart(
    run: RunFolder, store: Store, tmp_path: Path
) -> None:
    again = replace(run, folder=tmp_path / "again")
    same = Page(str(viewer_section([run, again], [store, store], tmp_path / "report.html")))
    names = [known["data-name"] for tag, known in same.tags if tag == "input" and "data-name" in known]
    assert names == ["sd", "uce", "failing"]
    record = run.record.model_dump()
    for row in record["rows"]:
        if row["method"] == "uce":
            row["probes"]["concept"]["images"] = images_of(run, "sd", row["concept"])
    other = replace(again, record=type(run.record).model_validate(record))
    page = Page(str(viewer_section([run, other], [store, store], tmp_path / "report.html")))
    names = [known["data-name"] for tag, known in page.tags if tag == "input" and "data-name" in known]
    assert names == ["sd", "uce (out)", "uce (again)", "failing"]
    first = [cell for cell in page.cells if cell.row == page.cells[0].row and cell.concept == "church"]
    assert [cell.attributes["data-n"] for cell in first] == ["sd", "uce (out)", "uce (again)"]
    assert first[0].href == first[2].href != first[1].href


def test_a_run_of_nothing(run: RunFolder, store: Store, tmp_path: Path) -> None:
    empty = replace(run, record=run.record.model_copy(update={"rows": ()}), scores=run.scores[:0])
    assert "These runs have no images" in view(empty, store, tmp_path).words
    assert not (tmp_path / "report-images").exists()


def test_its_code_is_small_and_its_own() -> None:
    css, js = (asset(f"viewer.{kind}").encode() for kind in ("css", "js"))
    assert len(css) + len(js) < 40_000
    assert b"//" not in css and b"http" not in js and b"http" not in css
    assert b"</script" not in js and b"</style" not in css
