from __future__ import annotations

import os
from dataclasses import replace

from erasebench.engine.holders import Holder
from tests.forks import end, fork


def test_whether_a_process_has_ended_is_known_of_this_machine_alone() -> None:
    here = Holder.here("one")
    assert here.process == os.getpid() and not here.has_ended
    assert replace(here, started="1").has_ended, "another process has the number"
    child = fork(lambda: None)
    end(child)
    gone = replace(here, process=child)
    assert gone.has_ended and not replace(gone, machine="another").has_ended


def test_a_process_that_nobody_has_waited_for_has_ended() -> None:
    child = fork(lambda: None)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert replace(Holder.here("one"), process=child, started="").has_ended
    end(child)
