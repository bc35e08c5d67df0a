"""The record of a run says what its rows were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import asked_metrics
from erasebench.results.record import RECORD, read_record


def test_rows_say_what_became_of_them_and_name_their_cells(finished: Path) -> None:
    record = read_record(finished / "out")
    assert [(row.method, row.concept, row.kind, row.status, row.reason) for row in record.rows] == [
        ("sd", "church", "object", "ok", ""),
        ("sd", "nudity", "explicit", "ok", ""),
        ("uce", "church", "object", "ok", ""),
        ("uce", "nudity", "explicit", "ok", ""),
        ("failing", "church", "object", "failed", "diverged"),
        ("failing", "nudity", "explicit", "n/a", "no nudity"),
    ]
    assert (record.model, record.domain, record.baseline) == ("picturebook", "picturebook", "sd")
    assert record.metrics == {name: metric.description() for name, metric in asked_metrics().items()}
    store = Store(finished / "store")
    for row in record.rows[:4]:
        assert row.erasure and store.verify(row.erasure) is None
        assert list(row.probes) == ["concept", "retain", "reference"]
        for probe in row.probes.values():
            for key in (probe.images, probe.features, *(judged.cell for judged in probe.judged)):
                assert key is None or store.verify(key) is None
    (judged,) = record.rows[0].probes["concept"].judged
    assert (judged.judge, judged.label, judged.threshold) == ("picturebook-detector", "church", 0.5)
    assert record.rows[0].judge.endswith(": church >= 0.5")
    assert record.rows[0].probes["reference"].features_of == "Picturebook CLIP features"


def test_the_record_names_no_place(finished: Path) -> None:
    text = (finished / "out" / RECORD).read_text(encoding="utf-8")
    assert str(finished) not in text and str(Path.home()) not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no folder of a finished run: cannot read .*plan.json: No such file"),
        ("{", "plan.json cannot be read: the file: Invalid JSON"),
        ('{"rows": []}', "plan.json cannot be read: erasebench: Field required"),
    ],
)
def test_what_is_no_record_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / RECORD).write_text(text)
    with pytest.raises(EraseBenchError, match=message):
        read_record(tmp_path)


def test_a_record_that_no_reader_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("[" * 100_000)
    with pytest.raises(EraseBenchError, match=r"plan\.json cannot be read: the file: Invalid JSON"):
        read_record(tmp_path)
