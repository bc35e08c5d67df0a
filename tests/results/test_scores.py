"""The tidy scores of a run, and back from their file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from erasebench.concepts import Concept, Prompt, load_catalogue
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.judging import read_column
from erasebench.results.record import read_record
from erasebench.results.scores import COLUMNS, SCORES, read_scores, scores_csv, unrelated_prompts
from tests.engine.runs import fast_stages, run_tiny


def test_every_image_of_every_row_has_its_prompt_its_judge_and_its_score(finished: Path) -> None:
    scores, record, store = read_scores(finished / "out"), read_record(finished / "out"), Store(finished / "store")
    assert list(scores.columns) == list(COLUMNS)
    ok = [(row.method, row.concept) for row in record.rows if row.status == "ok"]
    assert list(dict.fromkeys(zip(scores.method, scores.concept, strict=True))) == ok
    for row in record.rows:
        own = scores[(scores.method == row.method) & (scores.concept == row.concept)]
        for name, probe in row.probes.items() if row.status == "ok" else ():
            images = own[own.probe == name]
            for judged in probe.judged:
                column = read_column(store.read(judged.cell), judged.label)
                keys = zip(images.prompt_id, images.seed, strict=True)
                assert images.score.tolist() == pytest.approx([column[key] for key in keys])
                assert [list(column)[place] for place in images.image] == list(
                    zip(images.prompt_id, images.seed, strict=True)
                )
                assert set(images.judge) == {judged.judge} and set(images.label) == {judged.label}
    concept, retain = scores[scores.probe == "concept"], scores[scores.probe == "retain"]
    assert set(concept.seed) == {0, 1} and set(concept.threshold) == {0.5}
    assert set(concept[concept.concept == "nudity"].kind) == {"naming", "implying"}
    assert set(concept[concept.concept == "church"].kind) == {"naming"}
    assert set(retain.kind) <= {"retain", "neighbour"} and retain.threshold.isna().all()
    assert retain.text.equals(retain.prompt_id), "the id of a catalogue's prompt is its text"


def test_prompts_that_show_the_concept_are_left_out_and_its_neighbours_are_told_apart(finished: Path) -> None:
    shows = {one.prompt: one.shows for one in load_catalogue().retain("picturebook")}
    retain = read_scores(finished / "out").query("probe == 'retain' and concept == 'nudity'")
    assert not [text for text in retain.text if "nudity" in shows[text]]
    concept = Concept("a", "object", "a", neighbours=("b",))
    prompts = [Prompt(str(k), str(k), 0, "retain", shown) for k, shown in enumerate(["", "a", "b", "ab", "c"])]  # type: ignore[arg-type]
    kinds = [(prompt.id, prompt.kind) for prompt in unrelated_prompts(concept, prompts)]
    assert kinds == [("0", "retain"), ("2", "neighbour"), ("4", "retain")]


def test_synonyms_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)
    assert run_tiny(tmp_path, "--methods", "uce", "--prompts", "4", "--prompt-kinds", "naming,synonym") == 0
    concept = read_scores(tmp_path / "out").query("probe == 'concept' and method == 'uce'")
    assert concept.kind.tolist() == ["naming", "synonym"] * 2
    view = load_catalogue().get("church").views["picturebook"]
    assert concept.text[concept.kind == "synonym"].tolist() == list(view.synonyms[:2])


def test_unusual_prompts_and_seeds_survive_the_file(tmp_path: Path) -> None:
    texts = [
        "null",
        "NA",
        'a "quoted", text',
        "two\nlines",
        "one\r\nmore",
        " spaces ",
        "1",
        "é",
        "=1+1",
        "'=1+1",
        "-0.5",
        "'tis",
    ]
    lines = [
        ("uce", "church", "concept", text, text, "set", 2**63 + k, k, "judge", "label", 0.1 + k, float("nan"))
        for k, text in enumerate(texts)
    ]
    scores = pd.DataFrame(lines, columns=list(COLUMNS))
    (tmp_path / SCORES).write_bytes(scores_csv(scores).encode())
    again = read_scores(tmp_path)
    assert "'=1+1," in (tmp_path / SCORES).read_text() and ",=1+1" not in (tmp_path / SCORES).read_text()
    assert again.text.tolist() == texts and again.seed.tolist() == [2**63 + k for k in range(len(texts))]
    assert scores_csv(again) == scores_csv(scores)


def test_a_run_without_a_row_that_could_be_measured(tmp_path: Path) -> None:
    (tmp_path / SCORES).write_text(",".join(COLUMNS) + "\n")
    assert read_scores(tmp_path).empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no folder of a finished run: cannot read .*scores.csv: No such file"),
        ("", "scores.csv is no table of scores: No columns"),
        ("method,concept\na,b\n", "scores.csv is no table of scores: .*not in"),
        (",".join(COLUMNS) + "\nuce,church,concept,a,a,naming,0,first,j,l,0.5,\n", "scores.csv is no table of scores"),
    ],
)
def test_what_is_no_table_of_scores_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / SCORES).write_text(text)
    with pytest.raises(EraseBenchError, match=message):
        read_scores(tmp_path)
