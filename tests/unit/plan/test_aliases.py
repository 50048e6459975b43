"""How an alias is shared out, for every alias and every set of models."""

from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.alias import Alias, AliasDefinition, Canary, Share
from tramontane.domain.route import LOTS, AliasRoute, Choice
from tramontane.plan.aliases import plan_alias

NAMES = ("small", "large", "tiny", "other")


def make(definition: AliasDefinition) -> Alias:
    return Alias(project="p", name="a", definition=definition, generation=1, created_at=0.0)


@st.composite
def definitions(draw: st.DrawFn) -> AliasDefinition:
    services = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    cuts = sorted(draw(st.lists(st.integers(1, 99), unique=True, max_size=len(services) - 1)))
    bounds = [0, *cuts, 100]
    targets = tuple(
        Share(service=service, percent=high - low)
        for service, low, high in zip(services, bounds, bounds[1:], strict=False)
    )
    name = st.sampled_from(NAMES)
    canaries = draw(st.lists(name.map(lambda each: Canary(header="h", value=each, service=each))))
    fallbacks = draw(st.lists(name, unique=True))
    return AliasDefinition(targets=targets, canaries=tuple(canaries), fallbacks=tuple(fallbacks))


def serve(route: AliasRoute, lot: int) -> tuple[str, ...] | None:
    """Return the chain of a request with this lot and no header, as the gateway takes it."""
    for choice in route.choices:
        if choice.header is None and lot < choice.lots:
            return choice.chain
    return None


@given(definitions(), st.frozensets(st.sampled_from(NAMES)), st.integers(0, LOTS - 1))
def test_each_request_finds_a_model_if_there_is_one(
    definition: AliasDefinition, models: frozenset[str], lot: int
) -> None:
    chain = serve(plan_alias(make(definition), models), lot)
    usual = {each.service for each in definition.targets} | set(definition.fallbacks)
    assert (chain is None) == (not usual & models)


@given(definitions(), st.frozensets(st.sampled_from(NAMES)))
def test_nobody_is_asked_twice_and_only_models_that_there_are(
    definition: AliasDefinition, models: frozenset[str]
) -> None:
    for choice in plan_alias(make(definition), models).choices:
        assert choice.chain
        assert len(set(choice.chain)) == len(choice.chain)
        assert set(choice.chain) <= models & set(definition.services)
        rest = [each for each in definition.fallbacks if each in models]
        assert list(choice.chain[1:]) == [each for each in rest if each != choice.chain[0]]


@given(definitions())
def test_shares_are_what_was_asked_for(definition: AliasDefinition) -> None:
    route = plan_alias(make(definition), frozenset(NAMES))
    before = 0
    shared = [choice for choice in route.choices if choice.header is None]
    for choice, target in zip(shared, definition.targets, strict=True):
        assert choice.chain[0] == target.service
        assert choice.lots - before == target.percent * LOTS // 100
        before = choice.lots
    assert before == LOTS


@given(definitions(), st.frozensets(st.sampled_from(NAMES)))
def test_what_is_left_takes_over_in_proportion(
    definition: AliasDefinition, models: frozenset[str]
) -> None:
    route = plan_alias(make(definition), models)
    left = [each for each in definition.targets if each.service in models]
    whole, before = sum(each.percent for each in left), 0
    shared = [choice for choice in route.choices if choice.header is None]
    for choice, target in zip(shared if left else [], left, strict=True):
        assert abs((choice.lots - before) / LOTS - target.percent / whole) < 1e-5
        before = choice.lots


def test_fallbacks_serve_when_no_target_is_left() -> None:
    definition = AliasDefinition(
        targets=(Share(service="small", percent=100),), fallbacks=("large", "tiny")
    )
    route = plan_alias(make(definition), {"large", "tiny"})
    assert route.choices == (Choice(chain=("large", "tiny")),)
    assert plan_alias(make(definition), set()).choices == ()
