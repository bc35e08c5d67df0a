"""Prompts of the user's files, and the order of a concept's own."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from erasebench.concepts import Prompt, View, load_catalogue
from erasebench.config import make_config
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.plan import count_prompts, describe_plan, find_missing
from erasebench.planning import make_plan
from erasebench.prompts import (
    COMPOSITIONS,
    caption_prompts,
    choose_captions,
    composed_prompts,
    own_prompts,
    read_captions,
    read_pairs,
    read_retain,
    read_table,
    repeat,
)
from tests.engine.runs import PROMPT_SET_CONCEPT


def test_prompts_and_seeds_of_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concepts.yaml").write_text(PROMPT_SET_CONCEPT)
    with open("good.csv", "w", newline="", encoding="utf-8-sig") as stream:
        rows = [
            ("text", "tags", "seed"),
            ("a", "dark, old", 5),
            ("b", "light", 6),
            ("two\nlines", "dark", 7),
            ("c", "", 8),
        ]
        csv.writer(stream).writerows(rows)
    Path("others.csv").write_text("prompt\nx\ny\nz\n")
    made = make_plan(
        make_config(
            {
                **{"concepts": ["mine"], "concept_files": ["concepts.yaml"], "prompt_sets": {"mine": "good.csv"}},
                **{"images_per_prompt": 2, "retain_file": "others.csv", "retain_prompts": 2, "device": "cpu"},
            }
        )
    )
    assert made.rows[0].probes["concept"].prompts[::2] == (
        Prompt("a", "a", 5, "set"),
        Prompt("two\nlines", "two\nlines", 7, "set"),
    )
    images, others = made.rows[0].probes["concept"].images, made.rows[0].probes["retain"].images
    assert images is not None and others is not None
    assert images.spec["prompts"] == ["a", "a", "two\nlines", "two\nlines"] and images.spec["seeds"] == [5, 6, 7, 8]
    assert others.spec["prompts"] == ["x", "y"] == others.spec["ids"]
    assert made.retained == (Prompt("x", "x", 0, "retain"), Prompt("y", "y", 0, "retain"))


@pytest.mark.parametrize(
    ("kinds", "texts"),
    [
        (("naming", "implying"), ["a", "x", "b", "c"]),
        (("implying", "naming", "synonym"), ["a", "x", "s", "b", "t", "c"]),
        (("synonym",), ["s", "t"]),
        ((), []),
    ],
)
def test_kinds_of_prompts_take_turns(kinds: tuple[str, ...], texts: list[str]) -> None:
    view = View("judge", "label", naming=("a", "b", "c"), implying=("x",), synonyms=("s", "t"))
    prompts = own_prompts(view, kinds, 3)
    assert [prompt.text for prompt in prompts] == texts
    of_kind = {**dict.fromkeys("abc", "naming"), "x": "implying", **dict.fromkeys("st", "synonym")}
    assert all(prompt == Prompt(prompt.text, prompt.text, 3, of_kind[prompt.text]) for prompt in prompts)


def test_synonyms_are_asked_for_by_the_configuration() -> None:
    config = {"concepts": ["church"], "prompts": 3, "prompt_kinds": "synonym,naming", "device": "cpu"}
    (row,) = make_plan(make_config(config)).rows
    assert [prompt.kind for prompt in row.probes["concept"].prompts] == ["naming", "synonym", "naming"]
    assert row.probes["concept"].images is not None and row.probes["concept"].images.spec["ids"] == [
        prompt.id for prompt in row.probes["concept"].prompts
    ]
    with pytest.raises(EraseBenchError, match="unknown kind of prompt 'synonyms'; nearest: synonym"):
        make_plan(make_config(config, {"prompt_kinds": ["synonyms"]}))
    with pytest.raises(EraseBenchError, match="'church' has no prompts of the kinds none in the domain"):
        make_plan(make_config(config, {"prompt_kinds": []}))


def test_a_prompt_is_repeated_with_the_seeds_that_follow_its_own() -> None:
    prompt, other = Prompt("i", "a", 5, "naming"), Prompt("j", "a", 5, "naming")
    assert [(one.id, one.seed) for one in repeat([prompt, other], 2)] == [("i", 5), ("i", 6), ("j", 5), ("j", 6)]


def test_a_picture_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt and seed decide it: the same again would only seem to be one more."""
    monkeypatch.chdir(tmp_path)
    Path("concepts.yaml").write_text(PROMPT_SET_CONCEPT)
    Path("mine.csv").write_text("text,tags,seed\na,dark,5\na,dark,6\na,dark,5\n")
    Path("others.csv").write_text("prompt\nx\ny\nx\n")
    made = make_plan(
        make_config(
            {
                **{"concepts": ["mine"], "concept_files": ["concepts.yaml"], "prompt_sets": {"mine": "mine.csv"}},
                **{"images_per_prompt": 2, "retain_file": "others.csv", "device": "cpu"},
            }
        )
    )
    images, others = made.rows[0].probes["concept"].images, made.rows[0].probes["retain"].images
    assert images is not None and others is not None
    assert images.spec["prompts"] == ["a"] * 3 and images.spec["seeds"] == [5, 6, 7]
    assert others.spec["prompts"] == ["x", "y"]


def test_rows_that_differ_by_their_seeds_are_as_many_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concepts.yaml").write_text(PROMPT_SET_CONCEPT)
    Path("mine.csv").write_text("text,tags,seed\n" + "".join(f"a,dark,{seed}\n" for seed in (5, 9, 7, 5)))
    config = {
        **{"concepts": ["mine"], "concept_files": ["concepts.yaml"], "prompt_sets": {"mine": "mine.csv"}},
        **{"prompts": 4, "device": "cpu"},
    }
    made = make_plan(make_config(config))
    assert [prompt.seed for prompt in made.rows[0].probes["concept"].prompts] == [5, 9, 7] and count_prompts(made) == {
        "mine": 1
    }
    store = Store(tmp_path / "store", make=False)
    assert "\nmine has 3 prompts in this domain, not the 4 asked for\n" in describe_plan(
        made, find_missing(made, store), store
    )
    fewer = make_plan(make_config(config, {"prompts": 3}))
    assert "mine has" not in describe_plan(fewer, find_missing(fewer, store), store)


def test_pairs_of_a_csv_file_may_have_a_blank_second_and_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('without,note,with\n"a house, red",x,a church\n,,church\n', encoding="utf-8-sig")
    assert read_pairs(path) == [("a church", "a house, red"), ("church", "")]


# Captions of COCO


def coco(path: Path, captions: Sequence[tuple[int, int, str]]) -> Path:
    annotations = [{"image_id": image, "id": number, "caption": text} for image, number, text in captions]
    path.write_text(json.dumps({"images": [], "annotations": annotations}), encoding="utf-8")
    return path


def test_captions_are_one_an_image_whatever_their_order() -> None:
    captions = [(image, 100 + 7 * image + k, f"{image} {k}") for image in range(40) for k in range(5)]
    chosen = choose_captions(captions)
    assert sorted(int(text.split()[0]) for text in chosen) == list(range(40))
    assert chosen == choose_captions(captions[::-1])
    assert [text.split()[0] for text in chosen] != sorted((text.split()[0] for text in chosen), key=int)
    assert {text.split()[1] for text in chosen} == set("01234"), "not always the first"
    # By another way: of each image, and of the images, those with the lowest hexadecimal digest of the id come first.
    lowest = {}
    for image in range(40):
        own = [caption for caption in captions if caption[0] == image]
        lowest[image] = min(own, key=lambda caption: sha256(b"%d" % caption[1]).hexdigest())[2]
    assert chosen == [lowest[image] for image in sorted(range(40), key=lambda image: sha256(b"%d" % image).hexdigest())]


def test_captions_of_a_file_become_unrelated_prompts(tmp_path: Path) -> None:
    path = coco(
        tmp_path / "captions_val2017.json", [(1, 1, "A cat.\n"), (1, 2, "A  cat."), (2, 3, "A cat."), (3, 4, "é")]
    )
    assert read_captions(path)[0] == (1, 1, "A cat.")
    prompts = read_retain(path, 7)
    assert sorted((prompt.text, prompt.seed) for prompt in prompts) == [("A cat.", 7), ("A cat.", 8), ("é", 7)]
    assert all(prompt.id == prompt.text and prompt.kind == "retain" for prompt in prompts)
    assert len(repeat(prompts, 1)) == 3, "an image for each, though two share a caption"
    assert [prompt.seed for prompt in caption_prompts(["a", "b", "a", "a"], 0)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": [{"image', "x.json is not JSON, or is cut short: "),
        ("", "x.json is not JSON, or is cut short: "),
        ("[" * 100_000, "x.json is not JSON, or is cut short: "),
        ("[]", "x.json is no file of COCO's captions"),
        ("{}", "x.json is no file of COCO's captions, .*'annotations'"),
        ('{"annotations": [{"image_id": 1, "id": 2}]}', "x.json is no file of COCO's captions, .*'caption'"),
        ('{"annotations": [1]}', "x.json is no file of COCO's captions"),
        ('{"annotations": []}', "x.json holds no captions"),
        (
            '{"annotations": [{"image_id": 1, "id": 2, "caption": " "}]}',
            "x.json: prompt 1 of those that are read is empt",
        ),
    ],
)
def test_damaged_captions(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(EraseBenchError, match=message):
        read_captions(tmp_path / "x.json")


# CSV


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.csv holds no rows"),
        (b"prompt\n", "x.csv holds no rows"),
        (b"prompt,prompt\na,b\n", "x.csv has two columns 'prompt'"),
        (b"prompt\na\0b\n", "x.csv holds NUL bytes: it is no text, or is damaged"),
        (b"prompt\ncaf\xe9\n", "x.csv is not text in UTF-8: .* at byte 10"),
        (b'prompt\na\n"b\nc\n', "x.csv, after row 1: this is no CSV, or a quotation mark is left open"),
        (b'prompt\n"a" b\n', "x.csv, after row 0: this is no CSV, or a quotation mark is left open"),
        (b"prompt,seed\na, b,1\n", "x.csv: row 1 has more columns than the header; text with commas stands in quota"),
        (b'prompt\n"' + b"a" * 200_000 + b'"\n', "x.csv, after row 0: this is no CSV"),
    ],
)
def test_damaged_tables(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(EraseBenchError, match=message) as error:
        read_table(tmp_path / "x.csv")
    assert "\n" not in str(error.value)


def test_a_table_may_have_columns_without_a_name_and_quotes_within(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(',,prompt\n0,0,"a ""quoted"" word, and more"\n1,1,six feet 2" tall\n')
    assert [row["prompt"] for row in read_table(tmp_path / "x.csv")] == [
        'a "quoted" word, and more',
        'six feet 2" tall',
    ]


def test_pairs_of_objects_by_turns() -> None:
    catalogue = load_catalogue()
    church, tench, gas_pump, crayon, springer = map(
        catalogue.get, ("church", "tench", "gas-pump", "crayon", "english-springer")
    )
    prompts = composed_prompts([church, tench], [tench, crayon, gas_pump, springer], 7)
    assert [prompt.text for prompt in prompts[:5]] == [
        "a photo of a church next to a gas pump",
        "a photo of a church next to an English springer",
        "a photo of a tench next to a gas pump",
        "a photo of a tench next to an English springer",
        "a photo of a gas pump and a church",
    ]
    assert len(prompts) == 4 * len(COMPOSITIONS) == len({prompt.id for prompt in prompts})
    assert prompts[4].shows == ("church", "gas-pump") and {prompt.seed for prompt in prompts} == {7}
    assert not composed_prompts([crayon], [church], 0) and not composed_prompts([church], [church], 0)
