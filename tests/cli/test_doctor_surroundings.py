"""`costspan doctor`: settings, folders and files that cannot be used, and where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk import Desk
from doctor_desk import change_books, findings_of

from costspan.cli.surroundings import mounted_as, of_place


def test_no_ledger(desk: Desk) -> None:
    ran = desk.run("doctor")
    assert ran.code == 3
    assert "there is no ledger at" in ran.out
    assert not desk.ledger.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rules", b"[[owner", "rules.toml"),
        ("rules", b"\xff", "rules.toml"),
        ("prices", b"[[price]]\nmodel = 5", "prices.toml"),
        ("prices", None, "prices.toml"),
    ],
)
def test_settings_that_cannot_be_used(
    empty: Desk, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, said: str
) -> None:
    file = empty.folder / f"{name}.toml"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv(f"COSTSPAN_{name.upper()}", str(file))
    assert empty.run("doctor").code == 1
    found = findings_of(empty)["settings_unusable"]
    assert found["severity"] == "error"
    assert said in found["what"]


def test_a_profile_nobody_knows(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_PROFILE", "nobodys")
    assert "nobodys" in findings_of(empty)["settings_unusable"]["what"]


@pytest.mark.parametrize("below", ["", "deeper/spool"])
def test_a_spool_that_is_no_folder(
    empty: Desk, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    file = empty.folder / "file"
    file.write_text("", "utf-8")
    monkeypatch.setenv("COSTSPAN_SPOOL", str(file / below))
    ran = empty.run("doctor")
    assert ran.code == 1
    assert f"{file} is no folder" in ran.out
    assert "balanced" in empty.run("report").out


def test_a_ledger_that_is_damaged(desk: Desk) -> None:
    desk.ledger.write_bytes(b"SQLite format 3\0" + bytes(5000))
    desk.spool.mkdir()
    (desk.spool / "w.seg").write_bytes(b"costspan\x01")
    ran = desk.run("doctor", "--json")
    assert ran.code == 1
    found = {each["check"]: each for each in ran.json["findings"]}
    assert found["ledger_unusable"]["severity"] == "error"
    assert str(desk.ledger) in found["ledger_unusable"]["what"]
    assert found["undrained"]["count"] == 1


def test_a_page_of_the_ledger_that_is_damaged(shop: Desk) -> None:
    change_books(shop, "UPDATE events SET content = x'c1'")
    ran = shop.run("doctor")
    assert ran.code == 1
    assert "ledger_unusable" in ran.out


MOUNTS = r"""/dev/vda / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
overlay /var/lib/app overlay rw 0 0
server:/x /mnt/my\040share nfs4 rw 0 0
/dev/vdb /run/books ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("/run/ledger.db", "tmpfs", "in memory"),
        ("/var/lib/app/ledger.db", "overlay", "container"),
        ("/mnt/my share/ledger.db", "nfs4", "network"),
        ("/run/books/ledger.db", "ext4", ""),
        ("/running/ledger.db", "ext4", ""),
    ],
)
def test_where_the_ledger_lies(tmp_path: Path, path: str, kind: str, said: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS, "utf-8")
    assert mounted_as(Path(path), mounts) == kind
    findings = list(of_place("ledger", Path(path), mounts))
    assert [said in finding.what for finding in findings] == ([True] if said else [])


def test_a_system_without_a_list_of_mounts(tmp_path: Path) -> None:
    assert mounted_as(tmp_path, tmp_path / "none") is None
