"""What a usage component is counted in, and so what its rate is a rate of.

A rate is USD per 1,000,000 for tokens and USD per one for everything in `UNIT_COMPONENTS`. The
set is closed: a component it does not name is taken as tokens.
"""

from __future__ import annotations

UNIT_COMPONENTS = frozenset(
    {
        "requests",
        "web_searches",
        "file_searches",
        "map_searches",
        "code_sessions",
        "images",
        "pages",
        "annotated_pages",
        "characters",
        "duration_ms",
    }
)
"""Components priced per one unit: a request, a search, an image, a page, a character, a ms."""

COMPONENTS = UNIT_COMPONENTS | {
    *("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"),
    *("audio_input", "audio_output", "image_input", "image_output", "video_input", "video_output"),
    *("cache_read_audio", "cache_read_image", "cache_write_5m_audio"),
}
"""Every component that has a name of ours. Files may price these, and others in `..._tokens`."""

TOKENS_PER_RATE = 10**6


def is_prompt(component: str) -> bool:
    """Whether the component is part of the prompt, whose total size chooses the context tier.

    Fresh input of any modality, cache reads and cache writes: providers compare their whole
    prompt token count, whatever part of it was cached or heard.
    """
    return component not in UNIT_COMPONENTS and (
        component == "input" or component.startswith("cache_") or component.endswith("_input")
    )
