"""Prometheus' text format, version 0.0.4, written by hand: it is a few rules, held by a parser in
the tests. ``api.metrics`` says what is shown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Sample = tuple[str, Labels, str]
"""What follows the family's name, labels, and the number as it is written."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric with all its samples."""

    name: str
    kind: str
    """``counter``, ``gauge`` or ``histogram``."""
    help: str
    samples: Sequence[Sample]


def histogram_samples(
    labels: Labels, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Iterator[Sample]:
    """Yield the samples of one histogram; ``counts`` are by bound, and beyond the last one."""
    running = list(accumulate(counts))
    for bound, count in zip((*map(_number, bounds), "+Inf"), running, strict=True):
        yield "_bucket", {**labels, "le": bound}, str(count)
    yield "_sum", labels, _number(total)
    yield "_count", labels, str(running[-1])


def expose(families: Iterable[Family]) -> str:
    """Return the page; a family without samples is left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {_escaped(family.help)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines.extend(_line(family.name, each) for each in family.samples)
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, sample: Sample) -> str:
    suffix, labels, number = sample
    if not labels:
        return f"{name}{suffix} {number}"
    shown = ",".join(f'{key}="{_quoted(value)}"' for key, value in labels.items())
    return f"{name}{suffix}{{{shown}}} {number}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
