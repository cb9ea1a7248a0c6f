"""The folder beside the spool: where records go while the spool's own disk takes none.

By default it is this user's, in memory that outlives the process (`/dev/shm`) or else in the
system's temporary directory, and named after the spool: records never reach another's books.
What lies there survives kill -9, and not a restart of the machine.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")


def folder_for(spool: Path) -> Path:
    """The default folder beside this spool. All processes of a user find the same one."""
    import hashlib  # at the first record: `import costspan` does without

    if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        shared = _SHARED_MEMORY
    else:
        shared = Path(os.environ.get("TMPDIR") or "/tmp")
    key = hashlib.blake2b(os.fsencode(os.path.realpath(spool)), digest_size=8).hexdigest()
    return shared / _name() / key


def is_default(folder: Path) -> bool:
    """Whether this is such a folder, in a place where others may make folders too."""
    return folder.parent.name == _name()


def is_ours(folder: Path) -> bool:
    """Whether a default folder is there and this user's alone.

    Another user may have made it first, to read what we write or to have us read what they wrote.
    """
    try:
        return all(_is_private(os.lstat(each)) for each in (folder.parent, folder))
    except OSError:
        return False


def _is_private(found: os.stat_result) -> bool:
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and not stat.S_IMODE(found.st_mode) & 0o077
    )


def _name() -> str:
    return f"costspan-{os.getuid()}"
