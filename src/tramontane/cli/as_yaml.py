"""Prints documents as YAML; apart from ``output`` because importing PyYAML takes a while."""

import yaml


def to_yaml(document: object) -> str:
    """Return the document as YAML, in the order of the API."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False)
