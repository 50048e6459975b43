"""The simulator that policies of scaling are compared in: engines, traces, rivals, frontiers."""

from pathlib import Path

import pytest
from bench.scaling.engine import Engine, Instance, Request
from bench.scaling.frontier import find_frontier, late_at
from bench.scaling.ours import Ours
from bench.scaling.plots import draw_frontiers
from bench.scaling.rivals import Averaging, Keda, KnativePodAutoscaler
from bench.scaling.settings import CPU, GPU, OBJECTIVE, Fixed, find_scenarios, list_settings
from bench.scaling.simulator import Orders, Policy, Simulation, View
from bench.scaling.traces import CHAT, generate, poisson, read

ENGINE = Engine(
    name="round numbers",
    step_s=0.1,
    per_stream_s=0.0,
    prompt_tokens_per_s=1000,
    chunk_tokens=100,
    slots=2,
    kv_tokens=10_000,
    load_s=10,
)


def request(at: float = 0.0, prompt: int = 1000, generated: int = 11) -> Request:
    return Request(at=at, prompt_tokens=prompt, generated_tokens=generated)


def run_alone(instance: Instance) -> None:
    while (at := instance.next_event_at()) < float("inf"):
        instance.advance(at)
        instance.settle()


def test_a_lone_request_takes_its_steps() -> None:
    instance = Instance(name="i", engine=ENGINE, ordered_at=0, ready_at=0)
    one = request()
    instance.take(one)
    run_alone(instance)
    # Ten chunks, each a step of 0.1 s and 0.1 s for its tokens; then ten more tokens.
    assert one.first_token_at == pytest.approx(2.0)
    assert one.ended_at == pytest.approx(3.0)
    assert (instance.open, instance.kv_used, instance.waiting_tokens) == (0, 0, 0)


def test_the_third_of_two_slots_waits_and_prompts_slow_streams_down() -> None:
    instance = Instance(name="i", engine=ENGINE, ordered_at=0, ready_at=0)
    requests = [request() for _ in range(3)]
    for each in requests:
        instance.take(each)
    run_alone(instance)
    first = [each.first_token_at for each in requests]
    # The first one's ten tokens take twice as long beside the second one's prompt.
    assert first[:2] == pytest.approx([2.0, 4.0])
    assert requests[0].ended_at == pytest.approx(4.0)
    assert first[2] == pytest.approx(6.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ours(OBJECTIVE),
        lambda: KnativePodAutoscaler(target=8),
        lambda: Keda(threshold=8, running_too=True),
        lambda: Averaging(target=8),
    ],
)
def test_every_request_ends_or_is_cut_and_ours_cuts_none(make: type[Policy]) -> None:
    trace = generate(poisson(1.5), CHAT, 5)[:2000]
    outcome = Simulation(GPU, make(), 5).run(trace, 2.0, 0.2)
    assert all((each.ended_at is None) == each.cut for each in trace)
    assert outcome.cut == sum(each.cut for each in trace)
    if isinstance(make(), Ours):
        assert outcome.cut == 0
    assert outcome.instance_s > 0


class Hasty:
    """Takes its first instance away while it answers."""

    name = "hasty"
    grace_s = float("inf")

    def decide(self, view: View) -> Orders:
        first = [each.name for each in view.instances if view.now == 30]
        return Orders(instances=1, retire=first, remove=first)


def test_whoever_removes_an_instance_that_answers_has_cut_it() -> None:
    trace = [request(at=0.0, generated=500), request(at=0.0, generated=50)]
    outcome = Simulation(ENGINE, Hasty(), 1).run(trace, 2.0, 0.2)
    assert outcome.cut == 1
    assert [each.cut for each in trace] == [True, False]


def test_a_run_is_repeated_to_the_last_digit() -> None:
    outcomes = [
        Simulation(CPU, Ours(OBJECTIVE), 3).run(generate(poisson(0.4), CHAT, 3)[:300], 2.0, 0.2)
        for _ in range(2)
    ]
    assert outcomes[0] == outcomes[1]


def view(now: float, *, in_progress: float, ready: int, held: int = 0) -> View:
    instances = [
        Instance(name=f"i{n}", engine=ENGINE, ordered_at=0, ready_at=0) for n in range(ready)
    ]
    return View(
        now=now, engine=ENGINE, instances=instances, held=held, arrivals=1, in_progress=in_progress
    )


def wanted(orders: Orders | None) -> int | None:
    return None if orders is None else orders.instances


def test_knative_panics_on_its_short_window_and_stays_for_the_long_one() -> None:
    policy = KnativePodAutoscaler(target=10)
    for second in range(60):
        policy.decide(view(second, in_progress=8, ready=1))
    grown = [wanted(policy.decide(view(60 + s, in_progress=50, ready=1))) for s in range(6)]
    # The six seconds hold 1, 3 and 5 of the busy ones: means of 15, 29 and 43.
    assert [each for each in grown if each is not None] == [2, 3, 5]
    later = [wanted(policy.decide(view(66 + s, in_progress=1, ready=5))) for s in range(90)]
    assert later[56] == 5
    assert later[88] == 2  # at most halved at a look


def test_knative_goes_to_zero_after_its_window_and_grace() -> None:
    policy = KnativePodAutoscaler(target=10)
    policy.decide(view(0, in_progress=5, ready=1))
    seen = [wanted(policy.decide(view(s, in_progress=0, ready=1))) for s in range(1, 120)]
    assert seen.index(0) + 1 == 90


def test_keda_looks_at_what_waits_and_forgets_its_highest_wish_after_five_minutes() -> None:
    policy = Keda()
    assert wanted(policy.decide(view(15, in_progress=30, ready=1, held=12))) == 3
    down = {s: wanted(policy.decide(view(s, in_progress=30, ready=3))) for s in range(16, 400)}
    assert down[300] == 3
    assert down[315] == 1  # although thirty requests are being answered


def test_averaging_holds_still_for_a_minute_after_a_change() -> None:
    policy = Averaging(target=10)
    up = {s: wanted(policy.decide(view(s, in_progress=25, ready=1))) for s in range(1, 80)}
    assert {s: each for s, each in up.items() if each} == {15: 3, 75: 3}


def test_a_frontier_is_the_lower_hull() -> None:
    points = [(1.0, 100.0), (2.0, 60.0), (2.0, 90.0), (3.0, 10.0), (4.0, 20.0), (5.0, 0.0)]
    frontier = find_frontier(points)
    assert frontier == [(1.0, 100.0), (3.0, 10.0), (5.0, 0.0)]
    assert late_at(frontier, 2.0) == 55.0
    assert late_at(frontier, 0.5) == 100.0
    assert late_at(frontier, 9.0) == 0.0


def test_public_traces_are_read_as_they_are_published(tmp_path: Path) -> None:
    burst = tmp_path / "BurstGPT_1.csv"
    burst.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,230,1317,Conversation log\n"
        "118,GPT-4,417,0,417,Conversation log\n"
    )
    azure = tmp_path / "AzureLLMInferenceTrace_conv.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
    )
    assert [(each.at, each.prompt_tokens, each.generated_tokens) for each in read(burst)] == [
        (0.0, 472, 18),
        (40.0, 1087, 230),
    ]
    assert [each.at for each in read(azure)] == pytest.approx([0.0, 4.314579])
    assert [each.at for each in read(azure, rate=0.1)] == pytest.approx([0.0, 10.0])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="neither BurstGPT nor Azure"):
        read(tmp_path / "other.csv")


def test_every_generated_request_is_in_time_on_an_engine_that_does_nothing_else() -> None:
    for scenario in find_scenarios():
        longest = max(scenario.make(1), key=lambda each: each.prompt_tokens)
        instance = Instance(name="i", engine=scenario.engine, ordered_at=0, ready_at=longest.at)
        instance.now = longest.at
        instance.take(longest)
        run_alone(instance)
        assert longest.first_token_at is not None
        assert longest.first_token_at - longest.at < OBJECTIVE.first_token_s


def test_settings_are_told_apart_and_each_policy_has_its_default() -> None:
    settings = list_settings()
    assert len({(each.policy, each.words) for each in settings}) == len(settings)
    policies = {each.policy for each in settings}
    assert {each.policy for each in settings if each.default} == policies - {Fixed(1).name}


def test_a_plot_has_a_panel_per_trace() -> None:
    svg = draw_frontiers({"a & b": {"ours": [(1.0, 5.0), (2.0, 0.0)]}})
    assert svg.count("<polyline") == 1
    assert "a &amp; b" in svg
