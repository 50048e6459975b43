"""Residency: unknown never satisfies, and every verdict can be acted on."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plan.world import CELL, GERMANY, START
from tramontane.base.errors import InvalidRequest
from tramontane.domain.cell import EvidenceLevel, Fact
from tramontane.policy.countries import EU
from tramontane.policy.evaluation import evaluate
from tramontane.policy.findings import Verdict
from tramontane.policy.presets import PRESETS, find_presets


def fact(attribute: str, value: str, **changes: object) -> Fact:
    base = Fact(
        attribute=attribute,
        value=value,
        evidence=EvidenceLevel.CLAIM,
        source="test",
        recorded_at=START,
    )
    return replace(base, **changes)


def verdicts(policy: str, *facts: Fact, now: float = START) -> list[Verdict]:
    cell = replace(CELL, facts=facts)
    return [each.verdict for each in evaluate(find_presets([policy]), cell, now)]


def test_a_german_cell_with_a_german_operator_satisfies_eu() -> None:
    assert verdicts("eu", *GERMANY) == [Verdict.SATISFIED, Verdict.SATISFIED]


def test_the_reason_names_the_fact_and_who_says_so() -> None:
    location = evaluate(find_presets(["eu"]), replace(CELL, facts=GERMANY), START)[0]
    assert location.rule == "eu.location"
    assert location.reason == "the country of cell local is DE (E0: test)"


def test_an_unknown_location_is_unknown_and_says_how_to_state_it() -> None:
    finding = evaluate(find_presets(["eu"]), replace(CELL, facts=()), START)[0]
    assert finding.verdict is Verdict.UNKNOWN
    assert "tram up --country" in finding.reason


def test_an_expired_fact_no_longer_satisfies() -> None:
    expired = [replace(each, valid_until=START) for each in GERMANY]
    assert verdicts("eu", *expired, now=START) == [Verdict.UNKNOWN, Verdict.UNKNOWN]


def test_a_second_more_convenient_claim_outweighs_nothing() -> None:
    assert Verdict.VIOLATED in verdicts("eu", *GERMANY, fact("country", "US"))


@given(country=st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=2))
def test_eu_is_satisfied_by_member_states_alone(country: str) -> None:
    facts = (fact("country", country), fact("operator_country", country))
    satisfied = set(verdicts("eu", *facts)) == {Verdict.SATISFIED}
    assert satisfied == (country in EU)


@given(
    policy=st.lists(st.sampled_from(sorted(PRESETS)), max_size=4),
    more=st.lists(st.sampled_from(sorted(PRESETS)), max_size=2),
    country=st.sampled_from(["DE", "FR", "CH", "US", "NO", None]),
)
def test_adding_a_preset_never_widens_the_choice(
    policy: list[str], more: list[str], country: str | None
) -> None:
    facts = () if country is None else (fact("country", country), fact("operator_country", "DE"))
    cell = replace(CELL, facts=facts)

    def allowed(names: list[str]) -> bool:
        found = evaluate(find_presets(names), cell, START)
        return all(each.verdict is Verdict.SATISFIED for each in found)

    assert allowed(policy) or not allowed([*policy, *more])


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InvalidRequest) as caught:
        find_presets(["eu", "country-dee"])
    assert caught.value.path == "policy[1]"
    assert "country-de" in caught.value.message
