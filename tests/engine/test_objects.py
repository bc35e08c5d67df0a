"""Stores in a bucket, on a server of S3 that runs here; what takes threads alone, in memory."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import s3fs

from erasebench.engine import leases as leases_module
from erasebench.engine import objects
from erasebench.engine.bucket import Bucket
from erasebench.engine.doctor import examine
from erasebench.engine.leases import Claim
from erasebench.engine.markers import Marker
from erasebench.engine.object_leases import ObjectLeases
from erasebench.engine.objects import MIRRORS, ObjectStore
from erasebench.engine.opening import open_store, store_at, store_to_read
from erasebench.engine.runner import Corrupt, Event, Finished, Found, Outcome
from erasebench.engine.store import Store
from erasebench.engine.upkeep import collect_garbage, copy
from erasebench.engine.workers import LocalRunner
from erasebench.errors import EraseBenchError
from tests.engine.fake import FakeWorkshop, cell, wait_for
from tests.engine.runs import TINY, command, copy_of, done, fast_stages, run_tiny, table
from tests.forks import end, fork, in_a_child
from tests.marks import first_quick, some_quick
from tests.servers import BUCKET, S3Server

URL = f"s3://{BUCKET}/a"
ONE = cell("one")
SMALL = (*TINY, "--methods", "uce")
CELLS = 12
CHAIN = [ONE, cell("two", one=ONE), cell("three")]
TEXTS = ["one 0 []\n", "two 0 ['one 0 []\\n']\n", "three 0 []\n"]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, S3Server().running() as server:
        settings = {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "key", "DEFAULT_REGION": "us-east-1"}
        for name, value in {**settings, "ENDPOINT_URL": server.url, "MAX_ATTEMPTS": "1"}.items():
            patch.setenv(f"AWS_{name}", value)
        server.client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one method, with fast stages."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(folder, *SMALL) == 0
    return folder


@pytest.fixture
def bucket(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An empty bucket, and no mirrors."""
    server.clear()
    on_machine("one", tmp_path, monkeypatch)
    return server


def on_machine(name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Be a machine with mirrors of its own, in which commands have to look into the bucket for what others did."""
    patch.setenv(MIRRORS, str(folder / name))


def compute(folder: Path, subscriber: Callable[[Event], None] = lambda event: None) -> Outcome:
    """Compute the cells in the bucket, in this process."""
    (folder / "signs").mkdir(exist_ok=True)
    store = store_at(URL)
    with store.at_work():
        return LocalRunner(FakeWorkshop(store, folder / "signs")).run(CHAIN, store, [subscriber])


@pytest.fixture(scope="module")
def computed_once(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """What computing the cells leaves on a machine and in the bucket."""
    folder = tmp_path_factory.mktemp("computed")
    server.clear()
    with pytest.MonkeyPatch.context() as patch:
        on_machine("one", folder, patch)
        compute(folder)
    return folder, {name: server.read(name) for name in server.objects()}


@pytest.fixture
def computed(computed_once: tuple[Path, dict[str, bytes]], bucket: S3Server, tmp_path: Path) -> None:
    """The cells are computed, on this machine and in the bucket."""
    folder, held = computed_once
    copy_of(folder, tmp_path)
    for name, data in held.items():
        bucket.write(name, data)


def texts() -> list[str]:
    """What the cells hold, brought from the bucket."""
    store = open_store(URL, make=False)
    return [(store.read(each.key) / "payload").read_text() for each in CHAIN]


def payload_of(bucket: S3Server, key: str) -> str:
    """The name of the object that a cell's one file is."""
    (name,) = bucket.objects(f"a/payloads/{key}/")
    return name


# A run


@pytest.mark.slow
@pytest.mark.usefixtures("fast")
def test_a_table_is_the_very_one_of_a_store_in_a_folder_wherever_it_is_made(
    bucket: S3Server,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ("run", *SMALL, "--store", URL, "--out")
    assert command("plan", *SMALL, "--store", URL) == 0
    assert not bucket.objects(), "to plan is to write nothing"
    assert command(*run, tmp_path / "first" / "out") == 0
    assert len(done(tmp_path / "first", "ok")) == CELLS and table(tmp_path / "first") == table(small_run)
    assert sorted({name.split("/")[1] for name in bucket.objects()}) == ["markers", "payloads", "store.json"]
    on_machine("two", tmp_path, monkeypatch)
    capsys.readouterr()
    assert command("plan", *SMALL, "--store", URL) == 0
    assert f"{CELLS} cells: {CELLS} already there" in capsys.readouterr().out
    assert command(*run, tmp_path / "second" / "out") == 0
    assert not done(tmp_path / "second") and table(tmp_path / "second") == table(small_run)
    bucket.requests.clear()
    assert command("compare", tmp_path / "first" / "out", tmp_path / "second" / "out") == 0
    assert not bucket.requests, "who compares numbers needs no bucket"
    on_machine("three", tmp_path, monkeypatch)
    capsys.readouterr()
    assert command("report", tmp_path / "second" / "out") == 0
    assert any((tmp_path / "second" / "out" / "report-images").iterdir()), "a report brings what it shows"


def test_a_store_that_is_rarely_read_is_opened_when_it_is(computed: None, bucket: S3Server, tmp_path: Path) -> None:
    bucket.requests.clear()
    store = store_to_read(URL)
    assert not bucket.requests
    assert (store.read(ONE.key) / "payload").read_text() == TEXTS[0]
    with pytest.raises(EraseBenchError, match=f"cell {'0' * 12} is missing"):
        store.read("0" * 64)


def test_workers_read_the_mirror_and_never_the_bucket(bucket: S3Server, tmp_path: Path) -> None:
    store = store_at(URL)
    there = pickle.loads(pickle.dumps(store))
    assert type(there) is Store and there.root == store.root


Moment = tuple[str, str, bool]
"""A kind of request, a part of its object's name, and whether this process is killed after the first such request."""


def die_at(moment: Moment) -> None:
    """Have this process killed at a moment."""
    kind, part, after = moment
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        now = method == kind and part in options.get("Key", "")
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await call(self, method, *args, **options)
        finally:
            if now:
                os.kill(os.getpid(), signal.SIGKILL)

    s3fs.S3FileSystem._call_s3 = counted


def check_killed(bucket: S3Server, folder: Path, patch: pytest.MonkeyPatch, moment: Moment) -> bool:
    """Kill a run at a moment, and have another machine go on; False if the run came to its end."""
    bucket.clear()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    on_machine("killed", folder, patch)

    def run_and_die() -> None:
        die_at(moment)
        compute(folder)

    killed = in_a_child(run_and_die) == -signal.SIGKILL
    finished = {name.split("/")[2].partition(".")[0] for name in bucket.objects("a/markers/")}
    on_machine("other", folder, patch)
    events: list[Event] = []
    assert not compute(folder, events.append).failed
    assert not any(isinstance(event, Corrupt) for event in events), "something passed for finished and was not"
    again = {event.cell.key for event in events if isinstance(event, Finished)}
    assert not again & finished and again | finished >= {each.key for each in CHAIN}, "finished work was done again"
    assert texts() == TEXTS and examine_all() == []
    return killed


def examine_all() -> list[str]:
    return [problem for problem in examine(URL) if "was being written" not in problem]


@pytest.mark.parametrize(
    ("kind", "part"),
    some_quick(
        [("put_object", "payloads"), ("put_object", "markers")],
        [("put_object", f"leases/{ONE.key}"), ("delete_object", "leases")],
    ),
    ids=["payload", "marker", "lease", "lease-back"],
)
def test_a_run_that_is_killed_at_any_request_is_gone_on_with_on_another_machine(
    kind: str, part: str, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_killed(bucket, tmp_path / "run", monkeypatch, (kind, part, True))


def test_the_procedure_finds_markers_that_are_written_before_payloads(
    bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = ObjectStore._upload

    def marker_first(self: ObjectStore, key: str, folder: Path, marker: Marker) -> None:
        self.bucket.write(objects._marker(key), (json.dumps(vars(marker)) + "\n").encode())
        upload(self, key, folder, marker)

    monkeypatch.setattr(ObjectStore, "_upload", marker_first)
    with pytest.raises(AssertionError, match="passed for finished"):
        check_killed(bucket, tmp_path / "run", monkeypatch, ("put_object", "payloads", False))


def test_what_a_killed_run_did_not_upload_is_uploaded_and_not_computed_again(
    computed: None, bucket: S3Server, tmp_path: Path
) -> None:
    for name in bucket.objects("a/markers/"):
        bucket.remove(name)
    assert not compute(tmp_path).computed
    assert len(bucket.objects("a/markers/")) == len(CHAIN) and examine(URL) == []


@pytest.fixture
def computed_without_upload(computed: None, bucket: S3Server) -> None:
    """The cells are computed, and the bucket is as if nothing had been uploaded of any."""
    for name in (*bucket.objects("a/markers/"), *bucket.objects("a/payloads/")):
        bucket.remove(name)


def test_what_is_being_uploaded_is_no_leftover(
    computed_without_upload: None, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, said = Bucket.upload, list[str]()

    def upload_and_examine(self: Bucket, path: Path, name: str) -> None:
        upload(self, path, name)
        on_machine("two", tmp_path, monkeypatch)
        said.extend(examine(URL, fix=True))
        on_machine("one", tmp_path, monkeypatch)

    monkeypatch.setattr(Bucket, "upload", upload_and_examine)
    assert not compute(tmp_path).computed and said == []
    assert examine(URL) == [] and texts() == TEXTS


def test_what_others_uploaded_first_takes_the_place_of_what_a_killed_run_did_not(
    computed_without_upload: None, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where GPUs of two kinds round differently."""
    mirror = Store(store_at(URL).root)
    ours = mirror.marker(ONE.key)
    opened_before = store_at(URL)
    assert opened_before.find(ONE.key) == "is missing", "nobody else has it, and its lease is not held"
    on_machine("two", tmp_path, monkeypatch)
    with store_at(URL).writing(ONE, {"seconds": 1.0}) as folder:
        (folder / "payload").write_text("by another")
    on_machine("one", tmp_path, monkeypatch)
    # What a killed run left of its upload names no winner.
    bucket.write(f"a/payloads/{ONE.key}/{ours.files['payload'][1] if ours else ''}/payload", TEXTS[0].encode())
    for held in (False, True):
        store = opened_before if held else store_at(URL)
        with store.leases.holding(ONE.key) if held else nullcontext():
            found = store.find(ONE.key)
        assert isinstance(found, Marker) and ours and found.files != ours.files
        assert store.marker(ONE.key) == found == mirror.marker(ONE.key)
        assert (mirror.read(ONE.key) / "payload").read_text() == "by another", "workers read nothing else"
        mirror.remove(ONE.key)
        with mirror.adopting(ONE.key, ours) as folder:
            (folder / "payload").write_text(TEXTS[0])


def check_two_at_once(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Two machines on one bucket: each cell is computed once."""
    slow = [cell(f"slow {k}", "tick 0.2") for k in range(4)]
    store_at(URL)
    patch.setattr(ObjectLeases, "poll", 0.05)
    patch.setattr(ObjectLeases, "FRESH", 0.05)

    def run(name: str, other: str) -> Callable[[], None]:
        def act() -> None:
            on_machine(name, folder, patch)
            (folder / name).mkdir(parents=True)
            store = store_at(URL)
            (folder / name / "ready").touch()
            wait_for(folder / other / "ready", f"there is no {other} machine")
            with store.at_work():
                outcome = LocalRunner(FakeWorkshop(store, folder / name)).run(slow, store, [])
            assert not outcome.failed and set(outcome.costs) == {each.key for each in slow}

        return act

    children = [fork(run("left", "right")), fork(run("right", "left"))]
    assert [end(child) for child in children] == [0, 0]
    begun = [path.name for name in ("left", "right") for path in (folder / name).glob("begun-*")]
    assert len(begun) == len(set(begun)) == len(slow), "work was done twice"


@pytest.mark.slow
def test_of_two_machines_at_once_each_does_what_the_other_does_not(
    bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_two_at_once(tmp_path, monkeypatch)


def test_a_lease_that_could_not_be_given_back_keeps_nobody_from_a_finished_cell(
    bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store_at(URL)
    on_machine("two", tmp_path, monkeypatch)
    second = store_at(URL)
    assert second.find(ONE.key) == "is missing"
    with first.leases.holding("run-first"):
        first.leases.claim(ONE.key)
        with first.writing(ONE, {"seconds": 1.0}) as folder:
            (folder / "payload").write_text(TEXTS[0])
        bucket.refuse = lambda kind, path: ("500 Internal Server Error", "InternalError") if kind == "delete" else None
        first.leases.release(ONE.key)
        bucket.refuse = lambda kind, path: None
        assert bucket.objects(f"a/leases/{ONE.key}")
        check_found(second, tmp_path)


def test_a_lease_in_a_folder_that_could_not_be_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    with store.leases.holding(ONE.key), store.writing(ONE, {"seconds": 1.0}) as folder:
        (folder / "payload").write_text(TEXTS[0])
    find, another = Store.find, Store(store.root)
    looks = iter([False])

    def find_late(self: Store, key: str, anew: bool = False) -> Marker | str:
        """As when the cell is finished after the run has looked for it first."""
        return find(self, key, anew) if next(looks, True) else "is missing"

    monkeypatch.setattr(Store, "find", find_late)
    with store.leases.holding(ONE.key):
        check_found(another, tmp_path)


def check_found(store: Store, folder: Path) -> None:
    """A run whose cell another run holds, and has done, takes it as it is."""

    def tell(event: Event) -> None:
        assert isinstance(event, Found), f"{type(event).__name__}: the run would wait for ever"

    outcome = LocalRunner(FakeWorkshop(store, folder)).run([ONE], store, [tell])
    assert outcome.costs == {ONE.key: {"seconds": 1.0}} and not outcome.computed


@pytest.mark.slow
def test_the_procedure_finds_machines_without_leases(
    bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = ObjectLeases.claim

    def careless(self: ObjectLeases, name: str) -> Claim:
        claim(self, name)
        return Claim(True)

    monkeypatch.setattr(ObjectLeases, "claim", careless)
    with pytest.raises(AssertionError, match="work was done twice"):
        check_two_at_once(tmp_path, monkeypatch)


def test_of_two_who_write_a_cell_the_first_has_it_on_all_machines(
    bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(store: Store, text: str) -> Iterator[None]:
        with store.writing(ONE, {"seconds": 1.0}) as folder:
            (folder / "payload").write_text(text)
            yield

    first = store_at(URL)
    on_machine("two", tmp_path, monkeypatch)
    second = store_at(URL)
    writing = [write(first, "by the first"), write(second, "by the second")]
    for each in (*writing, *writing):
        next(each, None)
    for store in (first, second, open_store(URL)):
        assert (store.read(ONE.key) / "payload").read_text() == "by the first"
    mirror = Store(second.root)
    assert (mirror.read(ONE.key) / "payload").read_text() == "by the first", "workers read nothing else"
    assert examine(URL) == []


# Damage


def flip(bucket: S3Server, key: str) -> str:
    name = payload_of(bucket, key)
    data = bytearray(bucket.read(name))
    data[3] ^= 1
    bucket.write(name, bytes(data))
    return f"is corrupt: payload is not what was written (in {URL})"


def lose_payload(bucket: S3Server, key: str) -> str:
    bucket.remove(payload_of(bucket, key))
    return f"is corrupt: payload is not there (in {URL})"


def break_marker(bucket: S3Server, key: str) -> str:
    bucket.write(f"a/markers/{key}.json", b"{}")
    return f"is corrupt: its marker in {URL} is not what was written"


def swap_marker(bucket: S3Server, key: str) -> str:
    bucket.write(f"a/markers/{key}.json", bucket.read(f"a/markers/{CHAIN[2].key}.json"))
    return f"is corrupt: its marker in {URL} is not what was written"


@pytest.mark.parametrize("damage", first_quick([flip, lose_payload, break_marker, swap_marker]))
def test_damage_in_the_bucket_is_named_and_computed_again(
    damage: Callable[[S3Server, str], str],
    computed: None,
    bucket: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = CHAIN[0].key
    problem = damage(bucket, key)
    assert examine(URL) == [f"cell {key[:12]} {problem}"]
    on_machine("two", tmp_path, monkeypatch)
    events: list[Event] = []
    assert compute(tmp_path, events.append).computed == {key}
    assert [event.reason for event in events if isinstance(event, Corrupt)] == [problem]
    assert examine(URL) == [] and texts() == TEXTS


def test_doctor_removes_damage_so_that_it_is_computed_again(computed: None, bucket: S3Server, tmp_path: Path) -> None:
    flip(bucket, ONE.key)
    assert examine(URL, fix=True) == [
        f"cell {ONE.key[:12]} is corrupt: payload is not what was written (in {URL}): removed"
    ]
    assert examine(URL) == [] and ONE.key not in "".join(bucket.objects())
    assert compute(tmp_path).computed == {ONE.key} and texts() == TEXTS


def test_without_its_check_damage_would_go_unnoticed(
    computed: None, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped byte is found because it is looked for."""
    flip(bucket, ONE.key)
    monkeypatch.setattr(objects, "check_payload", lambda *_: None)
    assert examine(URL) == []


def test_doctor_and_gc_clear_away_what_no_marker_names(computed: None, bucket: S3Server, tmp_path: Path) -> None:
    store = open_store(URL)
    bucket.write(f"a/payloads/{CHAIN[1].key}/0000/payload", b"of a writer that was second")
    bucket.write(f"a/payloads/{'0' * 64}/1111/payload", b"half-uploaded")
    said = [f"{key[:12]} was being written when its run ended" for key in ("0" * 64, CHAIN[1].key)]
    assert sorted(examine(URL)) == sorted(said)
    with store.leases.holding("0" * 64):
        assert examine(URL) == said[1:], "somebody is at the other one"
    garbage = collect_garbage(store, [CHAIN[1].key])
    assert garbage.cells == {"fake": [CHAIN[2].key]} and garbage.kept_cells == 2
    assert [path.parts[2] for path in garbage.paths["half-written"]] == ["1111", "0000"] and garbage.size == 51
    assert store.cells() == sorted(each.key for each in CHAIN[:2]) and examine(URL) == []
    assert len(bucket.objects()) == 5


def test_gc_waits_for_runs_on_other_machines(
    computed: None, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store_at(URL)
    with run.at_work():
        on_machine("two", tmp_path, monkeypatch)
        with pytest.raises(EraseBenchError, match=f"the store {URL} is in use by process {os.getpid()} on "):
            collect_garbage(open_store(URL), [])
    with open_store(URL).clearing(), pytest.raises(EraseBenchError, match="is being cleared by"), run.at_work():
        pass
    assert not bucket.objects("a/leases/")


def test_nothing_is_removed_from_a_mirror_by_who_takes_it_for_a_store_of_its_own(
    computed: None, bucket: S3Server, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose runs have their leases in the bucket."""
    mirror, run = Store(store_at(URL).root), small_run / "out"
    said = f"{mirror.root} is the mirror of {URL}: name that store, where its runs can be seen"
    assert command("store", "copy", small_run / "store", mirror.root) == 0, "so that it has what the run names"
    for args in (("store", "gc", "--keep", run), ("store", "gc", "--keep", run, "--yes"), ("doctor", "--fix")):
        assert refused(capsys, *args, "--store", mirror.root) == said
    assert len(mirror.cells()) == CELLS + len(CHAIN)
    assert command("doctor", "--store", mirror.root) == 0, "to look is allowed"
    assert examine(URL, fix=True) == []


# Copies


@pytest.mark.slow
def test_cells_come_back_from_a_bucket_as_they_were_and_gc_keeps_those_of_a_run(
    bucket: S3Server, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, store = small_run / "out", Store(small_run / "store")
    assert command("store", "export", run, tmp_path / "a.tar") == 0
    assert command("store", "import", tmp_path / "a.tar", "--store", URL) == 0
    assert not any((tmp_path / "one").glob("*/cells/??/*")), "what is only brought is not kept in the mirror"
    assert open_store(URL).cells() == store.cells()
    bucket.requests.clear()
    assert command("store", "copy", store.root, URL) == 0
    assert bucket.requests["put"] <= 4, "what is there is not uploaded again"
    assert command("store", "copy", URL, tmp_path / "back") == 0
    for each in store.cells():
        folders = (store.folder(each), Store(tmp_path / "back").folder(each))
        one, other = ({p.name: p.read_bytes() for p in f.rglob("*") if p.name != "verified.json"} for f in folders)
        assert one == other
    assert command("store", "export", run, tmp_path / "b.tar", "--store", URL) == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    compute(tmp_path)
    capsys.readouterr()
    assert command("store", "size", "--store", URL) == 0
    assert re.search(rf"in all +{CELLS + 3} ", capsys.readouterr().out)
    assert command("store", "gc", "--keep", run, "--store", URL, "--yes") == 0
    assert "not needed: 3 cells (3 fake)" in capsys.readouterr().out
    assert command("doctor", "--store", URL) == 0
    assert open_store(URL).cells() == store.cells()


def test_a_damaged_cell_is_not_copied(computed: None, bucket: S3Server, tmp_path: Path) -> None:
    flip(bucket, ONE.key)
    arrival = copy(open_store(URL, make=False), Store(tmp_path / "back"), [each.key for each in CHAIN])
    assert arrival.new == 2
    assert arrival.problems == [f"cell {ONE.key[:12]} is corrupt: payload is not what was written: not brought"]


# What cannot be


def refused(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """The one line that a command refuses with."""
    capsys.readouterr()
    assert command(*args) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1, err
    return err.removeprefix("error: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such/a", "there is no bucket for s3://no-such/a: .*; make it first"),
        ("s4://bucket/a", "s4://bucket/a: unknown protocol 's4'; nearest: s3, .*"),
        ("gs://bucket/a", "gs://bucket/a needs a package that is not there: .*gcsfs.*"),
        ("s3://", "s3:// names no bucket; write s3://bucket/prefix"),
        ("s3:/bucket/a", "s3:/bucket/a is no URL of a store; write s3://bucket/prefix"),
        ("memory://a", "memory://a would be gone with this process; name a folder or a bucket"),
        ("", "the name of a store is empty"),
        ("file:///tmp/a", "file:///tmp/a is a folder of this machine: name it without file://"),
        ("zip://a::s3://bucket/b.zip", ".* names several file systems; a store is in one"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(
    url: str, said: str, bucket: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in (("run", *TINY, "--out", tmp_path / "out"), ("doctor",)):
        assert re.fullmatch(said, refused(capsys, *args, "--store", url))
    assert not (tmp_path / "out" / "ledger.jsonl").exists()


def test_what_is_in_the_bucket_has_to_be_a_store_of_this_version(
    bucket: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("run", *TINY, "--out", tmp_path / "out", "--store", URL)
    assert refused(capsys, "doctor", "--store", URL) == f"{URL} is no store: it has no store.json"
    bucket.write("a/photo.png", b"")
    assert refused(capsys, *run) == f"{URL} is no store and not empty (it holds photo.png); name another"
    bucket.write("a/store.json", b'{"format": 9}')
    assert refused(capsys, *run).startswith(f"the store {URL} was written by a newer erasebench (format 9, known: 1)")
    bucket.write("a/store.json", b"[]")
    assert refused(capsys, *run).startswith(f"{URL}/store.json is corrupt")
    assert refused(capsys, "store", "copy", URL + "b", URL + "b").startswith(f"{URL}b is no store")


def test_a_server_that_overwrites_is_refused(bucket: S3Server, tmp_path: Path) -> None:
    bucket.ignores = ("If-None-Match",)
    with pytest.raises(EraseBenchError, match="overwrites an object that is to be made only if there is none"):
        store_at(URL)
    bucket.ignores = ()
    store_at(URL)


def test_without_permission_nothing_is_begun(
    bucket: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("run", *TINY, "--out", tmp_path / "out", "--store", URL)
    for allowed in ("nothing", "get list head"):

        def refuse(kind: str, path: str, allowed: str = allowed) -> tuple[str, str] | None:
            return None if kind in allowed.split() else ("403 Forbidden", "AccessDenied")

        bucket.refuse = refuse
        assert refused(capsys, *run).startswith(f"no permission for {URL}: PermissionError")
    assert not bucket.objects()


def test_a_server_that_is_gone_is_one_line(
    bucket: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3fs.S3FileSystem, "_cache", {})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    assert refused(capsys, "doctor", "--store", URL).startswith(f"{URL} cannot be reached: ")


@pytest.mark.parametrize("last", first_quick(["markers", "payloads", "leases"]))
def test_a_server_that_goes_in_the_middle_stops_the_run_and_loses_nothing(
    last: str, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second cell's object of a kind on, nothing is answered."""
    # Its leases could not be given back, and its process lives on here: they are watched for that long.
    monkeypatch.setattr(leases_module, "SILENCE", 2.0)
    gone = threading.Event()

    def refuse(kind: str, path: str) -> tuple[str, str] | None:
        if kind == "put" and f"/{last}/{CHAIN[1].key}" in path:
            gone.set()
        return ("503 Service Unavailable", "ServiceUnavailable") if gone.is_set() else None

    bucket.refuse = refuse
    with pytest.raises(EraseBenchError, match=r"cannot be reached: .*the same command goes on from there"):
        compute(tmp_path)
    bucket.refuse = lambda kind, path: None
    finished = {path.parent.name for path in (tmp_path / "one").glob("*/cells/??/*/done.json")}
    assert finished and len(finished) < len(CHAIN)
    assert {each.key for each in CHAIN} - compute(tmp_path).computed == finished
    assert texts() == TEXTS and examine(URL) == []


def test_workers_elsewhere_need_a_mirror_that_all_machines_share(
    bucket: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("run", *TINY, "--out", tmp_path / "out", "--store", URL)
    assert command(*run, "--runner", "slurm", "--slurm", "cluster=local", "--methods", "no-such") == 2
    assert "no-such" in capsys.readouterr().err, "the mirror is named"
    monkeypatch.delenv(MIRRORS)
    said = refused(capsys, *run, "--runner", "ray", "--ray-address", "auto")
    assert said.startswith(
        f"workers elsewhere read and write the mirror of {URL}: let the environment variable {MIRRORS}"
    )


# Requests


def test_a_cell_costs_few_requests(bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that docs/scale.md gives."""
    many = [cell(f"cell {k}") for k in range(10)]
    (tmp_path / "signs").mkdir()

    def requests() -> dict[str, int]:
        store = store_at(URL)
        with store.at_work():
            bucket.requests.clear()
            assert not LocalRunner(FakeWorkshop(store, tmp_path / "signs")).run(many, store, []).failed
            return dict(bucket.requests)

    # As if each cell took so long that no listing of leases served two of them.
    monkeypatch.setattr(ObjectLeases, "FRESH", 0.0)
    begin = {"list": 2, "head": 1}  # of a bucket without cells; one listing for a thousand cells otherwise
    each = {"put": 3, "get": 2, "list": 2, "delete": 1}
    assert requests() == {kind: begin.get(kind, 0) + 10 * each.get(kind, 0) for kind in (*each, "head")}
    assert requests() == {"list": 2}, "cells that are here and there: markers, and what they name"
    on_machine("two", tmp_path, monkeypatch)
    assert requests() == {"list": 1, "get": 20}, "marker and payload of cells that are there alone"
