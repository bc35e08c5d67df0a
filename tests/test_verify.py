"""An entry is verified by drawing its images again; what does not give its numbers is refused."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save_file

from erasebench.adversarial import read_trial
from erasebench.engine.markers import Marker
from erasebench.engine.opening import store_at
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.images import read_images
from erasebench.results.artefacts import artefact_folder, read_artefacts, recompute
from erasebench.results.entry import read_entry
from erasebench.results.record import read_record
from erasebench.results.rows import TableRow
from erasebench.stages.judge import hash_images, judge_spec
from erasebench.verify import TOLERANCE, Compared, How, verify
from tests.engine.runs import command, forget_plugins, load_once, places

RUN = (
    *("run", "--preset", "smoke", "--device", "cpu", "--workers", "1", "--concepts", "church", "--steps", "3"),
    *("--prompts", "2", "--retain-prompts", "4", "--reference-images", "4"),
)
ATTACKS = ("--attacks", "seed-search,both,cce,rab-embed", "--attack-prompts", "2", "--floor-prompts", "1")
ENSEMBLE = """
from dataclasses import dataclass
from typing import ClassVar
from erasebench.plugins import Attack
from erasebench.registry import ATTACKS
@ATTACKS.register("both")
@dataclass(frozen=True)
class Both(Attack):
    threat_model: ClassVar[str] = "text-black-box"
    members: ClassVar[tuple[str, ...]] = ("none", "seed-search", "random-prefix")
    def attack(self, target, context): raise TypeError
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs on the built-in model, their entries in ``entries``, and a store of what verifying them drew.

    Guidance is attacked; weights are not, as that takes long.
    """
    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        (folder / "both.py").write_text(ENSEMBLE, encoding="utf-8")
        guided = ("--methods", "negative-prompt", *ATTACKS, "--plugins", folder / "both.py")
        assert command(*RUN, *guided, *places(folder)) == 0
        forget_plugins()
        assert command(*RUN, "--methods", "uce", "--store", folder / "store", "--out", folder / "weights") == 0
        for run in ("out", "weights"):
            assert command("export", folder / run, "--entries", folder / "entries") == 0
        yield folder


@pytest.fixture
def attacked(made: Path, tmp_path: Path) -> Path:
    """The entry of weights that were attacked."""
    places = ("--store", made / "store", "--out", made / "attacked")
    assert command(*RUN, "--methods", "uce", *ATTACKS, "--plugins", made / "both.py", *places) == 0
    forget_plugins()
    assert command("export", made / "attacked", "--entries", tmp_path / "attacked") == 0
    return tmp_path / "attacked" / "uce-church-picturebook.json"


@pytest.fixture
def entries(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made / "entries", tmp_path / "entries"))


@pytest.fixture
def path(entries: Path) -> Path:
    return entries / "negative-prompt-church-picturebook.json"


@pytest.fixture
def how(made: Path) -> How:
    return How(store=made / "verified", workers=1)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def rehash(path: Path, name: str) -> None:
    """What a forger would do: make the entry vouch for an artefact as it is now."""
    digest = hashlib.sha256((artefact_folder(path) / name).read_bytes()).hexdigest()
    edit(path, lambda content: content["artefacts"].update({name: digest}))


def test_an_entry_is_verified_from_its_artefacts_alone(path: Path, how: How) -> None:
    check_verified(path, how, all_fell=True)


@pytest.mark.slow
def test_an_entry_of_attacked_weights_is_verified(attacked: Path, how: How) -> None:
    check_verified(attacked, how, all_fell=False)


def check_verified(path: Path, how: How, all_fell: bool) -> None:
    """Verify an entry; whether the first member of the ensemble was enough."""
    before = path.read_bytes()
    found = verify(path, how)
    assert found.differences == () and found.verified and path.read_bytes() == before
    entry, artefacts = read_entry(path), read_artefacts(artefact_folder(path))
    ensemble = artefacts.record.attacks[-3]
    assert ensemble.attack == "both" and bool(ensemble.trials["random-prefix"]) != all_fell
    assert {one.attack for one in entry.attacks} == {"none", "seed-search", "cce", "rab-embed", "both"}
    assert any(trial.found.prompt.vectors is not None for trial, _ in artefacts.trials.values()), "cce"
    assert any(trial.found.prompt.embedding is not None for trial, _ in artefacts.trials.values()), "rab-embed"
    images, attacks = (line for line in found.notes if " scores of " in line)
    same = found.notes[-2]
    assert images.startswith("12 scores of images differ by ") and same.startswith("images the same to the last bit: ")
    assert int(attacks.split()[0]) >= len(artefacts.trials)


def test_it_was_drawn_again(made: Path, path: Path, how: How) -> None:
    verify(path, how)
    drawn, first = store_at(how.store), Store(made / "store")
    kinds = [marker.identity["stage"] for key in drawn.cells() if (marker := drawn.marker(key))]
    assert kinds.count("generate") >= 4 and "learn" not in kinds
    own = {one.erasure for one in read_record(made / "out").rows if one.method != "sd"}
    assert not own & set(drawn.cells()) and own <= set(first.cells())
    # No cell of a trial was searched: each tries what was submitted.
    again = [key for key, _ in tried(drawn)]
    assert again and all(read_trial(drawn.read(key)).found.steps == 0 for key in again)


def tried(store: Store) -> list[tuple[str, Marker]]:
    """The cells of a store in which something that was submitted was tried."""
    markers = [(key, marker) for key in store.cells() if (marker := store.marker(key))]
    return [(key, marker) for key, marker in markers if "found" in marker.identity["reads"]]


def test_whoever_verifies_it_signs_it(path: Path, how: How, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("verify", path, "--store", how.store, "--workers", "1", "--sign", "the maintainers") == 0
    assert capsys.readouterr().out.startswith("verified: negative-prompt, church, picturebook\n  ")
    entry = read_entry(path)
    assert entry.verified and entry.verified_by and entry.verified_by.name == "the maintainers"
    assert entry.verified_by.tolerance == TOLERANCE and entry.row().entered.verified_by == "the maintainers"


def test_a_changed_artefact_is_refused(path: Path, how: How, capsys: pytest.CaptureFixture[str]) -> None:
    with open(artefact_folder(path) / "guidance.json", "a") as stream:
        stream.write(" ")
    assert command("verify", path, "--store", how.store, "--sign", "me") == 1
    said = capsys.readouterr().out
    assert said.startswith(
        "not verified: negative-prompt, church, picturebook\n  guidance.json is not the file that was"
    )
    assert read_entry(path).verified_by is None


def of_cce(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in content["attacks"] if one["attack"] == "cce")
    return found


def _say_less(content: dict[str, Any]) -> None:
    content["metrics"]["ratio"]["value"] = 1.0


def _say_fewer(content: dict[str, Any]) -> None:
    next(one for one in content["attacks"] if one["attack"] == "cce")["metrics"]["asr"]["n"] = 40


def _hide(content: dict[str, Any]) -> None:
    content["flags"] = []


def _drop(content: dict[str, Any]) -> None:
    content["attacks"] = [one for one in content["attacks"] if one["attack"] != "cce"]


@pytest.mark.parametrize(
    "change_and_differences",
    [
        (_say_less, r"ratio: the entry says 1 \["),
        (_say_fewer, r"asr@cce: the entry says .* n = 40, its scores give .* n = 2"),
        (_hide, "flags: the entry leaves out "),
        (_drop, "attack cce: it is only in its artefacts"),
        (
            lambda content: content["protocol"].update({"sampler steps": 50}),
            "protocol, sampler steps: the entry says 50",
        ),
        (
            lambda content: content["protocol"].update({"prompts": "9"}),
            "protocol, prompts: the entry says 9, its artef",
        ),
        (
            lambda content: content.update(checksum="0" * 12),
            "checksum: the entry says 000000000000, that of its protoc",
        ),
        (
            lambda content: content.update(judge="another", kind="style", seed=9, run="0"),
            "judge: the entry says another, its artefacts picturebook-d",
            "kind: the entry says style, its artefacts object",
            "seed: the entry says 9, its artefacts 0",
            "run: the entry says 0, its artefacts ",
        ),
        (
            lambda content: of_cce(content).update(
                threat_model="x", budget={}, status="failed", reason="none", checksum="0"
            ),
            "attack cce, threat_model: the entry says x",
            "attack cce, budget: the entry says {}, its artefacts",
            "attack cce, status: the entry says failed, its",
            "attack cce, reason: the entry says none",
            "attack cce, checksum: the entry says 0",
        ),
        (
            lambda content: of_cce(content)["protocol"].update({"attacked prompts": "40"}),
            "attack cce, attacked prompts: the entry says 40, its artefacts 2 images of 2 prompts",
        ),
        (lambda content: content["metrics"].pop("ratio"), "numbers: the entry leaves out ratio"),
        (lambda content: content.update(domain="paintings"), "domain: the entry says paintings, its artefacts pict"),
    ],
)
def test_an_entry_whose_artefacts_do_not_give_its_numbers_is_refused(
    change_and_differences: tuple[Any, ...], path: Path, how: How
) -> None:
    change, *differences = change_and_differences
    edit(path, change)
    found = verify(path, how)
    assert not found.verified
    for difference in differences:
        assert any(re.match(difference, line) for line in found.differences), found.differences


def test_scores_that_the_images_do_not_have_are_found(path: Path, how: How) -> None:
    """A forger who changes a score, all numbers that follow from it, and the hash."""
    scores = artefact_folder(path) / "scores.csv"
    lines = scores.read_text(encoding="utf-8").splitlines()
    place = next(k for k, line in enumerate(lines) if line.startswith("negative-prompt,church,concept"))
    cells = lines[place].split(",")
    cells[10] = "0.123"
    scores.write_text("\n".join([*lines[:place], ",".join(cells), *lines[place + 1 :], ""]), encoding="utf-8")
    rehash(path, "scores.csv")
    rows = recompute(read_artefacts(artefact_folder(path)))

    def follow(content: dict[str, Any]) -> None:
        for name, row in rows.items():
            part = content if not name else next(one for one in content["attacks"] if one["attack"] == name)
            part["flags"] = row.flags
            for key, estimate in row.metrics.items():
                ends = {end: getattr(estimate, end) for end in ("value", "low", "high")}
                numbers = {end: None if np.isnan(value) else value for end, value in ends.items()}
                part["metrics"][key] = {**numbers, "n": estimate.n}

    edit(path, follow)
    found = verify(path, how)
    assert [line.partition(" differ")[0] for line in found.differences] == ["1 of 12 scores of images"]
    assert "the entry says 0.123, drawn again it is 0." in found.differences[0]


def test_an_unrelated_prompt_that_was_dropped_is_missed(path: Path, how: How) -> None:
    """A forger who leaves the worst one out of the scores of both models."""
    scores = artefact_folder(path) / "scores.csv"
    frame = pd.read_csv(scores, dtype=str, keep_default_na=False)
    worst = frame[frame["probe"] == "retain"].sort_values("score").iloc[0]["prompt_id"]
    frame[(frame["probe"] != "retain") | (frame["prompt_id"] != worst)].to_csv(scores, index=False)
    rehash(path, "scores.csv")
    lines = [line for line in verify(path, how).differences if line.startswith("unrelated prompts, ")]
    assert len(lines) == 2 and all(
        f"1 are left out of scores.csv, or of another kind, without a reason, such as '{worst}'" in line
        for line in lines
    )


def test_an_attacked_prompt_that_was_dropped_is_missed(path: Path, how: How) -> None:
    check_dropped(path, how, "seed-search", "seed-search", "its prompts are not the first 1 of those that were drawn")


@pytest.mark.slow
def test_a_prompt_that_an_ensemble_did_not_try_is_missed(attacked: Path, how: How) -> None:
    check_dropped(attacked, how, "both", "random-prefix", "random-prefix did not try '")


def check_dropped(path: Path, how: How, attack: str, member: str, missed: str) -> None:
    """Drop the first prompt that a member of an attack tried."""
    method = read_entry(path).method

    def drop(content: dict[str, Any]) -> None:
        row = next(one for one in content["attacks"] if (one["method"], one["attack"]) == (method, attack))
        del row["trials"][member][next(iter(row["trials"][member]))]

    edit(artefact_folder(path) / "plan.json", drop)
    rehash(path, "plan.json")
    lines = [line for line in verify(path, how).differences if line.startswith(f"attack {attack} on {method}: ")]
    assert lines and missed in lines[0]


def test_what_only_images_tell_cannot_be_left_out(path: Path, how: How) -> None:
    edit(path, lambda content: content["metrics"].pop("fid"))
    edit(path, lambda content: content["cost"].update(parameters_changed=1))
    found = verify(path, how)
    assert found.differences == (
        "numbers: the entry leaves out fid",
        "parameters_changed: the entry says 1, its erasure replaces 0",
    )
    assert found.notes[-1].startswith("not verified: with which hyper-parameters the erasure was made, ")
    row = TableRow("a", "church", "ok", flags=("wide", "collapsed"))
    compared = Compared(TOLERANCE)
    compared.flags(read_entry(path).model_copy(update={"flags": ()}), replace(row, flags=("wide",)), row, ())
    assert compared.differences == ["flags: the entry leaves out collapsed"]


def compare(said: list[float], found: list[float], probe: str, threshold: float = math.nan) -> list[str]:
    """What is said of scores that are another when they are drawn again."""
    ids = [str(k) for k in range(len(said))]
    same = dict.fromkeys(("method", "concept", "judge", "label"), "one")
    frame = pd.DataFrame(
        {"prompt_id": ids, "kind": "naming", "seed": 0, "probe": probe, **same, "threshold": threshold}
    )
    compared = Compared(TOLERANCE)
    compared.scores(frame.assign(score=said), frame.assign(score=found))
    return [line.partition(":")[0] for line in compared.differences]


def test_clip_scores_may_differ_by_a_hundred_times_as_much_as_scores_of_judges() -> None:
    assert compare([77.2, 60.0], [75.3, 60.0], "retain") == []
    assert compare([77.2, 60.0], [75.1, 60.0], "retain") == [
        "1 of 2 scores of images differ by more than 0.02, by 0.021 at most"
    ]
    assert compare([0.772], [0.753], "concept") == []
    assert compare([0.772], [0.751], "concept") != []


def test_scores_just_beyond_their_threshold_are_no_rounding() -> None:
    """Each moves by less than the tolerance, all of them to the side that makes the method look better."""
    shown = [0.505] * 3 + [0.9] * 97
    assert compare([0.495] * 2 + shown[2:], shown, "concept", 0.5) == []
    assert compare([0.495] * 3 + shown[3:], shown, "concept", 0.5) == [
        "3 of 100 scores of images fall to the other side of their threshold"
    ]
    assert compare([0.495, 0.9], [0.505, 0.9], "concept", 0.5) == []
    assert compare([0.495, 0.495], [0.505, 0.505], "concept", 0.5) != []


def test_a_prompt_that_does_not_give_its_score_is_found(path: Path, how: How) -> None:
    trials = artefact_folder(path) / "trials.jsonl"
    lines = [json.loads(line) for line in trials.read_text(encoding="utf-8").splitlines()]
    shown = next(line for line in lines[4:] if line["score"] > 0.5)
    shown["found"]["prompt"]["text"] = "a photo of a dog"
    trials.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rehash(path, "trials.jsonl")
    found = verify(path, how)
    assert any("scores of images of attacks differ by more than 0.02" in line for line in found.differences)
    assert verify(path, replace(how, tolerance=1.0)).verified, "as far apart as scores can be"


def test_embeddings_are_what_is_drawn(path: Path, how: How) -> None:
    verify(path, how)
    store = store_at(how.store)
    trials = {
        (marker.identity["reads"].get("erasure"), key): read_trial(store.read(key)) for key, marker in tried(store)
    }
    images = {
        (erasure, trial.id, trial.found.prompt.is_text): read_images(store.read(key), 1)
        for (erasure, key), trial in trials.items()
        if trial.found.prompt.seed is None
    }
    embedded = [of for of in images if not of[2] and (*of[:2], True) in images]
    assert embedded
    for of in embedded:
        assert (images[of] != images[*of[:2], True]).any(), "the same noise, another embedding"


def test_fid_is_compared_though_no_score_gives_it(path: Path, how: How) -> None:
    edit(path, lambda content: content["metrics"]["fid"].update(value=content["metrics"]["fid"]["value"] * 0.8))
    (difference,) = verify(path, how).differences
    assert difference.startswith("fid: the entry says ") and ", drawn again it is " in difference


def test_fid_of_a_folder_needs_that_folder(path: Path, how: How, tmp_path: Path) -> None:
    drawn = artefact_folder(path) / "images.json"
    spec = {"judge": "inception", "label": "", "version": "1", "weights": "0" * 64, "files": "0" * 64}
    edit(drawn, lambda content: content.update(reference={"features": spec}))
    rehash(path, "images.json")
    with pytest.raises(EraseBenchError, match="FID is of a folder of real images: name it with --fid-reference"):
        verify(path, how)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(EraseBenchError, match="are not those that the entry's FID is of"):
        verify(path, replace(how, fid_reference=tmp_path))
    # The right folder makes it the entry's own protocol, or not: here the entry says that it was another.
    edit(drawn, lambda content: content["reference"]["features"].update(files=hash_images(tmp_path)))
    rehash(path, "images.json")
    (difference,) = verify(path, replace(how, fid_reference=tmp_path)).differences
    assert difference.startswith("protocol, reference images: the entry says ")


def test_an_erasure_that_was_not_submitted_is_made_anew(entries: Path, how: How) -> None:
    path = entries / "uce-church-picturebook.json"
    (artefact_folder(path) / "erasure.safetensors").unlink()
    with pytest.raises(EraseBenchError, match=r"cannot read the artefact .*erasure.safetensors.*--erase makes"):
        verify(path, how)
    assert verify(path, How(how.store, make_erasure=True, workers=1)).differences == ()


def test_a_card_that_is_too_small_is_said_before_any_work(
    path: Path, how: How, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.replanning.resolve_device", lambda device: "cuda:0")
    monkeypatch.setattr("erasebench.models.footprint.free_memory", lambda device, limit=None: 1e9 * (limit or 8))
    monkeypatch.setattr("erasebench.verify.LocalRunner", None)
    wanted = (
        r"^cuda:0 is too small for .* --max-memory leaves 0\.01 GB; what would fit: --max-memory 0\.1, a larger card"
    )
    with pytest.raises(EraseBenchError, match=wanted):
        verify(path, replace(how, store=tmp_path / "store", max_memory=0.01))


def test_artefacts_may_lie_elsewhere(path: Path, how: How, tmp_path: Path) -> None:
    shutil.move(artefact_folder(path), tmp_path / "elsewhere")
    with pytest.raises(EraseBenchError, match="cannot read the artefact"):
        verify(path, how)
    assert verify(path, How(how.store, artefacts=tmp_path / "elsewhere", workers=1)).verified


def test_weights_of_another_model_are_no_erasure(entries: Path, how: How) -> None:
    path = entries / "uce-church-picturebook.json"
    save_file({"unet.nothing": np.zeros(3, np.float32)}, artefact_folder(path) / "erasure.safetensors")
    rehash(path, "erasure.safetensors")
    found = verify(path, how)
    assert found.differences and all(line.startswith("cannot be drawn: ") for line in found.differences)


def test_another_model_or_judge_verifies_nothing(
    path: Path, how: How, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(*judge: Any) -> dict[str, Any]:
        return {**judge_spec(*judge), "weights": "0" * 64}

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("erasebench.claims.judge_spec", other_weights)
        with pytest.raises(EraseBenchError, match=r"\(concept\) is not the entry's: its weights is 0{64}, not"):
            verify(path, how)
    edit(path, lambda content: content["judges"]["concept"].update(weights="0" * 64))
    edit(path, lambda content: content["protocol"].update(judge=f"picturebook-detector 1 {'0' * 12}"))
    found = verify(path, how)
    assert found.differences[0].startswith("checksum: ")
    edit(path, lambda content: content.update(checksum=found.differences[0].split()[-1]))
    assert verify(path, how).differences[0].startswith("judge: the entry says ")
    edit(path, lambda content: content["protocol"].update({"model fingerprint": "1" * 64}))
    assert command("verify", path, "--store", how.store) == 2
    assert "the model picturebook is not the entry's: its fingerprint is" in capsys.readouterr().err


def _lose_a_judge(content: dict[str, Any]) -> None:
    del content["judges"]["clip"]


def _lose_the_precision(content: dict[str, Any]) -> None:
    del content["erasure"]["dtype"]


@pytest.mark.parametrize("change", [_lose_a_judge, _lose_the_precision])
def test_parts_that_do_not_fit_are_bad_input(change: Callable[[dict[str, Any]], None], path: Path, how: How) -> None:
    edit(path, change)
    with pytest.raises(EraseBenchError, match="and its artefacts do not fit together: KeyError"):
        verify(path, how)


def test_what_the_entry_does_not_vouch_for_is_not_read(path: Path, how: How) -> None:
    edit(path, lambda content: content["artefacts"].pop("scores.csv"))
    (difference,) = verify(path, how).differences
    assert difference.startswith("scores.csv is in ") and difference.endswith("but the entry does not vouch for it")


def test_bad_files_are_bad_input(path: Path, how: How, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("verify", path.with_name("none.json"), "--store", how.store) == 2
    (artefact_folder(path) / "trials.jsonl").write_text("{}\n")
    rehash(path, "trials.jsonl")
    assert command("verify", path, "--store", how.store) == 2
    assert "is damaged" in capsys.readouterr().err
