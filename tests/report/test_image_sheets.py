"""Images of runs as tables: which column and line they stand in, which lines come first, what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from erasebench.engine.store import Store
from erasebench.report.image_sheets import (
    UNRELATED,
    Column,
    Line,
    Sample,
    Sheet,
    Verdict,
    read_concepts,
    run_names,
)
from erasebench.results.run_folder import RunFolder
from tests.report.viewed import attacked, judged_again


def test_scores_are_rounded_on_their_own_side_of_the_threshold() -> None:
    said = {
        (0.4996, 0.5): "0.4996 < 0.5",
        (0.4951, 0.5): "0.495 < 0.5",
        (0.5, 0.5): "0.50 ≥ 0.5",
        (0.00002, 0.5): "0.00 < 0.5",
        (87.26, None): "clip 87.3",
        (0.261, 0.26): "0.26 ≥ 0.26",
    }
    assert {key: str(Verdict("judge", "clip", *key)) for key in said} == said


def line(group: str, *scores: float, judges: int = 1) -> Line:
    """A line of samples, one for each score; the threshold is a half."""
    made = Line(f"{group} {scores}", group, 0, group)
    for place, score in enumerate(scores):
        column = Column(place, str(place), place == 0)
        verdicts = [Verdict(f"judge {k}", "label", score if k == 0 else 1 - score, 0.5) for k in range(judges)]
        made.samples[str(place)] = Sample(column, None, verdicts)
    return made


def test_the_most_telling_lines_of_each_group_come_first_by_turns() -> None:
    alike, spread = line("a", 0.9, 0.91, 0.92), line("a", 0.6, 0.9, 0.99)
    one_differs, half = line("a", 0.1, 0.9, 0.9, 0.9), line("a", 0.1, 0.9, 0.1, 0.9)
    disputed = line("a", 0.9, 0.9, 0.9, judges=2)
    dull, split = line("b", 0.9, 0.9), line("b", 0.2, 0.9)
    sheet = Sheet({}, [alike, dull, spread, one_differs, split, half, disputed])
    order = [sheet.lines[place] for place in sheet.waiting]
    assert order == [disputed, split, half, dull, one_differs, spread, alike]
    sheet.chosen[2] = sheet.chosen[0] = True
    assert sheet.shown == [alike, spread], "in their own order"


def test_unerased_models_come_first_and_the_same_method_of_two_runs_side_by_side(
    run: RunFolder, store: Store, tmp_path: Path
) -> None:
    record = run.record.model_dump()
    for row in record["rows"]:
        for probe in row["probes"].values():
            probe["images"] = f"other {probe['images']}"
    other = replace(run, folder=tmp_path / "other", record=type(run.record).model_validate(record))
    concepts, columns = read_concepts([run, other], [store, store])
    names = ["sd (out)", "sd (other)", "uce (out)", "uce (other)", "failing (out)", "failing (other)"]
    assert [column.name for column in columns] == names
    assert [column.place for column in columns] == list(range(6))
    assert [column.baseline for column in columns] == [True, True, False, False, False, False]
    assert all(list(concept.own.headings) == names[:4] for concept in concepts)
    assert all(len(each.samples) == 4 for concept in concepts for each in concept.own.lines)


def test_runs_of_the_same_name_are_numbered(run: RunFolder, tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "out", tmp_path / "b" / "out", tmp_path / "else"]
    assert run_names([replace(run, folder=folder) for folder in folders]) == ["out (1)", "out (2)", "else"]


def test_a_few_unrelated_prompts_wait_to_be_shown(run: RunFolder, store: Store) -> None:
    (church, nudity), _ = read_concepts([run], [store])
    assert len(church.unrelated.lines) == 12 > len(church.unrelated.waiting) == UNRELATED
    assert len(nudity.unrelated.lines) == 10, "two show it"
    assert len(church.own.waiting) == len(church.own.lines) == 4


def test_two_judges_of_an_image_are_two_verdicts(run: RunFolder, store: Store) -> None:
    (church, _), _ = read_concepts([judged_again(run, {0: 0.1})], [store])
    first, *others = church.own.lines
    assert [verdict.judge for verdict in first.samples["sd"].verdicts] == ["picturebook-detector", "second"]
    assert first.samples["sd"].disputed and not first.samples["uce"].disputed
    assert not any(sample.disputed for each in others for sample in each.samples.values())


def test_attacks_on_the_unerased_model_are_left_out(run: RunFolder, store: Store) -> None:
    changed = attacked(run, {("sd", "none"): "cc", ("sd", "rab"): "cc", ("uce", "none"): "-c", ("uce", "rab"): "c-"})
    (church, nudity), _ = read_concepts([changed], [store])
    assert {each.method.name for each in church.attacked.lines if each.method} == {"uce"}
    assert list(church.attacked.headings) == ["none", "rab"] and not nudity.attacked.lines
    plain = [each.samples["none"].verdicts[0] for each in church.attacked.lines]
    assert [verdict.shows for verdict in plain] == [False, True], "what was drawn for the attack, once more"
