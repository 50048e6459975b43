"""``python -m bench [--only NAME] [--keep]``: run the benchmarks, print and keep what they find."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from bench.report import Report, keep, render

NAMES = (
    "gateway-vs-envoy",
    "inference-vs-litellm",
    "wake",
    "source-to-live",
    "footprint",
    "autoscaler",
)
"""In the order in which they run; each is a module of this package with a ``run``."""


def find(name: str) -> Callable[[], Coroutine[Any, Any, Report]]:
    """Return the benchmark of that name."""
    return import_module(f"bench.{name.replace('-', '_')}").run


def main() -> int:
    """Run what was asked for; return 1 if one could not be run."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=NAMES, help="run this one")
    parser.add_argument(
        "--keep", action="store_true", help="write the committed summary in bench/results"
    )
    arguments = parser.parse_args()
    failed = False
    for name in [arguments.only] if arguments.only else NAMES:
        print(f"{name}: running", file=sys.stderr, flush=True)
        try:
            report = asyncio.run(find(name)())
        except (RuntimeError, AssertionError, OSError) as error:
            print(f"{name}: could not be run: {error}", file=sys.stderr, flush=True)
            failed = True
            continue
        raw = keep(report, summary=arguments.keep)
        print(render(report), flush=True)
        print(f"  raw: bench/results/raw/{raw.name}\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
