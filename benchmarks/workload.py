"""The attempts that the benchmarks settle: what a gateway's adapter records of a busy day."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

from costspan.core.schema import Observation

DAY_NS = 86_400 * 10**9
START_NS = 1_770_000_000 * 10**9
TENANTS = 500
STEP_NS = 28 * DAY_NS // 10**6


def attempts(
    count: int, *, seed: int = 1, tenants: int = TENANTS, after: int = 0
) -> Iterator[tuple[Observation, Observation]]:
    """(START, END) of `count` attempts, in order of time, a million in four weeks.

    They follow on `after` others.

    Every fifth begins a request of its tenant, every tenth a session; ids are as random as those
    of real hosts (operations and responses), attempt ids in order of time.
    """
    chance = random.Random(seed)
    writer = f"{seed:032x}"
    tenant = session = request = ""
    for number in range(count):
        at = START_NS + (after + number) * STEP_NS
        if number % 5 == 0:
            tenant = f"tenant-{int(tenants * chance.random() ** 2)}"
            request = uuid.UUID(int=chance.getrandbits(128)).hex
            if number % 10 == 0:
                session = uuid.UUID(int=chance.getrandbits(128)).hex
        operation = uuid.UUID(int=chance.getrandbits(128))
        said = {
            "attempt_id": f"{at // 10**6:012x}7{number % 4096:03x}{chance.getrandbits(63):016x}",
            "operation_ids": (f"litellm:{operation}",),
            "source": "litellm",
            "source_version": "1.106.2",
            "layer": "gateway",
            "writer": writer,
            "kind": "model",
            "tenant": tenant,
            "tenant_source": "principal",
            "session": session,
            "session_origin": "ours",
            "request_id": request,
            "provider": "openai",
            "requested_model": ("gpt-4o", "gpt-4o-mini", "o3")[number % 3],
            "started_at": at,
            "recorded_at": at,
        }
        yield (
            _observation(said, phase="start", seq=2 * number + 1),
            _observation(
                said,
                phase="end",
                seq=2 * number + 2,
                executed_model=said["requested_model"],
                response_id=f"openai/chatcmpl-{chance.getrandbits(100):025x}",
                usage={"input": 100 + number % 900, "output": 50 + number % 70, "cache_read": 16},
                usage_source="provider",
                raw_usage={"prompt_tokens": 116, "completion_tokens": 50, "total_tokens": 166},
                provider_result="ok",
                ended_at=at + 10**9,
            ),
        )


def _observation(said: dict[str, object], **more: object) -> Observation:
    fields = {**said, **more}
    return Observation(oid=f"{fields['writer']}:{fields['seq']}", **fields)  # type: ignore[arg-type]
