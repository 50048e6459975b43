"""From the ledger to what the API answers about it; called by ``api.handlers.usage``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tramontane.domain.usage import Usage, UsageRecord, format_euros
from tramontane.store.usage import UsageSum
from tramontane.wire.inference_schemas import UsageRecordView, UsageSumView


@dataclass(frozen=True, kw_only=True)
class Names:
    """What ids in the ledger stand for; those that are gone are shown as they are."""

    cells: Mapping[str, str]
    keys: Mapping[str, str]


def add_up(sums: Sequence[UsageSum]) -> UsageSum:
    """Return the sum of sums."""
    first_tokens = sum(each.first_tokens for each in sums)
    first_s = sum((each.first_token_s or 0.0) * each.first_tokens for each in sums)
    return UsageSum(
        group={},
        requests=sum(each.requests for each in sums),
        usage=Usage(
            prompt_tokens=sum(each.usage.prompt_tokens for each in sums),
            completion_tokens=sum(each.usage.completion_tokens for each in sums),
            cached_tokens=sum(each.usage.cached_tokens for each in sums),
        ),
        cost=sum(each.cost for each in sums),
        first_tokens=first_tokens,
        first_token_s=first_s / first_tokens if first_tokens else None,
        not_finished=sum(each.not_finished for each in sums),
    )


def sum_view(found: UsageSum, names: Names) -> UsageSumView:
    """Return a sum."""
    group = dict(found.group)
    if "cell" in group:
        group["cell"] = names.cells.get(group["cell"], group["cell"])
    return UsageSumView(
        group=group,
        key_name=names.keys.get(group.get("key", "")),
        requests=found.requests,
        not_finished=found.not_finished,
        prompt_tokens=found.usage.prompt_tokens,
        cached_tokens=found.usage.cached_tokens,
        completion_tokens=found.usage.completion_tokens,
        cost_eur=format_euros(found.cost),
        first_token_s=found.first_token_s,
    )


def record_view(record: UsageRecord, names: Names) -> UsageRecordView:
    """Return one request."""
    return UsageRecordView(
        at=record.at,
        request_id=record.request_id,
        project=record.project,
        service=record.service,
        model=record.model,
        digest=record.digest,
        key=record.key,
        key_name=names.keys.get(record.key),
        api=record.api,
        cell=names.cells.get(record.cell, record.cell),
        instance=record.instance,
        status=record.status,
        end=record.end.value,
        prompt_tokens=record.usage.prompt_tokens,
        cached_tokens=record.usage.cached_tokens,
        completion_tokens=record.usage.completion_tokens,
        first_token_s=record.first_token_s,
        duration_s=record.duration_s,
        cost_eur=format_euros(record.cost),
    )
