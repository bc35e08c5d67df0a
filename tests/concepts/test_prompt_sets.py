"""The registry of public prompt sets, and those of a user's file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from erasebench.concepts import Catalogue, CatalogueError, PromptSet, Selection, load_catalogue

MINE = """
prompt_sets:
  mine:
    title: my prompts
    url: https://example.org/mine
    seeds: [seed]
    rows: [2, 3]
    concepts: {church: {where: {tag: church}, rows: 1}, parachute: {}}
"""


@cache
def catalogue() -> Catalogue:
    return load_catalogue()


def load(folder: Path, text: str) -> Catalogue:
    (folder / "mine.yaml").write_text(text)
    return load_catalogue([folder / "mine.yaml"])


def test_i2p_has_the_counts_that_were_measured() -> None:
    i2p, whole = catalogue().prompt_sets["i2p"], catalogue().prompt_sets["i2p-all"]
    assert (i2p.rows, i2p.distinct, i2p.empty, i2p.seeds) == ((4703,), 4467, 1, ("sd_seed", "evaluation_seed"))
    counts = {name: selection.rows for name, selection in i2p.concepts.items()}
    assert counts == {
        **{"nudity": 931, "shocking": 856, "harassment": 824, "self-harm": 801, "violence": 756},
        **{"illegal-activity": 727, "hate": 231},
    }
    assert sum(count or 0 for count in counts.values()) == 5126, "a row may be of several categories"
    assert whole.concepts == {name: Selection(rows=4703) for name in ("nudity", "inappropriate")}
    assert (whole.hub, whole.file_name, whole.rows) == (i2p.hub, i2p.file_name, i2p.rows)


def test_imagenette_has_all_its_classes() -> None:
    imagenette, template = catalogue().prompt_sets["imagenette"], catalogue().prompt_sets["imagenette-esd"]
    assert imagenette.concepts.keys() == template.concepts.keys()
    assert len(template.concepts) == 10 and template.built_in and not imagenette.built_in
    for name, selection in template.concepts.items():
        assert selection.prompts[0].endswith(f" {catalogue().get(name).phrase}")
        assert imagenette.concepts[name].where == {"label_str": catalogue().get(name).phrase}
    assert sum(selection.rows or 0 for selection in imagenette.concepts.values()) == 5000 == imagenette.rows[0]


@pytest.mark.parametrize(("name", "rows"), [("niche-art", 40), ("artists-esd", 20)])
def test_artists_are_called_as_in_the_catalogue(name: str, rows: int) -> None:
    artists = catalogue().prompt_sets[name]
    assert len(artists.concepts) == 5 and artists.rows == (5 * rows,)
    for concept, selection in artists.concepts.items():
        assert selection == Selection(where={"artist": catalogue().get(concept).phrase}, rows=rows)


def test_unlearncanvas_is_a_style_with_each_object() -> None:
    styles = {name: selection.prompts for name, selection in catalogue().prompt_sets["unlearncanvas"].concepts.items()}
    assert {len(prompts) for prompts in styles.values()} == {20}
    assert [text.replace("Crayon", "Van Gogh") for text in styles["crayon"]] == list(styles["van-gogh"])
    for prompts in styles.values():
        assert all(text.startswith("A ") and text.endswith(" style.") for text in prompts)


def test_every_set_says_where_it_is_from() -> None:
    for prompt_set in catalogue().prompt_sets.values():
        assert prompt_set.url.startswith("https://") and prompt_set.licence and prompt_set.title
        assert prompt_set.built_in or prompt_set.rows, "a copy can be told from another file"
        assert prompt_set.download.startswith("https://") or not prompt_set.download
        assert not (prompt_set.built_in and prompt_set.can_be_fetched)
    assert {each.name for each in catalogue().prompt_sets.values() if each.retain} == {"coco-30k", "coco-2017-val"}
    files = [each.file_name for each in catalogue().prompt_sets.values()]
    assert {name for name in files if files.count(name) > 1} == {"i2p.csv"}


def test_no_prompt_for_what_is_sensitive_is_kept() -> None:
    for prompt_set in catalogue().prompt_sets.values():
        for name, selection in prompt_set.concepts.items():
            assert not selection.prompts or catalogue().get(name).kind in ("object", "style")


def test_a_users_set(tmp_path: Path) -> None:
    assert load(tmp_path, MINE).prompt_sets["mine"] == PromptSet(
        name="mine",
        title="my prompts",
        url="https://example.org/mine",
        seeds=("seed",),
        rows=(2, 3),
        concepts={"church": Selection(where={"tag": "church"}, rows=1), "parachute": Selection()},
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    url: https://example.org/mine\n", "", "prompt_sets: mine: missing 'url'"),
        ("seeds: [seed]", "seed: [seed]", "prompt_sets: mine: unknown key 'seed'; nearest: seeds"),
        ("rows: [2, 3]", "rows: [two]", "mine: rows: item 1: expected a whole number, found the text 'two'"),
        ("rows: [2, 3]", "rows: [true]", "mine: rows: item 1: expected a whole number, found True"),
        ("rows: [2, 3]", "retain: 1", "mine: retain: expected true or false, found 1"),
        ("rows: [2, 3]", "retain: true", "prompt set 'mine': its prompts are for 'concepts', or for none"),
        ("rows: [2, 3]", "prompt: []", "prompt set 'mine': prompt: no column of prompts"),
        ("rows: [2, 3]", "domain: photos", "prompt set 'mine': domain: unknown domain 'photos'; nearest: photo"),
        ("[seed]", "[seed, seed]", "prompt set 'mine': seeds: 'seed' stands twice"),
        ("{church:", "{chruch:", "prompt set 'mine': concepts: unknown concept 'chruch'; nearest: church"),
        ("parachute: {}", "paul-marsh: {}", "prompt set 'mine': concepts: paul-marsh: unknown domain 'photo'"),
        ("parachute: {}", "parachute: {prompts: [x]}", "concepts: either all give 'prompts', or none"),
        ("  mine:", "  i2p:", "prompt set 'i2p': there is one already"),
        ("  mine:", "  My set:", "prompt set 'My set': a name is lower case with hyphens, like 'coco-30k'"),
    ],
)
def test_a_wrong_set_names_file_and_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    with pytest.raises(CatalogueError) as error:
        load(tmp_path, MINE.replace(old, new))
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}: ") and message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("i2q", "prompt_set: unknown prompt set 'i2q'; nearest: i2p"), ("i2p", "'i2p' has no prompts for it")],
)
def test_a_concept_needs_a_set_that_knows_it(tmp_path: Path, name: str, message: str) -> None:
    text = f"concepts: {{x: {{kind: object, phrase: x, views: {{photo: {{judge: a, label: b, prompt_set: {name}}}}}}}}}"
    with pytest.raises(CatalogueError, match=f"concept 'x': views: photo: .*{message}"):
        load(tmp_path, text)
