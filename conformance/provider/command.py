"""The provider as a program."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

from costspan.conformance.provider.prices import DEFAULT_ALIASES, DEFAULT_PRICES
from costspan.conformance.provider.server import LoopbackProvider


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; prints the base URL as the first line.

    Returns:
        0 after a clean stop, 2 when the prices cannot be read or the port is taken.
    """
    arguments = _parser().parse_args(argv)
    try:
        prices, aliases = _read_prices(arguments.prices, arguments.book)
        provider = LoopbackProvider(
            prices=prices, aliases=aliases, host=arguments.host, port=arguments.port
        ).start()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        print(f"the loopback provider cannot start: {error}", file=sys.stderr)
        return 2
    stop = Event()

    def end(signal_number: int, frame: FrameType | None) -> None:
        del signal_number, frame
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print(provider.base_url, flush=True)
    stop.wait()
    provider.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m costspan.conformance.provider",
        description="A provider with OpenAI's and Anthropic's wire on loopback that fails on "
        "command, knows what every request really cost (GET /__truth), and writes its own invoice.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help='JSON: {model: {component: "USD per 1M tokens"}}, or a file with price_books '
        "and aliases",
    )
    parser.add_argument("--book", default="v1", help="which of the price_books (default: v1)")
    return parser


def _read_prices(path: Path | None, book: str) -> tuple[dict[str, Any], dict[str, str]]:
    if path is None:
        return dict(DEFAULT_PRICES), dict(DEFAULT_ALIASES)
    given = json.loads(path.read_text(encoding="utf-8"))
    if "price_books" in given:
        return given["price_books"][book], given.get("aliases", {})
    return given, {}
