"""The records of the journal and their bytes.

A payload's first byte names its kind: an observation (followed by its sequence number and its
fields as msgpack) or a control record (tagged msgpack).
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec

from costspan.core.clean import observation as clean_observation
from costspan.core.journal.frames import NUMBERED, OBSERVATION
from costspan.core.schema import Observation

_CONTROL = 2


class Opened(msgspec.Struct, frozen=True, tag="opened", omit_defaults=True):
    """The first record of a segment: who writes here.

    `host` is the name of the machine, None if it is not known. Of all that a writer opened a ledger
    keeps who it is: there `opened_at` is 0, and so is a `pid` that is not known.
    """

    writer: str
    pid: int
    opened_at: int
    host: str | None = None


class Refusals(msgspec.Struct, frozen=True, tag="refusals"):
    """How many records this writer had to refuse since it started, by reason (cumulative)."""

    writer: str
    counts: dict[str, int]
    recorded_at: int


class Counts(msgspec.Struct, frozen=True, tag="counts", omit_defaults=True):
    """All that a process counted since it started, by name (cumulative): see `core.counters`.

    `writer` names the process by the first writer it had. The latest record holds them all.
    `host` and `pid` are that process's: its first writer may never have opened a segment.
    """

    writer: str
    counts: dict[str, int]
    recorded_at: int
    host: str | None = None
    pid: int | None = None


class Policy(msgspec.Struct, frozen=True, tag="policy", omit_defaults=True):
    """Which rules and price books decide events that start at `effective_from` (ns UTC) or later.

    `books` are snapshot hashes in order of precedence; `rules` is the hash of the rule set;
    `charges` is that of the charge book, None if there is none.
    """

    rules: str
    books: tuple[str, ...]
    effective_from: int
    by: str
    charges: str | None = None


class SessionOwner(msgspec.Struct, frozen=True, tag="session_owner"):
    """A directory row, set by an operator: this session is this tenant's."""

    session: str
    tenant: str
    by: str
    recorded_at: int


class Assignment(msgspec.Struct, frozen=True, tag="assignment"):
    """This event is this tenant's: an operator says so, above all other evidence.

    `event` is an event's id, an operation or an oid. Of several the latest counts.
    """

    event: str
    tenant: str
    by: str
    reason: str
    recorded_at: int


POLICY_BOOKS = "policy"
"""Among the books of a restatement: here stand those of the policy in force for the event, without
the namesakes of the others."""


class Restatement(msgspec.Struct, frozen=True, tag="restatement", omit_defaults=True):
    """An event, or those of an effective period (YYYY-MM), are decided by other rules or books.

    `event` is an event's id, an operation or an oid; exactly one of `event` and `period` is set.
    `rules`, `books` and `charges` are hashes, as in `Policy` (one of the books may be the mark
    `POLICY_BOOKS`); None is what the policy in force says, so one that names none of them takes
    earlier ones back. Of several the latest counts.
    """

    event: str | None
    period: str | None
    rules: str | None
    books: tuple[str, ...] | None
    by: str
    reason: str
    recorded_at: int
    charges: str | None = None


FreeKind = Literal["adjustment", "credit", "allocation", "invoice_adjust", "capacity"]


class FreeLine(msgspec.Struct, frozen=True, array_like=True):
    """An amount of a free posting, pico-USD, signed; `day` (YYYY-MM-DD) and `model` may be ""."""

    owner: str
    bucket: str
    pool: str | None
    day: str
    model: str
    cost: int
    charge: int


class FreePostings(msgspec.Struct, frozen=True, tag="free_postings"):
    """Amounts that are of no event: see `core.settle.free`, which makes and checks them.

    `id` is content-addressed; `period` (YYYY-MM) is the one they are of; `about` says how they were
    come by, in texts.
    """

    id: str
    kind: FreeKind
    period: str
    lines: tuple[FreeLine, ...]
    about: dict[str, str]
    by: str
    reason: str
    recorded_at: int


class Erasure(msgspec.Struct, frozen=True, tag="erasure"):
    """The person behind this pseudonym was erased from the books."""

    pseudonym: str
    by: str
    reason: str
    recorded_at: int


class Pruned(msgspec.Struct, frozen=True, tag="pruned"):
    """Observations of the sealed months before `before` (YYYY-MM) were moved into an archive."""

    before: str
    file: str
    sha256: str
    observations: int
    by: str
    reason: str
    recorded_at: int


class Close(msgspec.Struct, frozen=True, tag="close"):
    """The books up to and with this period (YYYY-MM, UTC) are sealed.

    `root` is the Merkle root of what the close sealed, `postings` their number. From here on late
    truth is posted in the month after. `previous` is the hash of the checkpoint before, `forced`
    names what stood against it; `signature` (hex) is over the checkpoint, by the key `key_id`.
    """

    period: str
    root: str
    postings: int
    by: str
    reason: str
    recorded_at: int
    previous: str = ""
    forced: tuple[str, ...] = ()
    algorithm: str | None = None
    key_id: str | None = None
    signature: str | None = None


Control = (
    Opened
    | Refusals
    | Counts
    | Policy
    | SessionOwner
    | Assignment
    | Restatement
    | FreePostings
    | Erasure
    | Pruned
    | Close
)
Record = Observation | Control

_encoder = msgspec.msgpack.Encoder()
_decode_observation = msgspec.msgpack.Decoder(Observation).decode
_decode_control = msgspec.msgpack.Decoder(Control).decode
_decode_any = msgspec.msgpack.Decoder().decode


def encode_body(observation: Observation) -> bytes:
    """The fields of an observation as msgpack; `frame_payload` adds the sequence number."""
    return _encoder.encode(observation)


def observation_payload(seq: int, body: bytes) -> bytes:
    """A journal payload of an encoded observation."""
    return NUMBERED.pack(OBSERVATION, seq) + body


def control_payload(record: Control) -> bytes:
    """A journal payload of a control record."""
    return bytes((_CONTROL,)) + _encoder.encode(record)


def decode_body(body: bytes) -> Observation:
    """An observation from its msgpack fields.

    Fields of a newer version, or values that are not valid here, are flagged, not fatal.

    Raises:
        ValueError: if these are no fields at all.
    """
    try:
        return _decode_observation(body)
    except msgspec.ValidationError:
        fields = _decode_any(body)
        if not isinstance(fields, dict):
            raise ValueError(f"an observation that is a {type(fields).__name__}") from None
        return clean_observation(cast("dict[str, Any]", fields))


def decode(payload: bytes, writer: str | None) -> Record:
    """The record in a payload; an observation gets the segment's writer and its own number.

    Raises:
        ValueError: if the payload is no record (its checksum was right: a newer version wrote it).
    """
    if payload[:1] == bytes((OBSERVATION,)):
        if len(payload) < NUMBERED.size:
            raise ValueError("an observation without a sequence number")
        _, seq = NUMBERED.unpack_from(payload)
        observation = decode_body(payload[NUMBERED.size :])
        oid = observation.oid or f"{writer}:{seq}"
        return msgspec.structs.replace(observation, oid=oid, writer=writer, seq=seq)
    if payload[:1] == bytes((_CONTROL,)):
        try:
            control: Control = _decode_control(payload[1:])
            return control
        except msgspec.MsgspecError as error:
            raise ValueError(f"an unknown control record: {error}") from error
    raise ValueError(f"an unknown record kind {payload[:1]!r}")
