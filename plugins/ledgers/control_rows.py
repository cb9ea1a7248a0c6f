"""A control record as the bytes of its row, and back."""

from __future__ import annotations

import msgspec

from costspan.core.journal.records import (
    Assignment,
    Close,
    Erasure,
    FreePostings,
    Policy,
    Pruned,
    Restatement,
    SessionOwner,
)

Kept = Policy | SessionOwner | Assignment | Restatement | FreePostings | Erasure | Pruned | Close
"""The control records that are kept one by one."""
encode_control = msgspec.msgpack.Encoder().encode
"""The bytes of a control record's row."""
decode_control = msgspec.msgpack.Decoder(Kept).decode
"""A control record from the bytes of its row."""
