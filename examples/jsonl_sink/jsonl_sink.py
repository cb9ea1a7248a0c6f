"""A sink: every posting is a line of the file that COSTSPAN_JSONL names, on the disk, once.

A batch comes again if this process died in the middle of it: a posting is known by its number.
"""

import fcntl
import json
import os
from typing import BinaryIO

from costspan.core.hooks import hookimpl
from costspan.core.sinks import Batch


@hookimpl
def posted(batch: Batch) -> None:
    with open(os.environ["COSTSPAN_JSONL"], "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        taken = last_number(file)
        for posting in batch.postings:
            if posting.number > taken:
                file.write(posting.to_json() + b"\n")
        file.flush()
        os.fsync(file.fileno())  # before we return: then the cursor moves


def last_number(file: BinaryIO) -> int:
    """The number in the last line; half a line, of a process that died, is cut off."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 65536))
    *lines, torn = file.read().split(b"\n")
    file.truncate(end - len(torn))
    return json.loads(lines[-1])["number"] if lines else 0
