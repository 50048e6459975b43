"""Keeps the gateway's logs from filling the disk: Envoy writes and never looks back."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

BYTES_MAX = 64 * 1024**2
KEPT = 3
"""Older files of each log, as ``access.log.1`` and so on; the highest number is the oldest."""
PERIOD_S = 30.0


def rotate(log: Path, bytes_max: int = BYTES_MAX, kept: int = KEPT) -> bool:
    """Move a log that has grown past ``bytes_max`` aside; True if the writer must open it anew."""
    try:
        if log.stat().st_size < bytes_max:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept, 0, -1):
        older = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    return True


async def keep_rotating(logs: Sequence[Path], reopen: Callable[[], Awaitable[None]]) -> None:
    """Rotate until cancelled; ``reopen`` tells the writer that its files were moved."""
    while True:
        await asyncio.sleep(PERIOD_S)
        moved = [rotate(log) for log in logs]
        if any(moved):
            await reopen()
