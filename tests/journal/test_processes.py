"""What needs a process of its own: full disks, foreign folders, forks among threads.

Each part runs as `python test_processes.py PART FOLDER` and prints what was acknowledged.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from itertools import chain
from pathlib import Path
from typing import Any

from costspan.core import runtime
from costspan.core.journal import records, spool
from costspan.core.recorder import Ack, Recorder, Refused
from costspan.core.schema import Observation

CALL = Observation(attempt_id="a", tenant="acme", usage={"input": 7})


def run(part: str, folder: Path) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, __file__, part, str(folder)],
        capture_output=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def found_in(folder: Path) -> tuple[list[str], dict[str, int], int]:
    """(oids in the spool, refusals as last said, torn tails)."""
    oids: list[str] = []
    refused: dict[str, int] = {}
    torn = 0
    for path in spool.segments(folder):
        with spool.claim(path) as content:
            assert content is not None, f"{path} is held by nobody alive"
            torn += len(content.quarantined)
            writer = None
            for payload in content.payloads:
                record = records.decode(payload, writer)
                if isinstance(record, records.Opened):
                    writer = record.writer
                elif isinstance(record, records.Refusals):
                    refused = record.counts
                elif isinstance(record, Observation):
                    oids.append(str(record.oid))
    return oids, refused, torn


def limit(file_bytes: int) -> None:
    """A disk that is full after this many bytes: a short write, then an error."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))


def part_full_disk(folder: Path) -> dict[str, Any]:
    writer = Recorder(folder)
    limit(1500)
    acks = [writer.record(CALL) for _ in range(60)]
    limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    acks += [writer.record(CALL) for _ in range(5)]
    return {
        "acked": [ack.oid for ack in acks if isinstance(ack, Ack)],
        "refused": sum(isinstance(ack, Refused) for ack in acks),
        "last": [isinstance(ack, Ack) for ack in acks[-5:]],
    }


def test_on_a_full_disk_acked_is_readable_and_refused_is_counted(tmp_path: Path) -> None:
    said = run("full_disk", tmp_path)
    oids, refused, torn = found_in(tmp_path)
    assert 0 < said["refused"] < 60
    assert oids == said["acked"]
    assert torn == 0
    assert sum(refused.values()) == said["refused"]
    assert all(said["last"]), "the disk has room again"
    assert [int(oid.rpartition(":")[2]) for oid in oids] == list(range(1, len(oids) + 1))


def part_no_room(folder: Path) -> dict[str, Any]:
    """The file's first bytes fit; who writes here does not."""
    limit(20)
    writer = Recorder(folder)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    refused = [writer.record(CALL) for _ in range(50)]
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    left = sorted(os.listdir(folder))
    limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    again = writer.record(CALL)
    return {
        "refused": [isinstance(each, Refused) for each in refused],
        "leaked": after - before,
        "left": left,
        "acked": again.oid if isinstance(again, Ack) else None,
    }


def test_without_room_for_a_segment_nothing_piles_up(tmp_path: Path) -> None:
    said = run("no_room", tmp_path)
    assert all(said["refused"])
    assert said["leaked"] == 0
    assert said["left"] == []
    oids, refused, _ = found_in(tmp_path)
    assert oids == [said["acked"]]
    assert sum(refused.values()) == 50


def part_foreign_folder(folder: Path) -> dict[str, Any]:
    """A folder that this user may not write to, through the public door."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    runtime.configure(ledger=folder / "ledger.db", spool=folder / "spool", background=False)
    answers = [runtime.record({"tenant": "acme"}), runtime.record(CALL)]
    return {"answers": [type(each).__name__ for each in answers], "reason": answers[0].reason}


def test_a_folder_of_others_refuses_and_never_raises() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let no other user in
        Path(name).chmod(0o555)
        said = run("foreign_folder", Path(name))
        assert said == {"answers": ["Refused", "Refused"], "reason": "disk:13"}
        assert list(Path(name).iterdir()) == []
        Path(name).chmod(0o700)


def part_forks(folder: Path) -> dict[str, Any]:
    """Threads record without pause while the process forks; every child records too."""
    runtime.configure(ledger=folder / "ledger.db", spool=folder / "spool", background=False)
    acked: list[str] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            ack = runtime.record(CALL)
            acked.extend([ack.oid] if isinstance(ack, Ack) else [])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    children: dict[str, list[str]] = {}
    for child in range(25):
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            mine = [runtime.record(CALL) for _ in range(20)]
            text = json.dumps([a.oid for a in mine if isinstance(a, Ack)])
            os.write(write, text.encode())
            os._exit(0)
        os.close(write)
        with open(read, "rb") as said:
            children[str(child)] = json.loads(said.read())
        os.waitpid(pid, 0)
    locked = [path for path in spool.segments(folder / "spool") if _is_held(path)]
    done.set()
    for thread in threads:
        thread.join()
    return {"acked": acked, "children": children, "locked": len(locked)}


def _is_held(path: Path) -> bool:
    with spool.claim(path) as content:
        return content is None


def test_forks_among_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    said = run("forks", tmp_path)
    assert said["locked"] == 1, "the parent's lock outlives its children"
    writers = {oid.partition(":")[0] for oid in said["acked"]}
    assert len(writers) == 1
    for oids in said["children"].values():
        mine = {oid.partition(":")[0] for oid in oids}
        assert [int(oid.partition(":")[2]) for oid in oids] == list(range(1, 21))
        assert len(mine) == 1
        assert not mine & writers
        writers |= mine
    found, _, torn = found_in(tmp_path / "spool")
    assert sorted(found) == sorted(chain(said["acked"], *said["children"].values()))
    assert torn == 0
    assert len(spool.segments(tmp_path / "spool")) == 26


PARTS = {
    name.removeprefix("part_"): part for name, part in globals().items() if name.startswith("part_")
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
