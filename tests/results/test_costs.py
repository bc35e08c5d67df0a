"""The cost table."""

from __future__ import annotations

from erasebench.results.costs import Cost, costs_csv


def test_costs_csv() -> None:
    rows = [
        Cost("esd", "church", "erase", "0123456789abcdef", "ok", 12.3456789, 812.5, 7080960, None, "now"),
        Cost("sd", "church", "generate", "fedcba9876543210", "ok", 60.0, None, None, 1000, "before"),
        Cost("uce", "a, b", "erase", "00", "n/a", None, None, None, None, "now"),
    ]
    assert costs_csv(rows) == (
        "method,concept,stage,cell,status,seconds,peak_memory_mb,parameters_changed,images,computed\n"
        "esd,church,erase,0123456789ab,ok,12.3457,812.5,7080960,,now\n"
        "sd,church,generate,fedcba987654,ok,60,,,1000,before\n"
        'uce,"a, b",erase,00,n/a,,,,,now\n'
    )
