"""The opening of stores, in a folder or in a bucket."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from erasebench.engine.objects import ObjectStore
from erasebench.engine.store import Store
from erasebench.engine.store_format import ABOUT
from erasebench.errors import EraseBenchError, check_name
from erasebench.files import Place


def store_at(place: Place, make: bool = True) -> Store:
    """The store in a folder or a bucket.

    Args:
        place: the folder, or the URL.
        make: make the store if it is not there; otherwise it is read as an empty one.

    Raises:
        EraseBenchError: it cannot be written or reached, is no store, or is one of a newer version.
    """
    return ObjectStore(place, make) if isinstance(place, str) else Store(place, make)


def store_to_read(place: Place) -> Store:
    """A store of which little is read, if anything: one in a bucket is asked for only then.

    Args:
        place: its folder, which need not be there, or its URL.
    """
    return LazyStore(place) if isinstance(place, str) else Store(place, make=False)


def open_store(place: Place, make: bool = True) -> Store:
    """A store that is there.

    Args:
        place: its folder, or its URL.
        make: whether what it lacks may be made there; otherwise nothing is written.

    Raises:
        EraseBenchError: it is no store, or not there; the message gives the nearest folder that is one.
    """
    if isinstance(place, str):
        store = ObjectStore(place, make=False)
        if not store.exists:
            raise EraseBenchError(f"{place} is no store: it has no {ABOUT}")
        return ObjectStore(place) if make else store
    if not place.exists():
        near = place.parent.iterdir() if place.parent.is_dir() else ()
        check_name("store", str(place), sorted(str(path) for path in near if (path / ABOUT).exists()))
    if not os.path.lexists(place / ABOUT):
        raise EraseBenchError(f"{place} is no store: it has no {ABOUT}")
    return Store(place, make)


class LazyStore(Store):
    """A store in a bucket that is opened when a cell is read, which is all that can be done with it.

    Args:
        url: of the store.
    """

    def __init__(self, url: str) -> None:
        self.name = url

    @cached_property
    def _store(self) -> Store:
        return open_store(self.name, make=False)

    def read(self, key: str) -> Path:
        """The folder of a finished cell that passes :meth:`check`.

        Raises:
            EraseBenchError: the store cannot be reached, or what is wrong with the cell.
        """
        return self._store.read(key)
