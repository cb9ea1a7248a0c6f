"""The command itself: a real process, a real terminal, settings, help, and exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk

from costspan import __version__
from costspan.cli import COMMANDS

COSTSPAN = (sys.executable, "-m", "costspan")


def _process(
    *arguments: object, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COSTSPAN, *map(str, arguments)],
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


def _on_a_terminal(*arguments: object, **environment: str) -> str:
    """What a person sees: standard output is a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    command = [*COSTSPAN, *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm", **environment}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not piece:
                break
            seen += piece
    os.close(ours)
    return seen.decode()


def test_version() -> None:
    ran = _process("--version")
    assert ran.stdout == f"costspan {__version__}\n".encode()
    assert ran.returncode == 0


def test_help_knows_every_command_and_code(desk: Desk) -> None:
    ran = desk.run("--help")
    assert ran.code == 0
    assert all(name in ran.out for name in COMMANDS)
    assert "exit codes:" in ran.out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_a_command(desk: Desk, command: str) -> None:
    ran = desk.run(command, "--help")
    assert ran.code == 0
    assert "exit codes:" in ran.out
    assert "--ledger" in ran.out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["report", "--nonsense"], ["rules"]])
def test_usage(desk: Desk, arguments: list[str]) -> None:
    ran = desk.run(*arguments)
    assert ran.code == 2
    assert "usage: costspan" in ran.err


READERS = (
    ("report",),
    ("report", "--unpriced"),
    ("explain", "x"),
    ("rebuild",),
    ("doctor",),
    ("prices", "list", "--ledger-books"),
)


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
def test_readers_never_create_a_ledger(desk: Desk, arguments: tuple[str, ...]) -> None:
    ran = desk.run(*arguments)
    assert ran.code == 3
    assert str(desk.ledger) in ran.out + ran.err
    assert list(desk.folder.iterdir()) == []


def test_options_go_before_the_environment(shop: Desk, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    for arguments in (("--ledger", other, "report"), ("report", "--ledger", other)):
        ran = shop.run(*arguments)
        assert ran.code == 3
        assert str(other) in ran.err


def test_a_setting_nobody_knows(
    shop: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("ledgr = 'x'\n", "utf-8")
    monkeypatch.setenv("COSTSPAN_CONFIG", str(path))
    ran = shop.run("report")
    assert ran.code == 2
    assert "'ledgr'" in ran.err
    assert "Traceback" not in ran.err


def test_a_file_that_is_no_ledger(desk: Desk) -> None:
    desk.ledger.write_bytes(b"not a database, whatever its name says" * 100)
    ran = desk.run("report")
    assert ran.code == 4
    assert "cannot be opened" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--proof", "{}"),
        ("allocate", "2026-11", "--dry-run", "--rule", "{}"),
        ("reconcile", "2026-11", "--rule", "{}"),
        ("ingest", "{}"),
        ("invoices", "import", "{}", "--by", "ann"),
        ("report", "{}"),
        ("report", "--ledger", "{}"),
        ("--config", "{}", "report"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("is_there", [True, False])
def test_the_name_of_a_file_gives_a_terminal_no_commands(
    shop: Desk, arguments: tuple[str, ...], is_there: bool
) -> None:
    path = shop.folder / "evil\x1b[31m\u202e\n.toml"
    if is_there:
        path.write_text("nonsense \x1b[0m", "utf-8")
    ran = shop.run(*(each.format(path) for each in arguments))
    assert ran.code != 0
    said = ran.out + ran.err
    assert "\x1b" not in said
    assert "\u202e" not in said
    if not is_there:
        assert "evil\\x1b[31m\\u202e\\n.toml" in said


def test_a_ledger_whose_pages_are_damaged(shop: Desk) -> None:
    content = bytearray(shop.ledger.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    shop.ledger.write_bytes(content)
    ran = shop.run("report")
    assert ran.code == 4
    assert "the ledger" in ran.err
    assert "Traceback" not in ran.err


def test_a_real_process_prints_json_alone(shop: Desk) -> None:
    ran = _process("report", "--json")
    assert json.loads(ran.stdout)["balanced"] is True
    assert ran.stderr.decode() == f"ledger: sqlite:///{shop.ledger}\n"


def test_standard_input(empty: Desk) -> None:
    line = json.dumps({"attempt_id": "a1", "tenant": "acme", "flat_cost": "0.25"})
    ran = _process("ingest", "-", "--json", stdin=f"{line}\nnonsense\n".encode())
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["settled"]["observations"] == 1


def test_a_reader_that_has_seen_enough(shop: Desk) -> None:
    script = f"{sys.executable} -m costspan prices list | head -1"
    ran = subprocess.run(script, shell=True, capture_output=True, check=False)
    assert ran.stdout.count(b"\n") == 1
    assert ran.stderr == b""


@pytest.mark.parametrize(
    "arguments", [("report",), ("explain", "req-1"), ("doctor",)], ids=" ".join
)
def test_a_terminal_gets_colour_unless_told_not_to(shop: Desk, arguments: tuple[str, ...]) -> None:
    assert "\x1b[" in _on_a_terminal(*arguments)
    assert "\x1b" not in _on_a_terminal(*arguments, NO_COLOR="1")


def test_a_narrow_terminal_cuts_no_amount(shop: Desk) -> None:
    seen = _on_a_terminal("report", "--by", "owner", NO_COLOR="1", COLUMNS="60")
    assert "0.174015000000" in seen
    assert "─" in seen


def test_text_that_a_stream_cannot_encode(empty: Desk) -> None:
    empty.ingest([{"attempt_id": "a1", "tenant": "zürich-水", "flat_cost": "1"}])
    ran = _process("report", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert b"z\\xfcrich-\\u6c34" in ran.stdout


def test_plugins(desk: Desk) -> None:
    found = {each["name"]: each for each in desk.run("plugins", "--json").json["plugins"]}
    assert found["sqlite"]["hooks"] == ["open_ledger"]
    assert found["sqlite"]["distribution"] == "costspan"
    ran = desk.run("plugins")
    assert ran.code == 0
    assert "open_ledger" in ran.out


def test_a_plugin_that_cannot_be_loaded(shop: Desk, tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text("raise RuntimeError('no licence')\n", "utf-8")
    info = tmp_path / "stranger-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[costspan]\nstranger = stranger\n")
    ran = _process("plugins", "--json", PYTHONPATH=str(tmp_path))
    found = {each["name"]: each for each in json.loads(ran.stdout)["plugins"]}
    assert ran.returncode == 1
    assert (found["stranger"]["distribution"], found["stranger"]["version"]) == ("stranger", "1.2")
    assert found["stranger"]["problem"] == "load: RuntimeError: no licence"
    ran = _process("doctor", PYTHONPATH=str(tmp_path))
    assert ran.returncode == 1
    assert b"plugin stranger failed in load: RuntimeError: no licence" in ran.stdout


def test_a_demo_that_has_no_place_fails_before_it_plays(desk: Desk) -> None:
    file = desk.folder / "file"
    file.write_text("", "utf-8")
    for place, said in ((file / "demo.db", f"{file} is no folder"), (desk.folder, "is no file")):
        ran = desk.run("demo", "--ledger", place)
        assert ran.code == 2
        assert said in ran.err
        assert "loading" not in ran.out
