"""Files that a released version wrote: every later one reads them, and leaves newer ones alone.

`golden/` holds segments of version 1, as bytes. They are never written anew: a format that reads
them differently is another version.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal import records, spool
from costspan.core.journal.frames import MAGIC, NAME, VERSION, read_frames
from costspan.core.schema import Observation

WRITER = "0123456789abcdef0123456789abcdef"
GOLDEN = Path(__file__).parent / "golden" / f"01700000000000000000-{WRITER}-0.v1.seg"
EXPECTED: list[records.Record] = [
    records.Opened(WRITER, 4242, 1_700_000_000_000_000_000),
    Observation(
        oid=f"{WRITER}:1", writer=WRITER, seq=1, attempt_id="018bcfe568007000800000000000000a",
        operation_ids=("litellm:call-1",), source="costspan", layer="gateway", phase="start",
        kind="model", tenant="acme", tenant_source="context", session="s-1", provider="openai",
        requested_model="gpt-4o", started_at=1_700_000_000_000_000_001, labels={"team": "search"},
    ),
    Observation(
        oid=f"{WRITER}:2", writer=WRITER, seq=2, attempt_id="018bcfe568007000800000000000000a",
        layer="gateway", phase="end", provider="openai", executed_model="gpt-4o-2024-08-06",
        usage={"input": 100, "output": 10, "cache_read": 2**40}, usage_source="provider",
        raw_usage={"prompt_tokens": 100, "nested": {"deep": [1, None, True, "x"]}},
        provider_result="ok", delivery="delivered", flat_cost="0.000000000001",
        ended_at=1_700_000_000_500_000_000, flags=("a", "b"),
    ),
    Observation(oid="elsewhere:7", writer=WRITER, seq=3, tenant="日本 GmbH", name="é"),
    records.Refusals(WRITER, {"disk:28": 3}, 1_700_000_001_000_000_000),
    records.Counts(WRITER, {"ladder:held": 2, "refused:disk:28": 3}, 1_700_000_002_000_000_000),
    records.Policy("r" * 64, ("b" * 64, "c" * 64), 1_700_000_000_000_000_000, "settings"),
    records.SessionOwner("s-1", "acme", "ann", 1_700_000_003_000_000_000),
    records.Assignment("elsewhere:7", "acme", "ann", "theirs", 1_700_000_004_000_000_000),
    records.Close("2023-10", "0" * 64, 12, "ann", "month's end", 1_700_000_005_000_000_000),
]  # fmt: skip


def test_a_segment_of_version_1_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / GOLDEN.name
    shutil.copy(GOLDEN, path)
    with spool.claim(path) as content:
        assert content is not None
        assert content.quarantined == ()
        writer = spool.writer_of(path)
        assert [records.decode(payload, writer) for payload in content.payloads] == EXPECTED


def test_no_flipped_byte_makes_a_wrong_record() -> None:
    """It costs its own record, which is put aside; every other one is as it was."""
    whole = GOLDEN.read_bytes()
    expected = read_frames(whole).payloads
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0x01 if at % 2 else 0x80
        found = read_frames(bytes(broken))
        if at == len(NAME):
            assert found == ([bytes(broken[: len(MAGIC)])], []), "of another version, it says"
            continue
        assert all(payload in expected for payload in found.payloads)
        assert len(found.payloads) == (0 if at < len(MAGIC) else len(expected) - 1)
        ((start, end),) = found.damaged
        assert start <= at < end


@pytest.mark.parametrize("rest", [b"", b"in a way that is not known here"])
def test_a_file_of_a_newer_version_stays_where_it_is(tmp_path: Path, rest: bytes) -> None:
    """Counted, for whoever looks; its writer's own version will drain it."""
    config = Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")
    config.spool.mkdir()
    newer = config.spool / GOLDEN.name
    newer.write_bytes(NAME + bytes((VERSION + 1,)) + rest)
    for _ in range(2):
        done = drain(config)
        assert (done.newer, done.unreadable, done.quarantined) == (1, 0, 0)
        assert done.settled.observations == 0
        assert newer.read_bytes() == NAME + bytes((VERSION + 1,)) + rest
    assert spool.quarantined(config.spool) == []
