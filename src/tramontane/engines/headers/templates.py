"""What a chat template gives away about its model. Pure."""

import re

_TOOLS = re.compile(r"\{[%{][^{}]*\btools\b")


def knows_tools(template: str) -> bool:
    """Return whether a Jinja template looks at the list of tools that a request may carry."""
    return _TOOLS.search(template) is not None
