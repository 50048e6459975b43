"""What is known of the demand for a model: learned look by look, kept as one explicit value.

Three things are learned, each from what was measured and forgotten within minutes: how long a
request stays in its slot (Little's law: running over ended), how long an engine takes to read a
prompt (time to first token on the requests ahead), and how many streams an engine carries before
their pace drops below the objective (time between tokens on running). A fourth is a plain record:
how many requests came, in steps of five seconds over the last hour.

The record answers the question that a model poses and a web service does not: an instance that is
ordered now helps only when it has loaded, so what will be asked for by then? It looks up the times
at which as much was asked for as now, and sees how high demand went within one loading time after
each (a forecast by analogues). A burst that nobody can foresee is thereby prepared for as far as
such bursts have been usual, and a calm service keeps nothing in reserve.

``plan.inference_scaling`` decides on it. Everything here is total: whatever is reported, numbers
come out finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import ceil, exp, isfinite, sqrt

from tramontane.domain.load import EngineLoad

STEP_S = 5.0
RECORD_STEPS = 720
MEMORY_S = 300.0
"""What was measured this long ago counts for a third of what is measured now."""
RATE_S = 60.0
"""The arrival rate is a mean over this time …"""
SURGE_S = 10.0
"""… unless the last ten seconds prove more."""
ANALOGUES_MIN = 8
NEAR = 0.25
"""Demand that differs by less than this share is as much as now."""
START_UNKNOWN_S = 10.0
RESIDENCE_UNKNOWN_S = 8.0
EVIDENCE_MIN = 5.0
"""Requests to have seen before a mean of them is believed."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Least squares of a line, as sums in which older points fade."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def with_point(self, x: float, y: float, kept: float) -> "Line":
        """Return the line with one more point, the others fading to ``kept``."""
        return Line(
            weight=self.weight * kept + 1,
            x=self.x * kept + x,
            y=self.y * kept + y,
            xx=self.xx * kept + x * x,
            xy=self.xy * kept + x * y,
        )

    def where(self, y: float) -> float | None:
        """Return the x at which the line reaches ``y``; None if it is not known to rise."""
        spread = self.weight * self.xx - self.x * self.x
        if self.weight < EVIDENCE_MIN or spread <= 1e-9 * self.weight * self.xx:
            return None
        slope = (self.weight * self.xy - self.x * self.y) / spread
        if slope <= 1e-12:
            return None
        return (y - (self.y - slope * self.x) / self.weight) / slope


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean in which older values fade: a sum over a sum."""

    total: float = 0.0
    count: float = 0.0

    def fading(self, kept: float, total: float, count: float) -> "Mean":
        """Return the mean with more in it, what was there before fading to ``kept``."""
        return Mean(total=self.total * kept + total, count=self.count * kept + count)

    def value(self, unknown: float, evidence: float = EVIDENCE_MIN) -> float:
        """Return the mean, or ``unknown`` while too little was seen."""
        return self.total / self.count if self.count >= evidence else unknown


@dataclass(frozen=True, kw_only=True)
class Learned:
    """All that is remembered from one look to the next."""

    at: float | None = None
    """Time of the report that was learned last."""
    arrived: int = 0
    """Counters as of then."""
    open: int = 0
    residence: Mean = field(default_factory=Mean)
    """Seconds that a request keeps its slot."""
    reading: Mean = field(default_factory=Mean)
    """Seconds that an engine needs for one prompt."""
    prompt_tokens: Mean = field(default_factory=Mean)
    """Of one request."""
    kv_streams: Mean = field(default_factory=Mean)
    """Streams that fit into one instance's KV memory."""
    pace: Line = field(default_factory=Line)
    """Seconds between tokens on running streams."""
    start_s: float | None = None
    """From the order to the first request, as measured last."""
    recent: tuple[tuple[float, int], ...] = ()
    """Times of looks and what came before each, over ``RATE_S``."""
    record: tuple[float, ...] = ()
    """Requests of each step, newest last."""
    step_began_at: float = 0.0
    step_arrivals: float = 0.0
    foreseen_per_s: float = 0.0
    """The forecast, made anew with every step."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is learned from: counters of the gateway, and what engines say."""

    at: float
    arrived: int
    """Requests that ever came."""
    open: int
    """Requests that are open or held."""
    running: int
    """Those of them that have a slot."""
    engines: Sequence[EngineLoad] = ()
    starts_s: Sequence[float] = ()
    """Measured times of recent starts, newest last."""


def learn(known: Learned, report: Report, missed_share: float) -> Learned:
    """Return what is known after one more report; an old or repeated one changes nothing.

    ``missed_share`` of the requests may come while there are too few instances.
    """
    if not isfinite(report.at) or (known.at is not None and report.at <= known.at):
        return known
    start_s = next((each for each in reversed(report.starts_s) if _usable(each)), known.start_s)
    if known.at is None:
        return replace(
            known,
            at=report.at,
            arrived=report.arrived,
            open=report.open,
            start_s=start_s,
            step_began_at=report.at,
        )
    passed_s = report.at - known.at
    kept = exp(-passed_s / MEMORY_S)
    arrivals = max(report.arrived - known.arrived, 0)
    ended = max(arrivals - (report.open - known.open), 0)
    recent = [*known.recent, (report.at, arrivals)]
    known = replace(
        known,
        at=report.at,
        arrived=report.arrived,
        open=report.open,
        start_s=start_s,
        # What ran between two looks far apart is not known from the second one.
        residence=known.residence.fading(
            kept, max(report.running, 0) * min(passed_s, STEP_S), ended
        ),
        recent=tuple(each for each in recent if each[0] > report.at - RATE_S),
    )
    for load in report.engines:
        known = _learn_engine(known, load, kept)
    return _record(known, report.at, arrivals, missed_share)


def rate_per_s(known: Learned) -> float:
    """Return how many requests come per second.

    A mean over a minute, or what the last seconds prove beyond their own chance.
    """
    if known.at is None or not known.recent:
        return 0.0
    long_s = min(RATE_S, max(known.at - known.recent[0][0] + 1.0, SURGE_S))
    long = sum(count for _, count in known.recent) / long_s
    surge = sum(count for at, count in known.recent if at > known.at - SURGE_S) / SURGE_S
    return max(long, surge - 1.65 * sqrt(surge / SURGE_S))


def residence_s(known: Learned) -> float:
    """Return how long a request keeps its slot."""
    return known.residence.value(RESIDENCE_UNKNOWN_S)


def reading_s(known: Learned) -> float:
    """Return how long an engine needs for one prompt; 0 while no engine says."""
    return known.reading.value(0.0)


def start_s(known: Learned) -> float:
    """Return how long an instance takes from the order to its first request."""
    return START_UNKNOWN_S if known.start_s is None else known.start_s


def streams_per_instance(known: Learned, slots: float, between_tokens_s: float) -> float:
    """Return how many streams one instance carries at the pace of the objective, at least one."""
    streams = min(slots, known.kv_streams.value(slots))
    at_pace = known.pace.where(between_tokens_s)
    return max(streams if at_pace is None else min(streams, at_pace), 1.0)


def waiting_requests(known: Learned, engines: Sequence[EngineLoad]) -> float:
    """Return how many usual requests those waiting in engines amount to, by their tokens."""
    usual = known.prompt_tokens.value(0.0)
    return sum(_ahead(load, usual) for load in engines)


def foresee(known: Learned, missed_share: float) -> float:
    """Return the rate to be ready for when an instance ordered now has loaded.

    It is the smallest for which, after times like now, no more than ``missed_share`` of an average
    loading time's requests came while it was exceeded.
    """
    width = max(1, round(min(max(residence_s(known), 2 * STEP_S), 60.0) / STEP_S))
    ahead = max(1, ceil((start_s(known) + STEP_S) / STEP_S))
    sums = [0.0, *accumulate(known.record)]
    steps = len(known.record)
    if steps < width + ahead + ANALOGUES_MIN:
        return 0.0
    rates = [(sums[end] - sums[end - width]) / (width * STEP_S) for end in range(width, steps + 1)]
    now = rates[-1]
    window_s = width * STEP_S
    near = max(NEAR * now, 1.5 * sqrt(max(now, 1 / window_s) / window_s))
    peaks: list[tuple[float, float]] = []
    for index, rate in enumerate(rates[: -ahead - 1]):
        if abs(rate - now) <= near:
            came = sums[index + width + ahead] - sums[index + width]
            peaks.append((max(rates[index + 1 : index + 1 + ahead]), came))
    if len(peaks) < ANALOGUES_MIN:
        return now
    budget = missed_share * sums[-1] / steps * ahead * len(peaks)
    for peak, came in sorted(peaks, reverse=True):
        budget -= came
        if budget < 0:
            return peak
    return 0.0


def _learn_engine(known: Learned, load: EngineLoad, kept: float) -> Learned:
    queued, running = max(load.queued, 0), max(load.running, 0)
    if queued and load.prompt_tokens_waiting > 0:
        tokens = known.prompt_tokens.fading(kept, load.prompt_tokens_waiting, queued)
        known = replace(known, prompt_tokens=tokens)
    waits = [each for each in load.first_token_s if _usable(each)]
    if waits and running < load.slots:
        # Who waits for a slot says nothing about reading.
        ahead = _ahead(load, known.prompt_tokens.value(0.0))
        reading = known.reading.fading(kept, sum(waits), len(waits) * (1 + ahead))
        known = replace(known, reading=reading)
    if running and 0.05 < load.kv_share <= 1.0:
        fitting = known.kv_streams.fading(kept, running, load.kv_share)
        known = replace(known, kv_streams=fitting)
    if running and load.between_tokens_s is not None and _usable(load.between_tokens_s):
        pace = known.pace.with_point(running, load.between_tokens_s, kept)
        known = replace(known, pace=pace)
    return known


def _ahead(load: EngineLoad, usual_tokens: float) -> float:
    queued = max(load.queued, 0)
    if not queued or usual_tokens <= 0 or load.prompt_tokens_waiting <= 0:
        return queued
    return load.prompt_tokens_waiting / usual_tokens


def _record(known: Learned, at: float, arrivals: int, missed_share: float) -> Learned:
    """Close the steps that are over; a pause of the reports fills them evenly."""
    began, came = known.step_began_at, known.step_arrivals + arrivals
    steps = int(min((at - began) / STEP_S, RECORD_STEPS))
    if steps < 1:
        return replace(known, step_arrivals=came)
    record = (*known.record, *([came / steps] * steps))[-RECORD_STEPS:]
    began = at if steps == RECORD_STEPS else began + steps * STEP_S
    known = replace(known, record=record, step_began_at=began, step_arrivals=0.0)
    return replace(known, foreseen_per_s=foresee(known, missed_share))


def _usable(seconds: float) -> bool:
    return isfinite(seconds) and 0.0 <= seconds <= 86400.0
