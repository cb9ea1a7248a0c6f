"""Forks in the hard places: in the middle of another thread's record, with records in memory.

Each part runs as `python test_forks.py PART FOLDER`: a process that nothing else has threads in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # where this file itself is run

import pytest
from faulty import FaultyFiles, nothing
from parts import run_part
from reading import acked, check_no_gap, observations

from costspan.core import process as core_process
from costspan.core import runtime
from costspan.core.journal import spool
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation


def call(name: str) -> Observation:
    return Observation(attempt_id=name)


def as_the_process(recorder: Recorder) -> Recorder:
    """Make a recorder this process's: its fork hooks act on it."""
    core_process.this.recorder = recorder
    return recorder


def in_child(work: Any) -> str:
    """Fork; what the child's work returns. It ends without any hook."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)
    with open(read) as said:
        answer = said.read()
    os.waitpid(pid, 0)
    return str(json.loads(answer))


def part_in_the_middle(folder: Path) -> dict[str, Any]:
    """A thread stands inside `write` for ever while the process forks."""
    stuck, may_end = threading.Event(), threading.Event()

    def stop(name: str) -> None:
        if name == "write" and threading.current_thread() is not threading.main_thread():
            stuck.set()
            may_end.wait(60)

    files = FaultyFiles()
    writer = as_the_process(Recorder(folder, files=files))
    answers = [writer.record(call("first"))]
    files.before = stop
    thread = threading.Thread(target=lambda: answers.append(writer.record(call("stuck"))))
    thread.start()
    stuck.wait(60)

    def child() -> str:
        files.before = nothing
        answer = writer.record(call("child"))
        return acked([answer])[0]

    childs = in_child(child)
    may_end.set()
    thread.join()
    answers.append(writer.record(call("last")))
    held = [path.name for path in spool.segments(folder) if _is_held(path)]
    writer.rotate()
    return {"parent": acked(answers), "child": childs, "held": len(held)}


def _is_held(path: Path) -> bool:
    with spool.claim(path) as content:
        return content is None


def test_a_fork_in_the_middle_of_a_threads_record(tmp_path: Path) -> None:
    said = run_part(__file__, "in_the_middle", tmp_path)
    assert len(said["parent"]) == 3
    assert said["held"] == 1, "the parent's lock is the parent's still"
    found = [str(each.attempt_id) for each in observations(tmp_path)]
    assert sorted(found) == ["child", "first", "last", "stuck"]
    assert said["child"].partition(":")[0] != said["parent"][0].partition(":")[0]
    check_no_gap(tmp_path)


def part_held(folder: Path) -> list[str]:
    """Records wait in memory while the process forks: they are the parent's to write."""
    files = FaultyFiles()
    files.room_bytes[folder] = 0
    writer = as_the_process(Recorder(folder, files=files))
    for name in ("a", "b", "c"):
        writer.record(call(name))
    files.room_bytes.clear()

    def child() -> list[int]:
        before = writer.held
        writer.record(call("child"))
        writer.rotate()
        return [before, writer.held]

    assert in_child(child) == "[0, 0]"
    assert writer.held == 3
    writer.rotate()
    return [str(each.attempt_id) for each in observations(folder)]


def test_a_child_does_not_write_what_the_parent_holds(tmp_path: Path) -> None:
    assert sorted(run_part(__file__, "held", tmp_path)) == ["a", "b", "c", "child"]


def part_orphans(folder: Path, *, syncing: bool = False) -> dict[str, Any]:
    """The parent is killed; its children, one forked and one executed, live on."""
    read, write = os.pipe()
    if (parent := os.fork()) == 0:
        files = FaultyFiles()
        writer = as_the_process(Recorder(folder, files=files))
        writer.record(call("parent"))
        if syncing:
            is_in = threading.Event()

            def stop(name: str) -> None:
                if name == "sync":
                    is_in.set()
                    signal.pause()

            files.before = stop
            threading.Thread(target=writer.sync, daemon=True).start()
            is_in.wait(60)
        if os.fork() == 0:
            time.sleep(60)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        os.write(write, b"1")
        signal.pause()
    os.read(read, 1)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    (path,) = spool.segments(folder)
    given_up = time.monotonic() + 30
    while (held := _is_held(path)) and time.monotonic() < given_up:
        time.sleep(0.01)  # a child that has only begun lets go as soon as it runs
    return {"held": held}


def part_orphans_of_a_sync(folder: Path) -> dict[str, Any]:
    """A thread of the parent syncs by a descriptor of its own meanwhile."""
    return part_orphans(folder, syncing=True)


@pytest.mark.parametrize("part", ["orphans", "orphans_of_a_sync"])
def test_a_dead_parents_segment_is_free_while_its_children_live(tmp_path: Path, part: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, __file__, part, str(tmp_path)],
        stdout=subprocess.PIPE, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"held": False}
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: the children are in it
        process.communicate()


def part_in_a_handler(folder: Path) -> list[str]:
    """A signal handler forks in the middle of a record: both sides go on and record."""
    runtime.configure(
        ledger=folder / "l.db",
        spool=folder / "spool",
        spool_beside=folder / "beside",
        background=False,
    )
    names: list[str] = []

    def fork(*_: object) -> None:
        names.append(in_child(lambda: acked([runtime.record(call("child"))])[0]))

    signal.signal(signal.SIGVTALRM, fork)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.002, 0.002)
    mine: list[str] = []
    while len(names) < 20:
        mine += acked([runtime.record(call("parent"))])
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    runtime.recorder().rotate()
    return [*mine, *names]


def test_a_fork_in_a_signal_handler(tmp_path: Path) -> None:
    said = run_part(__file__, "in_a_handler", tmp_path)
    folders = (tmp_path / "spool", tmp_path / "beside")
    found = [str(each.oid) for each in observations(*folders, torn=True)]
    assert set(said) <= set(found)
    assert len(set(said)) == len(said)
    check_no_gap(*folders)


def part_background(folder: Path) -> list[str]:
    """A process that syncs and drains by itself forks; its child records too."""
    runtime.configure(ledger=folder / "l.db", spool=folder / "spool", spool_beside="off")

    def threads() -> str:
        runtime.record(call("x"))
        thread = core_process.this.thread
        return "none" if thread is None or not thread.is_alive() else "its own"

    return [threads(), in_child(threads)]


def test_a_child_syncs_and_drains_by_itself(tmp_path: Path) -> None:
    assert run_part(__file__, "background", tmp_path) == ["its own", "its own"]


PARTS = {
    name.removeprefix("part_"): part for name, part in globals().items() if name.startswith("part_")
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))), flush=True)
