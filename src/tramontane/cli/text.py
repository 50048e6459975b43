"""Text of a service's making, made safe for a person's terminal."""

import json
import re
from typing import Any

# Everything but colours: a log line must not move the cursor, set the title or clear the screen.
_CONTROL = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


def log_text(text: str, *, raw: bool) -> str:
    """Return a log line without control sequences other than colours; ``raw``: as it is."""
    if raw:
        return text
    return _CONTROL.sub(lambda found: found[0] if len(found[0]) > 1 else "�", text)


def parse_line(document: bytes) -> Any:
    """Return one document of a log stream."""
    return json.loads(document)
