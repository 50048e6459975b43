"""Plays a trace through engines that a policy starts and stops, and counts what that cost.

Every policy gets the same router (the instance with the fewest open requests; what was sent stays),
the same gateway (it holds requests while no instance is up), the same loading times and the same
look at it all once a second, newest values and no delay. What differs is when a policy looks, what
it takes from it, and what becomes of an instance that it no longer wants.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Protocol

from bench.report import percentile
from bench.scaling.engine import Engine, Instance, Request

LOOK_S = 1.0
INSTANCES_MAX = 12
WARM_S = 900.0
"""Neither requests nor instances of this beginning count: every policy starts from nothing."""
LOAD_SPREAD = 0.2
"""Loading times vary uniformly by this share."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What a policy may look at."""

    now: float
    engine: Engine
    instances: Sequence[Instance]
    """All that exist: loading, serving, retiring; oldest first."""
    held: int
    """Requests held at the gateway."""
    arrivals: int
    """Requests that came since the last look."""
    in_progress: float
    """Requests open or held, as a mean since the last look."""

    @property
    def ready(self) -> int:
        """Instances that take requests."""
        return sum(each.ready_at <= self.now and not each.retiring for each in self.instances)

    @property
    def kept(self) -> int:
        """Instances that take requests or will."""
        return sum(not each.retiring for each in self.instances)

    @property
    def waiting(self) -> int:
        """Requests without a slot, at the gateway or in engines."""
        return self.held + sum(len(each.waiting) for each in self.instances)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What to do. Names are those of instances.

    With ``retire`` None it is left to the runtime, which lets the newest end their requests within
    the grace and takes them away. Else nothing is taken away but what is named in ``remove``, and
    that with all that it has.
    """

    instances: int
    retire: Sequence[str] | None = None
    recall: Sequence[str] = ()
    remove: Sequence[str] = ()


class Policy(Protocol):
    """A policy of scaling. One object lives for one trace."""

    name: str
    grace_s: float
    """How long requests may run on in an instance that is not wanted; then they are cut."""

    def decide(self, view: View) -> Orders | None:
        """Say what to do; None leaves all as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a policy did to a trace."""

    requests: int
    violations: int
    """First tokens later than the objective, or never."""
    slow_streams: int
    """Answers whose mean time between tokens was over the objective."""
    first_token_p50_s: float
    first_token_p95_s: float
    instance_s: float
    events: int
    """Times that the wanted number changed."""
    cut: int
    counts: tuple[tuple[float, int, float], ...] = ()
    """Time, instances and requests in progress, every ten seconds."""


@dataclass
class Simulation:
    """One run; use once."""

    engine: Engine
    policy: Policy
    seed: int
    instances: list[Instance] = field(default_factory=list[Instance])
    held: deque[Request] = field(default_factory=deque[Request])
    now: float = 0.0
    instance_s: float = 0.0
    events: int = 0
    cut: int = 0
    _wanted: int = 0
    _queue: list[tuple[float, int, Instance]] = field(
        default_factory=list[tuple[float, int, Instance]]
    )
    _versions: dict[str, int] = field(default_factory=dict[str, int])
    _serial: int = 0
    _arrivals: int = 0
    _in_progress: int = 0
    _area: float = 0.0
    _area_at: float = 0.0

    def __post_init__(self) -> None:
        self._random = Random(f"loads {self.seed}")

    def run(self, trace: Sequence[Request], first_token_s: float, between_s: float) -> Outcome:
        """Play the trace to the end of its last request."""
        counts: list[tuple[float, int, float]] = []
        arrivals = iter(trace)
        coming = next(arrivals, None)
        look_at, left = LOOK_S, len(trace)
        ended_by = trace[-1].at + 1800.0 if trace else 0.0
        while left > 0 and self.now < ended_by:
            event_at = self._queue[0][0] if self._queue else inf
            arrival_at = coming.at if coming else inf
            self.now = min(event_at, arrival_at, look_at)
            if event_at <= self.now:
                left -= self._step()
            elif coming is not None and arrival_at <= self.now:
                self._arrive(coming)
                coming = next(arrivals, None)
            else:
                left -= self._look()
                if round(self.now) % 10 == 0:
                    counts.append((self.now, len(self.instances), self._in_progress))
                look_at = self.now + LOOK_S
        for each in self.instances:
            self._pay(each)
        return self._outcome(
            [each for each in trace if each.at >= WARM_S], first_token_s, between_s, counts
        )

    def _count(self, change: int) -> None:
        self._area += self._in_progress * (self.now - self._area_at)
        self._area_at = self.now
        self._in_progress += change

    def _arrive(self, request: Request) -> None:
        self._count(1)
        self._arrivals += 1
        if not self._send(request):
            self.held.append(request)

    def _send(self, request: Request) -> bool:
        best, fewest = None, inf
        for each in self.instances:
            if not each.retiring and each.ready_at <= self.now and each.open < fewest:
                best, fewest = each, each.open
        if best is None:
            return False
        best.advance(self.now)
        best.take(request)
        self._plan(best)
        return True

    def _plan(self, instance: Instance) -> None:
        self._serial += 1
        self._versions[instance.name] = self._serial
        at = min(instance.next_event_at(), instance.kill_at)
        if instance.ready_at > self.now:
            at = instance.ready_at
        if at < inf:
            heappush(self._queue, (at, self._serial, instance))

    def _step(self) -> int:
        """Let one instance do what is due; return how many requests came to their end."""
        _, serial, instance = heappop(self._queue)
        if self._versions.get(instance.name) != serial:
            return 0
        before = instance.open
        instance.advance(self.now)
        instance.settle()
        ended = before - instance.open
        self._count(-ended)
        is_over = instance.kill_at <= self.now
        if is_over or (instance.retiring and not instance.open and instance.kill_at < inf):
            return ended + self._remove(instance)
        self._plan(instance)
        while self.held and self._send(self.held[0]):
            self.held.popleft()
        return ended

    def _remove(self, instance: Instance) -> int:
        lost = instance.cut()
        self.cut += lost
        self._count(-lost)
        self.instances.remove(instance)
        del self._versions[instance.name]
        self._pay(instance)
        return lost

    def _pay(self, instance: Instance) -> None:
        self.instance_s += max(self.now - max(instance.ordered_at, WARM_S), 0.0)

    def _look(self) -> int:
        for each in self.instances:
            if each.ready_at <= self.now:
                each.advance(self.now)
        self._count(0)
        view = View(
            now=self.now,
            engine=self.engine,
            instances=self.instances,
            held=len(self.held),
            arrivals=self._arrivals,
            in_progress=self._area / LOOK_S,
        )
        self._area, self._arrivals = 0.0, 0
        orders = self.policy.decide(view)
        return 0 if orders is None else self._carry_out(orders)

    def _carry_out(self, orders: Orders) -> int:
        wanted = min(max(orders.instances, 0), INSTANCES_MAX)
        if wanted != self._wanted:
            self.events += 1
            self._wanted = wanted
        for each in self.instances:
            if each.name in orders.recall:
                each.retiring, each.kill_at = False, inf
                self._plan(each)
        kept = [each for each in self.instances if not each.retiring]
        for _ in range(wanted - len(kept)):
            self._start()
        if orders.retire is None:
            # As a ReplicaSet does: those that are not ready first, then the newest.
            ranked = sorted(kept, key=lambda each: (each.ready_at <= self.now, -each.ordered_at))
            return sum(self._retire(each) for each in ranked[: max(len(kept) - wanted, 0)])
        for each in kept:
            each.retiring = each.name in orders.retire
        gone = [each for each in self.instances if each.name in orders.remove]
        return sum(self._remove(each) for each in gone)

    def _start(self) -> None:
        load_s = self.engine.load_s * self._random.uniform(1 - LOAD_SPREAD, 1 + LOAD_SPREAD)
        self._serial += 1
        instance = Instance(
            name=f"i{self._serial}",
            engine=self.engine,
            ordered_at=self.now,
            ready_at=self.now + load_s,
        )
        instance.now = instance.ready_at
        insort(self.instances, instance, key=lambda each: each.ordered_at)
        self._plan(instance)

    def _retire(self, instance: Instance) -> int:
        instance.retiring = True
        if not instance.open:
            return self._remove(instance)
        instance.kill_at = self.now + self.policy.grace_s
        self._plan(instance)
        return 0

    def _outcome(
        self,
        trace: Sequence[Request],
        first_token_s: float,
        between_s: float,
        counts: list[tuple[float, int, float]],
    ) -> Outcome:
        waits = [
            inf if each.first_token_at is None else each.first_token_at - each.at for each in trace
        ]
        slow = 0
        for each in trace:
            if each.first_token_at is not None and each.ended_at is not None:
                took = each.ended_at - each.first_token_at
                slow += took > between_s * max(each.generated_tokens - 1, 1)
        return Outcome(
            requests=len(trace),
            violations=sum(wait > first_token_s for wait in waits),
            slow_streams=slow,
            first_token_p50_s=percentile(waits, 0.50) if waits else 0.0,
            first_token_p95_s=percentile(waits, 0.95) if waits else 0.0,
            instance_s=self.instance_s,
            events=self.events,
            cut=self.cut,
            counts=tuple(counts),
        )
