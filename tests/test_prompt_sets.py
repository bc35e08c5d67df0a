"""The prompt sets of a run: which are asked, and whether a file is a right copy."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from erasebench.concepts import Hub, Prompt, PromptSet, Selection, load_catalogue
from erasebench.errors import EraseBenchError
from erasebench.judges.weights_files import FOLDER
from erasebench.prompt_sets import PromptSets, fetched_file, read_prompt_set

SET = PromptSet(
    name="mine",
    title="my prompts",
    url="https://example.org/mine",
    seeds=("sd_seed", "evaluation_seed"),
    rows=(4,),
    distinct=3,
    empty=1,
    concepts={"church": Selection(where={"tags": "old"}, rows=3), "parachute": Selection(where={"tags": "new"})},
)
ROWS = (("a", "old, new", 7), ("b", "old", 8), ("a", "old", 9), ("", "new", 3))
HEADER = ("prompt", "tags", "evaluation_seed")
AUTO = Path("auto")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER, str(tmp_path / "weights"))
    return tmp_path


def write(path: Path, rows: Sequence[Sequence[object]] = ROWS, header: Sequence[str] = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def coco(path: Path, captions: Sequence[tuple[int, int, str]]) -> Path:
    annotations = [{"image_id": image, "id": number, "caption": text} for image, number, text in captions]
    path.write_text(json.dumps({"info": {}, "images": [], "annotations": annotations}))
    return path


# Right copies


def test_rows_with_their_own_seeds_and_the_empty_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_prompt_set(SET, write(folder / "mine.csv"))
    assert [(row.prompt, row.seed) for row in rows] == [("a", 7), ("b", 8), ("a", 9), ("", 3)]
    assert not capsys.readouterr().err
    assert read_prompt_set(replace(SET, seeds=()), folder / "mine.csv")[0].seed is None


def test_columns_may_have_other_names_and_others_beside_them(folder: Path) -> None:
    path = write(folder / "mine.csv", [(0, *row, 7.5) for row in ROWS], ("", "prompt", "tags", "sd_seed", "guidance"))
    assert [row.seed for row in read_prompt_set(SET, path)] == [7, 8, 9, 3]


def test_hashes_are_of_stripped_texts_joined_by_a_stroke(folder: Path) -> None:
    def digest(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()[:8]

    path = write(folder / "mine.csv", [("a ", "old", 7), ("b", "old", 8), ("c", "old", 9), ("", "new", 3)])
    right = replace(SET, distinct=4, md5_prompts=digest("a|b|c|"), md5_seeds=digest("7|8|9|3"))
    assert len(read_prompt_set(right, path)) == 4
    for wrong, what in ((replace(right, md5_prompts="0" * 8), "prompts"), (replace(right, md5_seeds="0" * 8), "seeds")):
        with pytest.raises(
            EraseBenchError, match=f"has other {what} than mine: their MD5 begins with .* not with 0000"
        ):
            read_prompt_set(wrong, path)


def test_a_copy_that_is_spelt_otherwise_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder / "mine.csv", [("a", "old", 7), ("b", "old", 8), ("c", "old", 9), ("d", "new", 3)])
    assert len(read_prompt_set(SET, path)) == 4
    assert "warning: 4 prompts of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ROWS[:3],
            r"has 3 rows, but mine has 4: it is cut short or another file; get it from https://example.org/mine",
        ),
        ((*ROWS[:2], ("a", "new", 9), ROWS[3]), r"has 2 rows for church, but mine has 3"),
        ((*ROWS[:2], ("", "old", 9), ROWS[3]), r"prompt 4 of those that are read is empty"),
        ((*ROWS[:3], ("c", "new", "x")), r"column evaluation_seed of .* holds no seed"),
        ((*ROWS[:3], ("c", "new", -1)), r"column evaluation_seed of .* holds no seed: -1 is not from 0"),
        ((*ROWS[:3], ("c", "new", 2**63)), r"column evaluation_seed of .* holds no seed: 9223372036854775808 is not"),
        ((*ROWS[:3], ("c", "new")), r"column evaluation_seed of .* holds no seed"),
    ],
)
def test_another_file_is_an_error(folder: Path, rows: Sequence[Sequence[object]], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        read_prompt_set(SET, write(folder / "mine.csv", rows))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("text", "tags", "sd_seed"), "has no column 'prompt', but text, tags, sd_seed"),
        (("prompt", "tags", "seed"), "has no column 'sd_seed' or 'evaluation_seed', but prompt, tags, seed"),
        (("prompt", "tag", "sd_seed"), "has no column 'tags', but prompt, tag, sd_seed"),
    ],
)
def test_a_column_is_missing(folder: Path, header: Sequence[str], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        read_prompt_set(SET, write(folder / "mine.csv", header=header))


def test_captions_of_coco_are_one_an_image(folder: Path) -> None:
    captions = [(image, 10 * image + k, f"caption {k} of {image}") for image in range(20) for k in range(5)]
    wanted = PromptSet(name="coco", title="captions", url="https://example.org", rows=(100,), retain=True)
    path = coco(folder / "captions.json", captions)
    rows = read_prompt_set(wanted, path)
    assert sorted(int(row.prompt.split()[-1]) for row in rows) == list(range(20))
    coco(folder / "turned.json", captions[::-1])
    assert rows == read_prompt_set(wanted, folder / "turned.json"), "the order of the file does not matter"
    with pytest.raises(EraseBenchError, match="has 100 captions, but coco has 25,014"):
        read_prompt_set(replace(wanted, rows=(25014,)), path)


# What a run asks


def known(*sets: PromptSet) -> dict[str, PromptSet]:
    return {prompt_set.name: prompt_set for prompt_set in sets}


def test_the_first_set_that_knows_a_concept_is_asked(folder: Path) -> None:
    kept = PromptSet(
        name="kept", title="kept", url="https://example.org", concepts={"church": Selection(prompts=("x", "y"))}
    )
    sets, mine = known(SET, kept), write(folder / "mine.csv")
    first = PromptSets(sets, {"mine": mine, "kept": AUTO}, "photo")
    assert first.ask("church", None, 1) == [
        *(Prompt("a", "a", 7, "set"), Prompt("b", "b", 8, "set"), Prompt("a", "a", 9, "set"))
    ]
    assert first.ask("parachute", None, 1) == [Prompt("a", "a", 7, "set"), Prompt("", "", 3, "set")]
    assert first.ask("tench", None, 1) is None and first.retain(1) is None
    last = PromptSets(sets, {"kept": AUTO, "mine": mine}, "photo")
    assert last.ask("church", "mine", 5) == [Prompt("x", "x", 5, "set"), Prompt("y", "y", 5, "set")]
    assert PromptSets(sets, {"kept": AUTO}, "picturebook").ask("church", None, 5) is None, "a set is of one domain"


def test_a_concepts_own_set_is_asked_without_being_named(folder: Path) -> None:
    with pytest.raises(EraseBenchError) as error:
        PromptSets(known(SET), {}, "photo").ask("church", "mine", 0)
    assert str(error.value) == (
        "the prompts 'mine' are needed and not part of erasebench: get the file from https://example.org/mine and give "
        "it by --prompt-sets mine=FILE.csv"
    )
    write(fetched_file(SET))
    prompts = PromptSets(known(SET), {}, "photo").ask("church", "mine", 0)
    assert prompts == PromptSets(known(SET), {"mine": AUTO}, "photo").ask("church", None, 0)
    assert prompts is not None and len(prompts) == 3


def test_unrelated_prompts_of_a_set(folder: Path) -> None:
    captions = PromptSet(name="captions", title="captions", url="https://example.org", seeds=("seed",), retain=True)
    write(folder / "captions.csv", [("x", 4), ("y", 5), ("x", 6)], ("prompt", "seed"))
    given = {"captions": folder / "captions.csv"}
    seeded = [("x", 4), ("y", 5), ("x", 6)]
    for wanted, expected in ((captions, seeded), (replace(captions, seeds=()), [("x", 9), ("y", 9), ("x", 10)])):
        prompts = PromptSets(known(wanted), given, "photo").retain(9)
        assert prompts == [Prompt(text, text, seed, "retain") for text, seed in expected]
    two = known(captions, replace(captions, name="others"))
    with pytest.raises(EraseBenchError, match="captions and others both give unrelated prompts"):
        PromptSets(two, {**given, "others": folder / "captions.csv"}, "photo")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mien": "mine.csv"}, "unknown prompt set 'mien'; nearest: mine"),
        ({"mine": "missing.csv"}, "cannot read missing.csv: No such file"),
        ({"mine": "."}, "cannot read .: Is a directory"),
        (
            {"mine": "auto"},
            "the prompts 'mine' are needed and not part of erasebench: get the file from https://example",
        ),
        ({"online": "auto"}, "get them by `erasebench fetch online`, or give a copy of https://example.org/mine by"),
        ({"kept": "mine.csv"}, "the prompts 'kept' are part of erasebench: write kept=auto"),
    ],
)
def test_what_is_given_is_looked_at_first(folder: Path, given: dict[str, str], message: str) -> None:
    sets = known(
        SET,
        replace(SET, name="online", hub=Hub("a/b", "c.csv", "d")),
        replace(SET, name="kept", concepts={"church": Selection(prompts=("x",))}),
    )
    with pytest.raises(EraseBenchError) as error:
        PromptSets(sets, {name: Path(path) for name, path in given.items()}, "photo")
    assert str(error.value).startswith(message) or message in str(error.value)


def test_a_made_up_i2p_with_the_official_counts_is_read(folder: Path) -> None:
    """The real one is not here: rows with its columns, categories and counts, and nothing of its text."""
    i2p = load_catalogue().prompt_sets["i2p"]
    pure = {"sexual": 834, "shocking": 696, "harassment": 625, "self-harm": 692, "violence": 665}
    pure |= {"illegal activity": 630, "hate": 182}
    total = {text: selection.rows or 0 for selection in i2p.concepts.values() for text in selection.where.values()}
    categories = [name for name, count in pure.items() for _ in range(count)]
    # The other rows are of two categories or more: fill them up so that each category has as many as it should.
    left = {name: total[name] - count for name, count in pure.items()}
    mixed: list[list[str]] = [[] for _ in range(4703 - len(categories))]
    k = 0
    for name, count in left.items():
        for _ in range(count):
            mixed[k % len(mixed)].append(name)
            k += 1
    categories += [", ".join(names) for names in mixed]
    texts = [f"prompt {n % 4466}" for n in range(4702)] + [""]
    rows = [(n, text, names, n) for n, (text, names) in enumerate(zip(texts, categories, strict=True))]
    path = write(folder / "i2p.csv", rows, ("case_number", "prompt", "categories", "evaluation_seed"))
    sets = PromptSets(load_catalogue().prompt_sets, {"i2p": path}, "photo")
    for name, selection in i2p.concepts.items():
        prompts = sets.ask(name, "i2p", 0)
        assert prompts is not None and len(prompts) == selection.rows
    everything = PromptSets(load_catalogue().prompt_sets, {"i2p-all": path}, "photo").ask("nudity", "i2p", 0)
    assert everything is not None and len(everything) == 4703
