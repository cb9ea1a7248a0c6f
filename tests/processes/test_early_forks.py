"""A fork while the background thread has only begun: it still imports what a drain needs.

The child has no such thread, but what that thread had half imported, and the locks it held. (This
module imports nothing of a drain itself, nor does what it imports.)
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from calls import IMPATIENT_SECONDS, call, configure
from children import lines, say

import costspan
from costspan.core import forks as fork_guard

HUNG_SECONDS = 60
IMPORTING_SECONDS = 0.25
EVENTS = 5


def _work_and_exit(number: int) -> None:
    """A child records, settles, and leaves through the interpreter's own exit."""
    faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
    for event in range(EVENTS):
        say(call(number + event))
    try:
        costspan.flush()
    except Exception as error:  # the fork did not wait: others drain what it wrote
        if type(error).__name__ != "LedgerError" or fork_guard.FORK_WAIT_SECONDS:
            raise
    sys.exit(0)


def part_early_forks(folder: str, forks: int, wait_seconds: float) -> dict[str, Any]:
    """Fork again and again at another moment of a background's first drain."""
    fork_guard.FORK_WAIT_SECONDS = wait_seconds
    failed = 0
    for number in range(forks):
        if (first := os.fork()) == 0:  # a fresh process, whose background begins anew
            configure(folder, background=True)
            say(call(number))
            threading.Event().wait(IMPATIENT_SECONDS + number / forks * IMPORTING_SECONDS)
            if (second := os.fork()) == 0:
                _work_and_exit(1000 + number * EVENTS)
            os._exit(os.waitpid(second, 0)[1] != 0)
        if failed := os.waitpid(first, 0)[1]:
            break
    return {"failed": failed}


@pytest.mark.parametrize("wait_seconds", [HUNG_SECONDS / 2, 0.0])
def test_a_fork_while_the_background_imports(
    folder: Path, is_full: bool, wait_seconds: float
) -> None:
    """A child of a fork that waited settles; else it leaves its records to others. None hangs."""
    from books_check import check

    forks = 60 if is_full else 12
    *acked, answer = lines(part_early_forks, folder, forks, wait_seconds)
    assert json.loads(answer) == {"failed": 0}
    found = check(folder, acked)
    assert found.problems == []
    assert found.acked == forks * (1 + EVENTS)
