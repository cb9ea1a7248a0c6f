"""Streams that tell their usage."""

from __future__ import annotations

from typing import TypeVar

from langchain_core.language_models import BaseChatModel

M = TypeVar("M", bound=BaseChatModel)


def with_usage(model: M) -> M:
    """A copy of `model` whose streams ask the provider for their usage.

    LangChain's OpenAI models ask for it by themselves only at OpenAI's own address, because some
    servers refuse the option. A model that has no such setting is returned as it is.
    """
    if "stream_usage" not in type(model).model_fields:
        return model
    return model.model_copy(update={"stream_usage": True})
