"""How people write the parts of an alias, on the command line and in a manifest."""

import re

SHARE = re.compile(r"([^=]+)(?:=([0-9]{1,3})%?)?")
SHARE_FORM = "a model service and its share in per cent, such as small=90"
CANARY = re.compile(r"([^=:]+)=([^:]+):([^:]+)")
CANARY_FORM = "a header, its value and a model service, such as x-canary=yes:large"


def parse_share(text: str) -> tuple[str, int] | None:
    """Return service and per cent; a service alone has all."""
    match = SHARE.fullmatch(text)
    return None if match is None else (match[1], int(match[2] or 100))


def parse_canary(text: str) -> tuple[str, str, str] | None:
    """Return header, value and service."""
    match = CANARY.fullmatch(text)
    return None if match is None else (match[1], match[2], match[3])
