"""`import costspan` is cheap and pure: no framework, no HTTP client, no database."""

import subprocess
import sys

FOREIGN = (
    "litellm", "langchain_core", "starlette", "requests", "opentelemetry",
    "httpx", "sqlite3", "rich", "pluggy", "socket", "asyncio",
)  # fmt: skip


def test_importing_the_face_loads_no_framework() -> None:
    code = f"import costspan, sys; print(sorted(set({FOREIGN!r}) & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert loaded == "[]"


def test_every_public_name_is_there_with_a_docstring() -> None:
    import costspan

    for name in costspan.__all__:
        assert getattr(costspan, name).__doc__, name
