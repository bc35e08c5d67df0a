"""The packaged numbers of the papers: whether they fit together, what a bad file is told, and rows beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.results.published import (
    BESIDE,
    COLUMNS,
    OR,
    PUBLISHED,
    nothing_beside,
    published_beside,
    read_published,
)
from erasebench.results.rows import TableRow
from erasebench.settings import resolve_attack, resolve_method

SD14 = "CompVis/stable-diffusion-v1-4"
ALL = read_published()


def table(source: str, name: str) -> pd.DataFrame:
    """A table as printed: a row for each row, a column for each column."""
    own = ALL[(ALL["source"] == source) & (ALL["table"] == name)]
    return own.pivot(index="row", columns="column", values="value")


def test_so_many_numbers_of_each_paper() -> None:
    counts = ALL.groupby("source").size().to_dict()
    assert counts == {"adversarial-preservation": 136, "dark-miner": 646, "esd": 65, "i2p": 20, "mace": 543}
    assert ALL["spread"].notna().sum() == 46
    assert list(ALL.columns) == list(COLUMNS)
    assert ALL["value"].notna().all()


def test_every_method_and_attack_can_be_run() -> None:
    methods = {one for cell in ALL["method"] if cell for one in cell.split(OR)}
    attacks = {one for cell in ALL["attack"] if cell for one in cell.split(OR)}
    assert {"sd", "dm2", "mace", "ap-x", "ap-u", "esd-u", "dm2[tau=0.3]", "dm2[anchor='']"} <= methods
    for name in methods:
        resolve_method(name, {})
    for name in attacks:
        resolve_attack(name, {})


def test_dark_miners_mean_deviation_and_interval_are_of_its_three_pools() -> None:
    rows = table("dark-miner", "Table 2")
    pools = rows.loc[["2024", "2020", "2028"]]
    assert rows.loc["Avg."].to_dict() == pytest.approx(pools.mean().to_dict(), abs=0.0101)
    # Of three values, with three in the denominator and not two; the interval has a t of two degrees of freedom.
    assert rows.loc["Std."].to_dict() == pytest.approx(pools.std(ddof=0).to_dict(), abs=0.0101)
    reach = 4.303 * pools.std(ddof=1) / math.sqrt(3)
    for end, sign in (("lower", -1), ("upper", 1)):
        limits = pools.mean() + sign * reach
        assert rows.loc[f"95% CI, {end} limit"].to_dict() == pytest.approx(limits.to_dict(), rel=0.05)


def test_dark_miners_ablations_meet_where_they_have_a_setting_in_common() -> None:
    used = table("dark-miner", "Table 2").loc["2024"]
    assert table("dark-miner", "Table S2").loc["0.2 (used)", ["Ratio", "RAB", "CCE"]].tolist() == [12.07, 26.21, 27.67]
    for name, row in (("Table S3", "used"), ("Table S5", "value")):
        assert table("dark-miner", name).loc[row].to_dict() == {"Ratio": used["Ratio (%)"], "CLIP": used["CLIP"]}
    assert table("dark-miner", "Table 4").loc["c_0 ✓, 0c ✓, -c ✓", "Ratio"] == 20.96
    assert table("dark-miner", "Table S2").loc["0.3", "Ratio"] == 20.96, "both after 20 loops"
    hours = table("dark-miner", "Table S2")
    assert (hours["Times"] / hours["# loops"]).round(2).unique().tolist() == pytest.approx([1.24, 1.23], abs=0.011)


def test_dark_miners_tables_1_and_s1_have_one_unerased_model() -> None:
    first, more = table("dark-miner", "Table 1").loc["SD"], table("dark-miner", "Table S1").loc["SD"]
    for head, other in (("Preserve / C.", "CLIP"), ("Preserve / F.", "FID")):
        assert set(first[first.index.str.endswith(head)]) == {more[more.index.str.endswith(other)].round(1).unique()[0]}


def test_adversarial_preservations_tables_have_the_same_rows() -> None:
    second, eighth = (table("adversarial-preservation", f"Table {k}") for k in (2, 8))
    for here, there in (("ESD", "ESD-u"), ("Ours", "Ours-u")):
        assert second.loc[here, list(eighth.columns)].tolist() == eighth.loc[there].tolist()
    sixth = table("adversarial-preservation", "Table 6")
    assert sixth.loc["K=100, N_iter=2"].equals(sixth.loc["K=100, N_iter=2 (repeated)"].rename("K=100, N_iter=2"))
    assert sixth.loc["K=100, N_iter=2"].tolist() == table("adversarial-preservation", "Table 7").loc["Oxford"].tolist()
    assert (second[[f"NER-{t}" for t in (0.3, 0.5, 0.7, 0.8)]].diff(axis=1).iloc[:, 1:] < 0).all(axis=None)


def test_maces_body_parts_add_up() -> None:
    rows = table("mace", "Table 2")
    parts = rows[[name for name in rows if "Detected" in name]]
    total = next(name for name in parts if name.endswith("Total"))
    assert parts.drop(columns=total).sum(axis=1).to_dict() == parts[total].to_dict() and len(parts) == 10


def test_maces_averages_are_those_of_the_ten_classes() -> None:
    """But for three, whose lines say what the mean would be."""
    classes = table("mace", "Table 1").join(table("mace", "Table 11"))
    odd: dict[tuple[str, str], str] = {}
    for head in ("Acc_e", "Acc_s", "Acc_g", "H_o"):
        own = classes[[name for name in classes if name.endswith(f"/ {head}") and "Average" not in name]].mean(axis=1)
        printed = classes[f"Average across 10 Classes / {head}"].dropna()
        assert len(own) == 8
        odd |= {(row, head): f"{own[row]:.2f}" for row in printed[(printed - own[printed.index]).abs() > 0.0101].index}
    noted = ALL[ALL["note"].str.startswith("the mean of the printed values of the classes is ")]
    keys = zip(noted["row"], noted["column"].str.rpartition(" / ")[2], strict=True)
    assert dict(zip(keys, noted["note"].str.split().str[-1], strict=True)) == odd and len(odd) == 3


def test_maces_tables_have_the_same_unerased_model_and_final_row() -> None:
    second, third = table("mace", "Table 2").loc["SD v1.4"], table("mace", "Table 3").loc["SD v1.4"]
    assert [second["MS-COCO 30K / FID"], second["MS-COCO 30K / CLIP"]] == [third["FID-30K"], third["CLIP-30K"]]
    last = table("mace", "Table 5").loc["Ours: Tune Key & Value, 50 steps"]
    assert table("mace", "Table 4").loc["Ours"].tolist() == last.tolist()
    eighth = table("mace", "Table 8")
    people = {row: 100 if row.endswith("Retention Group") else int(row.split(":")[0]) for row in eighth.index}
    each, total = eighth.columns[eighth.columns.str.contains("Each")][0], "Total # of Generated Images"
    assert {row: eighth.loc[row, each] * count for row, count in people.items()} == eighth[total].to_dict()


def test_esds_averages_are_those_of_its_classes() -> None:
    rows = table("esd", "Table 2")
    assert len(rows) == 11
    assert rows.loc["Average"].to_dict() == pytest.approx(rows.drop("Average").mean().to_dict(), abs=0.051)


def test_i2ps_two_numbers_fall_with_the_strength_of_the_guidance() -> None:
    rows = table("i2p", "README")
    models = ["SD 1.4", *(f"Safe SD 1.4 ({strength})" for strength in ("medium", "strong", "max"))]
    sexual = rows.loc[models, [name for name in rows if "Sexual" in name]]
    assert (sexual.diff().iloc[1:] < 0).all(axis=None)
    for category in ("Sexual", "all"):
        share, worst = (
            f"Category: {category} / {name}"
            for name in ("Inappropriateness probability", "Max. exp. inappropriateness")
        )
        assert (rows[share] < rows[worst])[rows[share].notna()].all()


def copy(folder: Path, edit: Callable[[str], str]) -> Path:
    (folder / "esd.csv").write_text(edit((PUBLISHED / "esd.csv").read_text(encoding="utf-8")), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("spread,", "", "line 1: no column 'spread'; the columns are source, table"),
        ("judge,note", "judge,note,page", "line 1: unknown column 'page'; nearest"),
        ("14.50", "1450 %", "line 3: '1450 %' is no number"),
        ("14.50", "inf", "line 3: 'inf' is no number"),
        ("14.50", "", "line 3: '' is no number"),
        ("14.50,", "14.50,wide", "line 3: 'wide' is no number"),
        (",fid,", ",fidd,", "line 3: unknown metric 'fidd'; nearest: fid"),
        (",sd,", ",sdd,", "line 3: unknown method 'sdd'; nearest: sd"),
        (",esd-u,", ",esd-u | esd-q,", "line 9: unknown method 'esd-q'; nearest: esd-"),
        ("[negative_guidance=3]", "[3]", "line 11: '3' in 'esd-u\\[3\\]' is no option"),
        (",nudity,", ",nudist,", "line 3: unknown concept 'nudist'; nearest: nudity"),
        (",images,", ",pictures,", "line 59: unknown unit 'pictures'"),
        ("lower,sd", "down,sd", "line 3: unknown direction 'down'; nearest"),
        (",resnet50,", ",resnet5,", "line 15: unknown judge 'resnet5'; nearest: resnet50"),
        (",,lower,sd,nudity,,fid", ",%,lower,sd,nudity,,fid", "line 3: the metric fid has the unit '', not '%'"),
        (",,lower,sd,nudity,,fid", ",,higher,sd,nudity,,fid", "has the direction 'lower', not 'higher'"),
        ("esd,Table 1,SD,FID", "uce,Table 1,SD,FID", "line 3: the source is 'uce', which is not the file's name"),
        ("ESD-u-3,FID-30k", "ESD-u,FID-30k", "line 11: Table 1, ESD-u, FID-30k is also on line 9"),
        (",,lower,sd,nudity,,fid", ",lower,sd,nudity,,fid", "line 3: 14 cells, the header has 15"),
    ],
)
def test_a_bad_file_is_told_where_and_what(tmp_path: Path, old: str, new: str, message: str) -> None:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    with pytest.raises(EraseBenchError, match=message) as caught:
        read_published(copy(tmp_path, edit))
    assert str(caught.value).startswith(str(tmp_path / "esd.csv"))


def test_a_folder_of_ones_own_is_read_alone(tmp_path: Path) -> None:
    own = read_published(copy(tmp_path, lambda text: text))
    pd.testing.assert_frame_equal(own, ALL[ALL["source"] == "esd"].reset_index(drop=True))
    with pytest.raises(EraseBenchError, match="no CSV file"):
        read_published(tmp_path / "none")
    (tmp_path / "esd.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(EraseBenchError, match="cannot read"):
        read_published(tmp_path)


RATIO = TableRow(
    "dm2", "nudity", "ok", metrics={"ratio": Estimate(11.0, 9.0, 13.0, 400)}, judge="nudenet 1 c15d8273: nudity >= 0.5"
)


def beside(*rows: TableRow, model: str = SD14, stand_ins: dict[str, str] | None = None) -> pd.DataFrame:
    found = published_beside(rows, ALL, model, stand_ins)
    assert {name: str(kind) for name, kind in found.dtypes.items()} == {
        name: str(kind) for name, kind in pd.DataFrame(columns=list(BESIDE)).astype(BESIDE).dtypes.items()
    }
    return found


def test_every_number_that_a_row_may_be_compared_with_stands_beside_it() -> None:
    found = beside(RATIO)
    assert found["table"].tolist() == [
        "Table 1",
        "Table 3",
        "Table 5",
        "Table 5",
        *(f"Table S{k}" for k in (2, 3, 4, 5)),
    ]
    assert found["reported"].tolist() == [12.1, 12.1, 10.9, 8.2, 12.07, 12.07, 12.07, 12.07]
    assert set(found["measured"]) == {11.0} and set(found["n"]) == {400} and set(found["metric"]) == {"ratio"}
    assert found["difference"].tolist() == pytest.approx([-1.1, -1.1, 0.1, 2.8, *[-1.07] * 4])
    assert found["agrees"].tolist() == [True, True, True, False, True, True, True, True]
    assert found["differs"].tolist() == [
        *("", ""),
        f"model: {SD14}, reported stable-diffusion-v1-5/stable-diffusion-v1-5",
        f"model: {SD14}, reported SD v2.0",
        *[""] * 4,
    ]


def test_another_model_and_judge_are_said() -> None:
    found = beside(replace(RATIO, judge="picturebook-detector 3 ab: nude >= 0.5"), model="picturebook")
    assert found["differs"].iloc[0] == (
        f"model: picturebook, reported {SD14}; judge: picturebook-detector 3 ab: nude >= 0.5, reported nudenet"
    )
    numbers = {**RATIO.metrics, "acc_e_top1": Estimate(80, 70, 90, 400)}
    church = replace(RATIO, method="sd", concept="church", metrics=numbers)
    assert set(beside(church)["differs"]) == {
        f"judge: {RATIO.judge}, reported none of ours or not stated",
        f"judge: {RATIO.judge}, reported resnet50",
    }


def test_the_judge_of_a_concept_is_not_taken_for_that_of_unrelated_images() -> None:
    numbers = {"clip": Estimate(31, 30, 32, 9), "fid": Estimate(14, 13, 15, 9)}
    row = TableRow("sd", "nudity", "ok", metrics=numbers, judge="clip 1: nudity >= 0.5")
    found = beside(row).query("source == 'mace'").set_index("metric")
    assert found["differs"].to_dict() == {
        "fid": "judge: not known, reported inception",
        "clip": "judge: not known, reported clip",
    }
    noted = beside(replace(row, notes={"fid": "Inception features, clean-fid"})).query("source == 'mace'")
    assert noted.set_index("metric")["differs"]["fid"] == ""


def test_where_the_paper_does_not_say_which_either_may_be_meant() -> None:
    esd = [replace(RATIO, method=name) for name in ("esd-u", "esd-x")]
    found = beside(*esd).query("source == 'dark-miner'")
    assert found["method"].tolist() == ["esd-u", "esd-x"] and found["reported"].tolist() == [45.3, 45.3]


def test_attacks_stand_by_their_names() -> None:
    numbers = {"asr": Estimate(25.0, 20.0, 30.0, 95)}
    found = beside(replace(RATIO, attack="rab", metrics=numbers), replace(RATIO, attack="p4d-k", metrics=numbers))
    first = found[found["table"] == "Table 1"]
    assert first[["attack", "reported", "agrees"]].values.tolist() == [["p4d-k", 14.0, False], ["rab", 26.2, True]]


def test_what_was_not_measured_has_no_line_and_what_has_no_interval_no_verdict() -> None:
    failed = replace(RATIO, status="failed", reason="why")
    undefined = replace(RATIO, metrics={"ratio": UNDEFINED})
    elsewhere = replace(RATIO, concept="watercolor")
    assert beside().empty and beside(failed).empty and beside(undefined).empty and beside(elsewhere).empty
    bare = replace(RATIO, metrics={"ratio": Estimate(12.1, math.nan, math.nan, 1)})
    assert beside(bare)["agrees"].isna().all() and beside(bare)["difference"].iloc[0] == 0


def test_a_concept_may_stand_in_for_the_papers() -> None:
    found = beside(replace(RATIO, concept="church"), stand_ins={"nudity": "church", "violence": "church"})
    first = found.query("source == 'dark-miner' and table == 'Table 1'")
    assert first[["concept", "stand_in", "reported"]].values.tolist() == [
        ["nudity", "church", 12.1],
        ["violence", "church", 19.1],
        ["church", "", 26.2],
    ]
    assert first["differs"].iloc[0] == "concept: church, reported nudity"


def test_erasures_with_several_seeds_stand_beside_the_same_number() -> None:
    seeds = [replace(RATIO, method=f"dm2[tau=0.3{more}]") for more in ("", ";seed=1", ";seed=2")]
    found = beside(*seeds).query("table == 'Table S2'")
    assert found["method"].tolist() == [row.method for row in seeds] and set(found["reported"]) == {20.96}


def test_a_number_of_no_one_concept_is_of_all_that_was_erased() -> None:
    rows = [
        replace(RATIO, method="uce", concept=name, metrics={"esr_1": Estimate(value, value - 1, value + 1, 9)})
        for name, value in (("imagenette-v1", 90.0), ("imagenette-v2", 80.0))
    ]
    own = ALL[(ALL["source"] == "adversarial-preservation") & (ALL["table"] == "Table 1")]
    assert published_beside(rows, own, SD14).empty
    both = published_beside(rows, own, SD14, of_all=True)
    assert both[["reported", "measured", "n", "stand_in"]].values.tolist() == [
        [100.0, 85.0, 18, "mean of imagenette-v1, imagenette-v2"]
    ]
    assert both["agrees"].isna().all() and both["low"].isna().all()
    one = published_beside(rows[:1], own, SD14, of_all=True)
    assert one[["measured", "low", "stand_in"]].values.tolist() == [[90.0, 89.0, "imagenette-v1"]]
    assert one["differs"].iloc[0].startswith("concept: imagenette-v1, reported of all; ")


def test_why_nothing_stands_beside_a_number() -> None:
    own = ALL[(ALL["source"] == "dark-miner") & ALL["table"].isin(["Table 1", "Table S3"])]
    rows = [RATIO, replace(RATIO, method="sd", status="failed", reason="why")]
    counts = nothing_beside(rows, own, {"violence": "tench"})
    assert counts["stand-in not run"] == {"tench": 2 * 4}
    others = counts["of a concept that was neither run nor stood in for"]
    assert others == dict.fromkeys(("church", "french-horn", "van-gogh", "crayon"), 2 * 4)
    assert counts["attack not run"]["rab"] == 2 * 6 and counts["method not run"]["esd-u | esd-x"] == 48
    assert counts["not measured"] == {"ratio": 1, "score": 2, "clip": 3, "fid": 2}
    assert "undefined in the run" not in counts
    undefined = replace(RATIO, metrics={**RATIO.metrics, "score": UNDEFINED})
    assert nothing_beside([undefined], own, {})["undefined in the run"] == {"score": 1}
    beside = published_beside(rows, own, SD14, {"violence": "tench"})
    assert sum(sum(what.values()) for what in counts.values()) + len(beside) == len(own)
