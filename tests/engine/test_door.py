"""Who comes in by the driver's door, and who is kept out."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from erasebench.engine.door import Door, Place
from erasebench.engine.remote import join


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door("127.0.0.1", tmp_path)
    yield door
    door.close()


def test_only_who_knows_the_key_is_heard_and_nobody_keeps_others_waiting(door: Door, tmp_path: Path) -> None:
    place = door.place
    silent = socket.create_connection((place.host, place.port))
    stranger = Place(place.host, place.port, b"guess", tmp_path)
    with pytest.raises(Exception, match="digest sent was rejected"):
        join(stranger, 0)
    assert not door.bell.poll(0.2)
    comes = threading.Thread(target=join, args=(place, 4))
    comes.start()
    assert door.bell.poll(10)
    connection, _, number = door.next()
    assert number == 4
    connection.close()
    comes.join(10)
    silent.close()


def check_strangers(door: Door, seconds: float) -> None:
    """More come than there is room for, of whom one says nothing and another never ends what it says.

    Args:
        door: to which.
        seconds: in which a worker has to come in all the same.
    """
    place = door.place
    with ExitStack() as stack:
        strangers = [stack.enter_context(socket.create_connection((place.host, place.port))) for _ in range(6)]
        for stranger in strangers[1:]:
            stranger.sendall(b"\0\0\0\x64")  # 100 bytes come

        def come() -> None:
            with suppress(OSError, EOFError):  # the door is closed
                join(place, 4)

        comes = threading.Thread(target=come)
        comes.start()
        deadline = time.monotonic() + seconds
        while not door.bell.poll(0.02) and time.monotonic() < deadline:
            with suppress(OSError):  # it was sent away
                strangers[1].sendall(b"x")
        assert door.bell.poll(0), "strangers keep a worker waiting"
        connection, _, number = door.next()
        assert number == 4
        connection.close()
        comes.join(10)


def test_strangers_who_say_nothing_are_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.door.GREETING", 0.2)
    monkeypatch.setattr("erasebench.engine.door.GUESTS", 2)
    door = Door("127.0.0.1", tmp_path)
    check_strangers(door, 60)
    door.close()


@pytest.mark.parametrize("guests", [2, 3])
def test_no_more_than_there_is_room_for_are_heard_at_a_time(
    guests: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.engine.door.GUESTS", guests)
    door = Door("127.0.0.1", tmp_path)
    with ExitStack() as stack:
        place = door.place
        strangers = [stack.enter_context(socket.create_connection((place.host, place.port))) for _ in range(6)]
        greeted: set[socket.socket] = set()
        while len(greeted) < guests:
            ready, _, _ = select.select([each for each in strangers if each not in greeted], [], [], 10)
            assert ready, "nobody is greeted"
            greeted.update(ready)
        waiting = [each for each in strangers if each not in greeted]
        assert not select.select(waiting, [], [], 0.3)[0], "there was no room for one more"
    door.close()


def test_the_procedure_finds_a_door_where_a_stranger_may_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.door.GUESTS", 2)
    door = Door("127.0.0.1", tmp_path)
    with pytest.raises(AssertionError, match="strangers keep a worker waiting"):
        check_strangers(door, 3)
    door.close()


def test_the_door_is_closed_when_a_run_ends(door: Door) -> None:
    door.close()
    with pytest.raises(OSError, match="refused"):
        join(door.place, 0)
