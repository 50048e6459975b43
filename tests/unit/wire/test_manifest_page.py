"""docs/manifest.md against the form: every key is there, and its examples are read."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from tramontane.wire.manifest import read_manifest
from tramontane.wire.manifest_form import SingleForm

PAGE = (Path(__file__).parents[3] / "docs" / "manifest.md").read_text()


def keys(form: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in form.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_key_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE)) == set(keys(SingleForm))


def test_examples_are_read() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        assert read_manifest(example.encode()).services
