"""What Prometheus is shown of the platform: from counts in the store, never from the ledger itself.

``model`` is the name of the service that answered. What clients write in their requests is no
label: at a model's own address they may write anything, and each text would be a series for ever.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tramontane.domain.usage import format_euros
from tramontane.domain.usage_totals import Histogram, UsageTotals
from tramontane.store.counts import StatusCount
from tramontane.wire.exposition import Family, Labels, Sample, histogram_samples

Totals = Mapping[tuple[str, str], UsageTotals]
"""By project and service."""


def make_families(
    version: str,
    totals: Totals,
    services: Iterable[StatusCount],
    instances: Iterable[StatusCount],
) -> list[Family]:
    """Return everything that is shown."""
    return [
        _family("tramontane_build_info", "gauge", "The version of Tramontane.", [_build(version)]),
        _family("tramontane_services", "gauge", "Services by status.", map(_status, services)),
        _family(
            "tramontane_instances", "gauge", "Live instances by status.", map(_status, instances)
        ),
        *_count_families(totals),
        *_histogram_families(totals),
    ]


def _count_families(totals: Totals) -> Iterator[Family]:
    yield _family(
        "tramontane_requests_total",
        "counter",
        "Requests that reached a model: finished, refused by it, aborted by the client, or cut.",
        (sample for each in totals.items() for sample in _ends(*each)),
    )
    numbers: Sequence[tuple[str, str, Callable[[UsageTotals], str]]] = (
        (
            "prompt_tokens",
            "Tokens of prompts, those from the engine's cache included.",
            lambda each: str(int(each.prompt_tokens.total)),
        ),
        (
            "cached_tokens",
            "Tokens of prompts that were taken from the engine's cache.",
            lambda each: str(each.cached_tokens),
        ),
        (
            "completion_tokens",
            "Tokens of answers.",
            lambda each: str(int(each.completion_tokens.total)),
        ),
        ("cost_euros", "What requests cost.", lambda each: format_euros(each.cost)),
    )
    for name, text, read in numbers:
        samples = [("", _labels(key), read(each)) for key, each in totals.items()]
        yield _family(f"tramontane_{name}_total", "counter", text, samples)


def _histogram_families(totals: Totals) -> Iterator[Family]:
    def samples(
        read: Callable[[UsageTotals], Histogram], more: Labels | None = None
    ) -> Iterator[Sample]:
        for key, each in totals.items():
            found = read(each)
            labels = {**_labels(key), **(more or {})}
            yield from histogram_samples(labels, found.bounds, found.counts, found.total)

    yield _family(
        "tramontane_time_to_first_token_seconds",
        "histogram",
        "From a request's arrival at its instance to the first token of its answer.",
        samples(lambda each: each.first_token_s),
    )
    yield _family(
        "tramontane_request_duration_seconds",
        "histogram",
        "From a request's arrival at its instance to its end.",
        samples(lambda each: each.duration_s),
    )
    yield _family(
        "tramontane_request_tokens",
        "histogram",
        "Tokens of a request: input is the prompt, output the answer.",
        [
            *samples(lambda each: each.prompt_tokens, {"type": "input"}),
            *samples(lambda each: each.completion_tokens, {"type": "output"}),
        ],
    )


def _ends(key: tuple[str, str], totals: UsageTotals) -> Iterator[Sample]:
    for each, number in sorted(totals.ends.items()):
        end, _, status = each.partition("/")
        yield "", {**_labels(key), "end": end, "code": status}, str(number)


def _labels(key: tuple[str, str]) -> Labels:
    project, service = key
    return {"project": project, "model": service}


def _status(count: StatusCount) -> Sample:
    labels = {"project": count.project, "kind": count.kind, "status": count.status}
    return "", labels, str(count.number)


def _build(version: str) -> Sample:
    return "", {"version": version}, "1"


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Family:
    return Family(name=name, kind=kind, help=text, samples=list(samples))
