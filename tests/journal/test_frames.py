"""Frames and records: never a wrong record, whatever happened to the bytes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan.core.journal import records, spool
from costspan.core.journal.frames import (
    MAGIC,
    NAME,
    PAYLOAD_BYTES_MAX,
    VERSION,
    frame,
    observation_frame,
    read_frames,
)
from costspan.core.schema import Observation

OBSERVATION = Observation(
    attempt_id="a", tenant="acme", usage={"input": 7}, labels={"team": "search"}, flags=("f",)
)
OBSERVATION_BODY = records.encode_body(OBSERVATION)
PAYLOADS = [b"y", b"x", b"one payload", bytes(range(40)), b"last"]
WHOLE = MAGIC + b"".join(map(frame, PAYLOADS))


def offsets() -> list[int]:
    """Where each whole prefix ends."""
    ends = [len(MAGIC)]
    for payload in PAYLOADS:
        ends.append(ends[-1] + len(frame(payload)))
    return ends


def test_what_was_written_is_read() -> None:
    assert read_frames(WHOLE) == (PAYLOADS, [])
    assert read_frames(MAGIC) == ([], [])
    assert read_frames(b"") == ([], [])


def test_every_truncation_leaves_the_whole_frames_before_it() -> None:
    ends = offsets()
    for length in range(len(WHOLE)):
        whole = sum(end <= length for end in ends) - 1
        found = read_frames(WHOLE[:length])
        assert found.payloads == PAYLOADS[: max(0, whole)]
        good = ends[whole] if whole >= 0 else 0
        assert found.damaged == ([] if length in (0, *ends) else [(good, length)])


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_loses_its_own_frame_and_no_other(bits: int) -> None:
    payloads = [f"observation {n}".encode() * (n + 1) for n in range(5)]
    whole = MAGIC + b"".join(map(frame, payloads))
    starts = [whole.index(frame(payload)) for payload in payloads]
    for at in range(len(MAGIC), len(whole)):
        broken = bytearray(whole)
        broken[at] ^= bits
        found = read_frames(bytes(broken))
        hit = sum(start <= at for start in starts) - 1
        assert found.payloads == payloads[:hit] + payloads[hit + 1 :]
        assert found.damaged == [(starts[hit], starts[hit] + len(frame(payloads[hit])))]


def test_a_file_of_another_format_is_not_guessed_at() -> None:
    for at in range(len(MAGIC)):
        broken = bytearray(WHOLE)
        broken[at] ^= 0x80
        if at < len(NAME):
            assert read_frames(bytes(broken)) == ([], [(0, len(WHOLE))])
    assert read_frames(NAME + b"\x00" + WHOLE[len(MAGIC) :]) == ([], [(0, len(WHOLE))])


@pytest.mark.parametrize("version", [VERSION + 1, 0xFF])
def test_a_file_of_a_newer_version_is_one_thing_that_is_no_record(version: int) -> None:
    """So it is counted as unreadable, and neither put aside nor removed."""
    newer = NAME + bytes((version,))
    for rest in (b"", b"whatever", WHOLE[len(MAGIC) :]):
        assert read_frames(newer + rest) == ([newer], [])
    with pytest.raises(ValueError, match="unknown record kind"):
        records.decode(newer, "w")


def test_an_observation_in_its_frame() -> None:
    for seq in (1, 255, 2**40):
        for body in (b"", b"x", OBSERVATION_BODY):
            assert observation_frame(seq, body) == frame(records.observation_payload(seq, body))


def test_a_length_that_no_frame_has_is_not_believed() -> None:
    huge = MAGIC + (PAYLOAD_BYTES_MAX + 1).to_bytes(4, "little") + bytes(4 + PAYLOAD_BYTES_MAX + 1)
    assert read_frames(huge) == ([], [(len(MAGIC), len(huge))])


def test_a_torn_segment_gives_its_good_prefix_and_keeps_the_rest(tmp_path: Path) -> None:
    ends = offsets()
    for length in range(1, len(WHOLE)):
        path = tmp_path / f"{length:04d}.seg"
        path.write_bytes(WHOLE[:length])
        whole = sum(end <= length for end in ends) - 1
        for _ in range(2):  # claimed again, it puts nothing aside twice
            with spool.claim(path) as content:
                assert content is not None
                assert content.payloads == PAYLOADS[: max(0, whole)]
                good = ends[whole] if whole >= 0 else 0
                if length in ends:
                    assert content.quarantined == ()
                else:
                    (kept,) = content.quarantined
                    assert kept.read_bytes() == WHOLE[good:length]
    assert len(spool.quarantined(tmp_path)) == len(WHOLE) - 1 - len(set(ends[:-1]))


def test_an_observation_gets_its_name_from_the_segment_and_its_number() -> None:
    payload = records.observation_payload(7, records.encode_body(OBSERVATION))
    assert records.decode(payload, "w") == msgspec.structs.replace(
        OBSERVATION, oid="w:7", writer="w", seq=7
    )


@pytest.mark.parametrize(
    "record",
    [
        records.Opened("w", 1, 2),
        records.Opened("w", 1, 2, "web-1"),
        records.Refusals("w", {"disk:28": 3}, 4),
        records.Policy("r" * 64, ("b" * 64,), 5, "settings"),
        records.Counts("w", {"ladder:held": 3}, 4),
        records.Counts("w", {"ladder:held": 3}, 4, "web-1", 7),
        records.SessionOwner("s", "acme", "ann", 6),
        records.Assignment("e", "acme", "ann", "a mistake", 7),
        records.Close("2026-11", "r" * 64, 12, "ann", "month's end", 8),
    ],
)
def test_a_control_record_comes_back(record: records.Control) -> None:
    assert records.decode(records.control_payload(record), None) == record


def test_a_newer_version_is_flagged_not_fatal() -> None:
    body = msgspec.msgpack.encode(
        {"tenant": "acme", "layer": "quantum", "phase": 3, "brand": "new"}
    )
    found = records.decode(records.observation_payload(1, body), "w")
    assert isinstance(found, Observation)
    assert (found.tenant, found.layer) == ("acme", "sdk")
    assert {"invalid:layer", "invalid:phase", "unknown:brand"} <= set(found.flags)


@settings(max_examples=300)
@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b"\x01" + bytes(8) + b))
def test_bytes_that_are_no_record_are_refused_in_one_way(payload: bytes) -> None:
    """A whole frame of a version nobody knows must not stop the drain."""
    try:
        found = records.decode(payload, "w")
    except ValueError:
        return
    assert isinstance(found, Observation | records.Control)


@pytest.mark.parametrize("body", [b"", b"\x93\x01\x02\x03", b"\x07", b"\xc1", b"\xa1x"])
def test_a_body_of_no_fields_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"observation that is|malformed|truncated"):
        records.decode(records.observation_payload(1, body), "w")
    with pytest.raises(ValueError, match="sequence number"):
        records.decode(b"\x01\x00", "w")


def test_a_stretch_of_zeros_holds_no_frames() -> None:
    """What a power cut leaves of blocks that were given to a file and never written."""
    data = MAGIC + frame(b"whole record") + bytes(100_000)
    found = read_frames(data)
    assert found.payloads == [b"whole record"]
    assert found.damaged == [(len(data) - 100_000, len(data))]
