"""Money: exact, whatever the amounts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.usage import NANO, Price, Usage, format_euros, parse_euros


@given(st.integers(0, 100_000 * NANO))
def test_what_is_written_is_what_is_counted(billionths: int) -> None:
    assert parse_euros(format_euros(billionths)) == billionths


@pytest.mark.parametrize(
    ("text", "billionths"),
    [("0.15", 150_000_000), ("1", NANO), ("0.000000001", 1), ("0.10", 100_000_000), ("0", 0)],
)
def test_amounts(text: str, billionths: int) -> None:
    assert parse_euros(text) == billionths


@pytest.mark.parametrize("text", ["", "a", "-1", "NaN", "Infinity", "0.0000000001", "100001"])
def test_no_amounts(text: str) -> None:
    assert parse_euros(text) is None


def test_cached_tokens_cost_as_the_others_unless_they_have_a_price() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=500_000)
    price = Price(prompt=150, completion=600)
    assert price.cost(usage) == 150 + 300
    assert Price(prompt=150, completion=600, cached=50).cost(usage) == 90 + 20 + 300
    assert Price(prompt=150, completion=600, cached=0).cost(usage) == 90 + 300


def test_the_hour_is_for_time_and_not_for_tokens() -> None:
    assert Price(hour=3600).cost(Usage(prompt_tokens=10**9), share_s=2.5) == 2
