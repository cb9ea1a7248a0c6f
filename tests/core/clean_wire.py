"""What the tests of `clean` share: the way of an observation over the wire."""

from __future__ import annotations

from costspan.core.journal import records
from costspan.core.schema import Observation


def encoded(observation: Observation) -> bytes:
    """The bytes that would be written, proved to be readable again as they were."""
    body = records.encode_body(observation)
    assert records.decode_body(body) == observation
    return body
