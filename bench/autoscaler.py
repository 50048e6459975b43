"""Our autoscaler for models beside three that others use, on the same simulated engines and traces.

Every setting of every policy plays every trace: generated ones with the reported seeds, and public
ones that were put into ``bench/traces``. The ratio is taken at equal cost: late requests of ours
over those of all rivals' settings together at the instance-seconds that ours took.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

from bench.report import Ratio, Report, Side, percentile, render
from bench.scaling.frontier import Point, find_frontier, late_at
from bench.scaling.plots import draw_course, draw_frontiers
from bench.scaling.settings import (
    OBJECTIVE,
    REPORTED_SEEDS,
    TUNING_SEEDS,
    Scenario,
    Setting,
    find_scenarios,
    list_settings,
)
from bench.scaling.simulator import WARM_S, Outcome, Simulation

NAME = "autoscaler"
COURSE = "bursts"
"""The trace whose course is drawn."""
FIXED = "fixed number"
"""Not a policy: shown beside them for orientation."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One setting on one trace, all seeds together."""

    setting: Setting
    late: int
    requests: int
    instance_s: float
    p50_s: float
    p95_s: float
    slow: int
    events: int
    cut: int

    @property
    def late_percent(self) -> float:
        """Requests whose first token came too late or never."""
        return 100 * self.late / max(self.requests, 1)

    @property
    def point(self) -> Point:
        """Where it is in a plane of cost and late requests."""
        return self.instance_s, float(self.late)


async def run(seeds: Sequence[int] = REPORTED_SEEDS) -> Report:
    """Play and report."""
    names = [scenario.name for scenario in find_scenarios()]
    jobs = [(name, seed) for name in names for seed in seeds]
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        played = dict(zip(jobs, pool.map(play, *zip(*jobs, strict=True)), strict=True))
    settings = list_settings()
    scores = {
        name: [
            score(setting, [played[name, seed][number] for seed in seeds])
            for number, setting in enumerate(settings)
        ]
        for name in names
    }
    return make_report(scores, played[COURSE, seeds[0]], settings)


def play(name: str, seed: int) -> list[Outcome]:
    """Play one trace with every setting, in the order of ``list_settings``."""
    scenario = next(each for each in find_scenarios() if each.name == name)
    return [play_once(scenario, seed, setting) for setting in list_settings()]


def play_once(scenario: Scenario, seed: int, setting: Setting) -> Outcome:
    """Play one trace with one setting."""
    simulation = Simulation(scenario.engine, setting.make(scenario.engine), seed)
    trace = scenario.make(seed)
    return simulation.run(trace, OBJECTIVE.first_token_s, OBJECTIVE.between_tokens_s)


def score(setting: Setting, outcomes: Sequence[Outcome]) -> Score:
    """Put the seeds together."""
    return Score(
        setting=setting,
        late=sum(each.violations for each in outcomes),
        requests=sum(each.requests for each in outcomes),
        instance_s=sum(each.instance_s for each in outcomes),
        p50_s=percentile([each.first_token_p50_s for each in outcomes], 0.5),
        p95_s=percentile([each.first_token_p95_s for each in outcomes], 0.5),
        slow=sum(each.slow_streams for each in outcomes),
        events=sum(each.events for each in outcomes),
        cut=sum(each.cut for each in outcomes),
    )


def compare(scores: Sequence[Score], allowance: float = 1.0) -> tuple[float, float]:
    """Return ours over the rivals at the instance-seconds of ours, and the rivals' late requests.

    ``allowance`` lets them have more. One is added on both sides, so that none beside none is a
    draw.
    """
    ours = find_ours(scores)
    frontier = find_frontier(each.point for each in scores if is_rival(each))
    theirs = late_at(frontier, ours.instance_s * allowance)
    return (ours.late + 1) / (theirs + 1), theirs


def find_ours(scores: Sequence[Score]) -> Score:
    """Return ours with its defaults."""
    return next(each for each in scores if each.setting.policy == "ours" and each.setting.default)


def is_rival(each: Score) -> bool:
    """Whether this is somebody else's autoscaler."""
    return each.setting.policy not in {"ours", FIXED}


def find_best(scores: Sequence[Score], policy: str, instance_s: float) -> Score:
    """Return a policy's setting with the fewest late requests at no more than this cost.

    Its cheapest one, if all cost more.
    """
    own = [each for each in scores if each.setting.policy == policy]
    within = [each for each in own if each.instance_s <= instance_s]
    if not within:
        return min(own, key=lambda each: each.instance_s)
    return min(within, key=lambda each: (each.late, each.instance_s))


def make_report(
    scores: Mapping[str, Sequence[Score]], course: Sequence[Outcome], settings: Sequence[Setting]
) -> Report:
    """Put the numbers together."""
    policies = list(dict.fromkeys(setting.policy for setting in settings))
    ratios = {name: compare(found)[0] for name, found in scores.items()}
    total = [
        score_sum([found[number] for found in scores.values()]) for number in range(len(settings))
    ]
    everywhere, theirs = compare(total)
    ours = find_ours(total)
    notes = [
        f"late: first token after more than {OBJECTIVE.first_token_s:g} s, or never; the first "
        f"{WARM_S:.0f} s of each trace are not counted",
        "best: of all settings that cost no more than ours, the one with the fewest late requests "
        "on these very traces; the cheapest, if all cost more",
        f"one setting for all traces: ours {ours.late_percent:.2f} % late with "
        f"{ours.instance_s / 3600:.1f} instance-hours; the rivals' frontier there "
        f"{100 * theirs / ours.requests:.2f} %",
        *(_frontier_note(name, found) for name, found in scores.items()),
    ]
    return Report(
        name=NAME,
        sides=[side for name, found in scores.items() for side in _rows(name, found, policies)],
        ratios=[
            Ratio(
                what="late requests at equal instance-seconds, ours over the best of the rivals, "
                "a round per trace",
                rounds=tuple(ratios.values()),
                goal="≤ 0.5",
            ),
            *(
                Ratio(what=f"{name}, ratio", rounds=(value,), unit="×")
                for name, value in ratios.items()
            ),
            Ratio(
                what="with 5 % more instance-seconds for the rivals, a round per trace",
                rounds=tuple(compare(found, 1.05)[0] for found in scores.values()),
                unit="×",
            ),
            Ratio(what="one setting for all traces", rounds=(everywhere,), unit="×", goal="≤ 0.5"),
        ],
        notes=notes,
        raw={name: [_raw(each) for each in found] for name, found in scores.items()},
        plots={
            "frontiers": draw_frontiers(_panels(scores, policies)),
            "course": _draw_course(scores[COURSE], course, settings),
        },
    )


def score_sum(scores: Sequence[Score]) -> Score:
    """Put traces together, for one setting."""
    return Score(
        setting=scores[0].setting,
        late=sum(each.late for each in scores),
        requests=sum(each.requests for each in scores),
        instance_s=sum(each.instance_s for each in scores),
        p50_s=max(each.p50_s for each in scores),
        p95_s=max(each.p95_s for each in scores),
        slow=sum(each.slow for each in scores),
        events=sum(each.events for each in scores),
        cut=sum(each.cut for each in scores),
    )


def _rows(name: str, scores: Sequence[Score], policies: Sequence[str]) -> list[Side]:
    ours = find_ours(scores)
    rows = [_side(f"{name}: ours", ours, "its default")]
    for policy in policies[1:]:
        rows += [
            _side(f"{name}: {policy}", each, "default")
            for each in scores
            if each.setting.policy == policy and each.setting.default
        ]
        best = find_best(scores, policy, ours.instance_s)
        rows.append(_side(f"{name}: {policy}, best", best, best.setting.words))
    return rows


def _side(name: str, each: Score, words: str) -> Side:
    return Side(
        name=name,
        version=f"tramontane {version('tramontane')}, {words}" if "ours" in name else words,
        values={
            "late %": each.late_percent,
            "first token p50 s": each.p50_s,
            "p95 s": each.p95_s,
            "instance-hours h": each.instance_s / 3600,
            "slow answers %": 100 * each.slow / max(each.requests, 1),
            "changes x": each.events,
            "streams cut x": each.cut,
        },
    )


def _frontier_note(name: str, scores: Sequence[Score]) -> str:
    own = find_frontier(each.point for each in scores if each.setting.policy == "ours")
    rivals = find_frontier(each.point for each in scores if is_rival(each))
    requests = scores[0].requests
    parts = [
        f"{100 * late / requests:.2g} % at {cost / 3600:.1f} h "
        f"(rivals {100 * late_at(rivals, cost) / requests:.2g} %)"
        for cost, late in own
    ]
    return f"frontier of ours, {name}: {'; '.join(parts)}"


def _panels(
    scores: Mapping[str, Sequence[Score]], policies: Sequence[str]
) -> dict[str, dict[str, list[Point]]]:
    return {
        name: {
            policy: [
                (cost / 3600, 100 * late / found[0].requests)
                for cost, late in find_frontier(
                    each.point for each in found if each.setting.policy == policy
                )
            ]
            for policy in reversed(policies)
        }
        for name, found in scores.items()
    }


def _draw_course(
    scores: Sequence[Score], outcomes: Sequence[Outcome], settings: Sequence[Setting]
) -> str:
    ours = find_ours(scores)
    shown = {"ours": ours}
    for policy in dict.fromkeys(each.setting.policy for each in scores if is_rival(each)):
        shown[policy] = find_best(scores, policy, ours.instance_s)
    numbers = {policy: settings.index(each.setting) for policy, each in shown.items()}
    counts = {
        policy: [(at, float(count)) for at, count, _ in outcomes[number].counts]
        for policy, number in reversed(numbers.items())
    }
    demand = [(at, value) for at, _, value in outcomes[numbers["ours"]].counts][::2]
    return draw_course(
        f"Instances on the trace “{COURSE}”, each policy at its best for the cost of ours",
        demand,
        counts,
    )


def _raw(each: Score) -> dict[str, object]:
    return {
        "policy": each.setting.policy,
        "setting": each.setting.words,
        "late": each.late,
        "requests": each.requests,
        "instance_s": round(each.instance_s, 1),
        "p50_s": each.p50_s,
        "p95_s": each.p95_s,
        "slow": each.slow,
        "changes": each.events,
        "cut": each.cut,
    }


def main() -> None:
    """Play the tuning seeds, on which our defaults were chosen, and print."""
    argparse.ArgumentParser(
        prog="python -m bench.autoscaler", description=main.__doc__
    ).parse_args()
    print(render(asyncio.run(run(TUNING_SEEDS))))


if __name__ == "__main__":
    main()
