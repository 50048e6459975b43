"""Totals and their histograms: nothing is lost between two bounds."""

from hypothesis import given
from hypothesis import strategies as st

from tests.usage_records import make_record
from tramontane.domain.usage import RequestEnd, Usage
from tramontane.domain.usage_totals import DURATION_S, TOKENS, UsageTotals, make_histogram


def test_bounds_are_those_of_the_conventions() -> None:
    assert DURATION_S[0] == 0.01
    assert DURATION_S[-1] == 81.92
    assert (TOKENS[0], TOKENS[-1], len(TOKENS)) == (1, 67_108_864, 14)


@given(st.lists(st.floats(0, 200)))
def test_a_value_is_below_its_bound_and_above_the_one_before(values: list[float]) -> None:
    histogram = make_histogram(DURATION_S)
    for each in values:
        histogram.add(each)
    for i, bound in enumerate(DURATION_S):
        assert sum(histogram.counts[: i + 1]) == sum(each <= bound for each in values)
    assert sum(histogram.counts) == len(values)


def test_records_are_counted_by_end_and_status() -> None:
    totals = UsageTotals()
    totals.add([make_record(1), make_record(2, first_token_s=None)])
    totals.add([make_record(3, end=RequestEnd.CUT, status=0, usage=Usage(), cost=0)])
    assert totals.ends == {"finished/200": 2, "cut/0": 1}
    assert (totals.prompt_tokens.total, totals.cached_tokens, totals.cost) == (200, 80, 246_912)
    assert (sum(totals.first_token_s.counts), totals.first_token_s.total) == (2, 0.5)
    assert totals.completion_tokens.counts[0] == 1, "none is counted too"
