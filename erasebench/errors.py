"""Errors that a user can act on."""

from __future__ import annotations


class EraseBenchError(Exception):
    """Something is wrong that the user can put right; the message says what and how.

    The command line prints it as one line, ``error: ...``, without a traceback, and exits with status 2.
    """
