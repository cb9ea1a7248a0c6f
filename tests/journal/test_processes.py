"""What needs a process of its own: full disks, foreign folders, forks among threads.

Each part runs as `python test_processes.py PART FOLDER` and prints what was acknowledged.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # where this file itself is run

from faulty import FaultyFiles
from parts import run_part
from reading import Answer, acked, check_no_gap, counts, oids

from costspan.core import runtime
from costspan.core.journal import spool
from costspan.core.recorder import Ack, Held, Recorder, Refused
from costspan.core.schema import Observation

CALL = Observation(attempt_id="a", tenant="acme", usage={"input": 7})


def limit(file_bytes: int) -> None:
    """A disk that is full after this many bytes: a short write, then an error."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))


def part_full_disk(folder: Path) -> dict[str, Any]:
    writer = Recorder(folder, files=FaultyFiles())  # for its clock: no write is slow
    limit(1500)
    answers = [writer.record(CALL) for _ in range(60)]
    limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    answers += [writer.record(CALL) for _ in range(5)]
    writer.rotate()
    return {"acked": acked(answers), "segments": len(spool.segments(folder))}


def test_where_a_file_is_full_the_next_goes_on(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: a short write, then an error; another file may be as long again."""
    said = run_part(__file__, "full_disk", tmp_path)
    assert said["segments"] > 2
    assert oids(tmp_path) == said["acked"]
    assert len(said["acked"]) == 65
    check_no_gap(tmp_path)


def part_no_room(folder: Path) -> dict[str, Any]:
    """A file's first bytes fit; who writes here does not."""
    limit(20)
    writer = Recorder(folder, files=FaultyFiles())
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    held = [writer.record(CALL) for _ in range(50)]
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    left = sorted(os.listdir(folder))
    limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    again = writer.record(CALL)
    writer.rotate()
    return {
        "held": [isinstance(each, Held) for each in held],
        "leaked": after - before,
        "left": left,
        "acked": again.oid if isinstance(again, Ack) else None,
    }


def test_without_room_for_a_segment_nothing_piles_up(tmp_path: Path) -> None:
    said = run_part(__file__, "no_room", tmp_path)
    assert all(said["held"])
    assert said["leaked"] == 0
    assert said["left"] == []
    assert len(oids(tmp_path)) == 51
    assert oids(tmp_path)[-1] == said["acked"]
    told = counts(tmp_path)
    assert told["ladder:held"] == told["ladder:late"] == 50


def part_foreign_folder(folder: Path) -> list[str]:
    """A folder that this user may not write to, through the public door."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    runtime.configure(
        ledger=folder / "l.db", spool=folder / "spool", spool_beside="off", background=False
    )
    return [type(runtime.record(each)).__name__ for each in ({"tenant": "acme"}, CALL)]


def test_a_folder_of_others_holds_and_never_raises() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let no other user in
        Path(name).chmod(0o555)
        assert run_part(__file__, "foreign_folder", Path(name)) == ["Held", "Held"]
        assert list(Path(name).iterdir()) == []
        Path(name).chmod(0o700)


def part_forks(folder: Path) -> dict[str, Any]:
    """Threads record without pause while the process forks; every child records too."""
    runtime.configure(
        ledger=folder / "ledger.db",
        spool=folder / "spool",
        spool_beside=folder / "beside",
        background=False,
    )
    answers: list[Answer] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            answers.append(runtime.record(CALL))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    children: dict[str, list[str]] = {}
    for child in range(25):
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            mine = acked([runtime.record(CALL) for _ in range(20)])
            os.write(write, json.dumps(mine).encode())
            os._exit(0)
        os.close(write)
        with open(read, "rb") as said:
            children[str(child)] = json.loads(said.read())
        os.waitpid(pid, 0)
    locked = [path for path in spool.segments(folder / "spool") if _is_held(path)]
    done.set()
    for thread in threads:
        thread.join()
    runtime.recorder().rotate()
    lost = sum(isinstance(each, Refused) for each in answers)
    return {
        "acked": acked(answers),
        "recorded": len(answers) - lost,
        "children": children,
        "locked": len(locked),
    }


def _is_held(path: Path) -> bool:
    with spool.claim(path) as content:
        return content is None


def test_forks_among_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    said = run_part(__file__, "forks", tmp_path)
    assert said["locked"] >= 1, "the parent's lock outlives its children"
    writers = {oid.partition(":")[0] for oid in said["acked"]}
    assert len(writers) == 1
    for named in said["children"].values():
        mine = {oid.partition(":")[0] for oid in named}
        assert [int(oid.partition(":")[2]) for oid in named] == list(range(1, 21))
        assert len(mine) == 1
        assert not mine & writers
        writers |= mine
    found = [str(each) for each in oids(tmp_path / "spool", tmp_path / "beside")]
    assert {*said["acked"], *chain(*said["children"].values())} <= set(found)
    assert len(found) == len(set(found)) == said["recorded"] + 25 * 20
    check_no_gap(tmp_path / "spool", tmp_path / "beside")


PARTS = {
    name.removeprefix("part_"): part for name, part in globals().items() if name.startswith("part_")
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
