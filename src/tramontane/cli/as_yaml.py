"""Prints documents as YAML; apart from ``output`` because importing PyYAML takes a while."""

from typing import Any

import yaml

# libyaml's writer is five times faster; some builds of PyYAML are without it.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def to_yaml(document: object) -> str:
    """Return the document as YAML, in the order of the API."""
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
