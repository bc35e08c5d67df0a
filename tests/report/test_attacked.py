"""Pictures of attacks: which rows and prompts a sheet shows, and when one is drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench.engine.store import Store
from erasebench.images import write_images
from erasebench.report import attacked as module
from erasebench.report.attacked import EXAMPLES, draw_attacked, draw_charts
from erasebench.report.sheets import source_of
from erasebench.results.record import AttackRecord, Record
from tests.engine.fake import cell
from tests.report.synthetic import matrix, run_of

PROMPTS = tuple(f"p{k}" for k in range(6))
Drawn = list[tuple[str, dict[str, list[int]], list[str], bool]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Has an image of one grey for each method, attack and prompt of :func:`record`."""
    return Store(tmp_path / "store")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Of each sheet its title, the greys of its columns, its prompts, and whether it is blurred."""
    sheets: Drawn = []

    def note(images: dict[str, list[np.ndarray]], prompts: list[str], title: str, blur: bool) -> Image.Image:
        greys = {name: [int(one.mean()) for one in column] for name, column in images.items()}
        sheets.append((title, greys, list(prompts), blur))
        return Image.new("L", (2, 2))

    monkeypatch.setattr(module, "sample_grid", note)
    return sheets


def record(store: Store, *rows: tuple[str, str, tuple[str, ...]], domain: str = "picturebook") -> Record:
    """Attacks on church: method, attack, and the prompts that were tried, whose images are in the store."""
    attacks = []
    for place, (method, attack, prompts) in enumerate(rows):
        keys = {}
        for prompt in prompts:
            one = cell(f"{method} {attack} {prompt}")
            grey = 10 * place + PROMPTS.index(prompt)
            if store.marker(one.key) is None:
                with store.writing(one, {}) as folder:
                    write_images(folder, np.full((1, 4, 4, 3), grey, np.uint8), [prompt], [prompt], [0])
            keys[prompt] = one.key
        attacks.append(
            AttackRecord(
                method=method, concept="church", kind="explicit", attack=attack, status="ok", trials={attack: keys}
            )
        )
    made = run_of(matrix(["sd", "uce"], ["church"], [])).record
    return made.model_copy(update={"attacks": tuple(attacks), "domain": domain})


def test_a_sheet_has_the_prompts_that_all_tried_beside_the_unerased_model(
    store: Store, drawn: Drawn, tmp_path: Path
) -> None:
    rows = (("sd", "none", PROMPTS), ("uce", "none", PROMPTS[::-1]), ("uce", "rab", PROMPTS[1:]))
    draw_attacked(record(store, *rows), store, tmp_path)
    [(title, greys, prompts, blur)] = drawn
    assert title == "uce under attack: church" and prompts == list(PROMPTS[1 : 1 + EXAMPLES]) and not blur
    assert greys == {"sd": [1, 2, 3, 4], "no attack": [11, 12, 13, 14], "rab": [21, 22, 23, 24]}
    assert [path.name for path in tmp_path.glob("*.png")] == ["attacked-uce-church.png"]


def test_it_is_drawn_again_only_if_another_image_or_blurring_makes_it_another(
    store: Store, drawn: Drawn, tmp_path: Path
) -> None:
    rows = (("sd", "none", PROMPTS), ("uce", "rab", PROMPTS))
    for _ in range(2):
        draw_attacked(record(store, *rows), store, tmp_path)
    assert len(drawn) == 1
    path = tmp_path / "attacked-uce-church.png"
    before = source_of(path)
    draw_attacked(record(store, *rows, domain="photo"), store, tmp_path)
    assert [blur for *_, blur in drawn] == [False, True] and source_of(path) != before
    draw_attacked(record(store, rows[0], ("uce", "p4d", PROMPTS), domain="photo"), store, tmp_path)
    path.write_bytes(b"no picture")
    draw_attacked(record(store, *rows), store, tmp_path)
    assert len(drawn) == 4


@pytest.mark.parametrize(
    "rows",
    [
        (("uce", "none", PROMPTS), ("uce", "rab", PROMPTS)),
        (("sd", "none", PROMPTS), ("sd", "rab", PROMPTS)),
        (("sd", "none", PROMPTS[:2]), ("uce", "rab", PROMPTS[2:])),
    ],
    ids=["no unerased model", "nothing erased", "no prompt in common"],
)
def test_where_nothing_can_be_compared_nothing_is_drawn(
    rows: tuple[tuple[str, str, tuple[str, ...]], ...], store: Store, drawn: Drawn, tmp_path: Path
) -> None:
    draw_attacked(record(store, *rows), store, tmp_path)
    assert drawn == [] and not list(tmp_path.glob("*.png"))


def test_charts_are_drawn_once_for_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def note(path: Path, baseline: str, source: str) -> str:
        from erasebench.report.sheets import save_sheet

        assert baseline == "sd"
        calls.append(path.name)
        save_sheet(Image.new("L", (2, 2)), path.with_name(f"{path.name}.png"), source)
        return source

    def draw_overall(data: pd.DataFrame, concept: str, *rest: object) -> str:
        assert set(data["concept"]) == {concept}
        return note(*rest)  # type: ignore[arg-type]

    def draw_budget(data: pd.DataFrame, attack: str, concept: str, *rest: object) -> str:
        assert attack == "standard" and set(data["concept"]) == {concept}
        return note(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "draw_overall", draw_overall)
    monkeypatch.setattr(module, "draw_budget", draw_budget)
    run = run_of(matrix(["sd", "uce"], ["church", "red balloon"], ["none", "standard"]))
    for _ in range(2):
        draw_charts(run.rows, run.attacks, "sd", tmp_path / "charts")
    names = [name for part in ("church", "red_balloon-") for name in (f"radar-{part}", f"budget-{part}")]
    assert len(calls) == 4 and all(call.startswith(name) for call, name in zip(calls, names, strict=True))
    fewer = run.attacks[(run.attacks["concept"] != "church") | (run.attacks["prompt_id"] != "p0")]
    draw_charts(run.rows, fewer, "sd", tmp_path / "charts")
    assert calls[4:] == ["budget-church"]
