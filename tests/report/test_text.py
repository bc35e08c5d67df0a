"""Text that every XML parser takes, and no more changed than that needs."""

from __future__ import annotations

import unicodedata
from xml.etree import ElementTree

from erasebench.report.text import printable


def test_every_character_comes_through_xml_and_no_control_character_is_left() -> None:
    for start in range(0, 0x110000, 0x1000):
        text = printable("".join(map(chr, range(start, start + 0x1000))))
        element = ElementTree.Element("a")
        element.text = text
        back = ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8")).text
        assert back == text.replace("\r\n", "\n").replace("\r", "\n")
        controls = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs")}
        assert controls <= {"\t", "\n", "\r"}


def test_what_can_be_read_stays() -> None:
    assert printable("é \N{CJK UNIFIED IDEOGRAPH-4E00} \N{GRINNING FACE}\t\x00\x9b") == (
        "é \N{CJK UNIFIED IDEOGRAPH-4E00} \N{GRINNING FACE}\t\ufffd\ufffd"
    )
