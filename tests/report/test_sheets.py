"""Names and sources of the images of a run folder."""

from __future__ import annotations

from erasebench.report.sheets import file_name


def test_names_that_files_cannot_hold_do_not_fall_together() -> None:
    names = ["phrase:red balloon", "phrase:red/balloon", "phrase_red_balloon", "x" * 100, "x" * 101, "x" * 80]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("church") == "church" and max(map(len, map(file_name, names))) < 90
    assert max(len(file_name(letter * 80).encode()) for letter in "教\U00020000é") < 90, "file systems count bytes"
