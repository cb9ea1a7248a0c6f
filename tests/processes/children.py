"""A part of a test in a process of its own, and conditions to wait for.

A part is a function at the top of a test module; its arguments and its answer are plain JSON. Run
as `python children.py FILE PART ARGUMENTS`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.01


def environment(**more: str) -> dict[str, str]:
    """This process's environment, and its import path, for a child."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, **more}


def command(part: Callable[..., Any], *arguments: Any) -> list[str]:
    """The command line that runs a part."""
    plain = json.dumps([str(each) if isinstance(each, Path) else each for each in arguments])
    # A fork among threads warns from 3.12 on, which is what some parts are about.
    warnings = ["-W", "ignore::DeprecationWarning"]
    file = part.__code__.co_filename
    return [sys.executable, *warnings, __file__, file, part.__name__, plain]


def start(part: Callable[..., Any], *arguments: Any, **more: str) -> subprocess.Popen[bytes]:
    """A part under way; `more` is added to its environment. It may be talked to by lines."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(part, *arguments),
        stdin=pipe, stdout=pipe, stderr=pipe, env=environment(**more),
    )  # fmt: skip


def lines(
    part: Callable[..., Any], *arguments: Any, codes: Sequence[int] = (0,), seconds: float = 120
) -> list[str]:
    """Every whole line that a part wrote on its standard output, whatever way it ended."""
    done = subprocess.run(
        command(part, *arguments),
        capture_output=True, env=environment(), timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode in codes, (done.returncode, done.stderr.decode())
    return done.stdout.decode().split("\n")[:-1]


def run(part: Callable[..., Any], *arguments: Any, seconds: float = 120) -> Any:
    """What a part answered."""
    return json.loads(lines(part, *arguments, seconds=seconds)[-1])


def say(line: str | None) -> None:
    """Write a line in one step: whole or not at all, even if this process is killed."""
    if line is not None:
        os.write(1, f"{line}\n".encode())


def until(condition: Callable[[], T], what: str, *, seconds: float = 60.0) -> T:
    """The first true answer of `condition`, asked again and again.

    Raises:
        TimeoutError: if there is none for so long.
    """
    given_up = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > given_up:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(_POLL_SECONDS)
    return answer


def peak_kilobytes() -> int:
    """The most memory that this process has had.

    Where Linux says it: `getrusage` would tell what the process had that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.read_text().partition("VmHWM:")[2].split()[0])


def _main(file: str, part: str, arguments: str) -> None:
    found = spec_from_file_location(Path(file).stem, file)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    answer = getattr(module, part)(*json.loads(arguments))
    if answer is not None:
        say(json.dumps(answer))


if __name__ == "__main__":
    _main(*sys.argv[1:])
