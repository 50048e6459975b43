"""Rival policies, written from their own sources and documentation.

Where a rival leaves something open, the choice here is in its favour: it sees every instance, with
no delay and no sampling, its metrics include requests held at the gateway, and its runtime lets
requests run on for the whole grace that its documentation gives.
"""

from collections import deque
from dataclasses import dataclass, field
from math import ceil, floor

from bench.scaling.simulator import INSTANCES_MAX, Orders, View


@dataclass
class KnativePodAutoscaler:
    """Knative Serving's KPA: ``pkg/autoscaler/scaling/autoscaler.go`` and ``kpa/scaler.go``.

    Defaults of ``config-autoscaler``: stable window 60 s, panic window 10 % of it, panic threshold
    200 %, 70 % of a target of 100 requests, up by 1000 and down by 2 at most, a look every 2 s,
    30 s of grace before zero. A pod's grace is the revision's timeout, 300 s.
    """

    target: float = 70.0
    """Requests in progress for one pod, utilisation already taken off."""
    stable_s: float = 60.0
    down_delay_s: float = 0.0
    name: str = "Knative KPA"
    grace_s: float = 300.0
    _seen: deque[float] = field(default_factory=deque[float])
    _panic_at: float | None = None
    _panic_pods: int = 0
    _delayed: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _inactive_since: float | None = None

    def decide(self, view: View) -> Orders | None:
        self._seen.append(view.in_progress)
        while len(self._seen) > self.stable_s:
            self._seen.popleft()
        # The activator pokes the autoscaler at once when there is no pod for a request.
        poked = view.held > 0 and view.kept == 0
        if round(view.now) % 2 and not poked:
            return None
        if poked:
            return Orders(instances=max(self._desired(view), 1))
        return self._to_zero(view, self._desired(view))

    def _desired(self, view: View) -> int:
        ready = max(1, view.ready)
        recent = list(self._seen)[-max(int(self.stable_s / 10), 1) :]
        stable = ceil(sum(self._seen) / len(self._seen) / self.target)
        panic = ceil(sum(recent) / len(recent) / self.target)
        low, high = floor(ready / 2.0), ceil(1000.0 * ready)
        desired = min(max(stable, low), high)
        desired_panic = min(max(panic, low), high)
        over = panic / ready >= 2.0
        if over:
            self._panic_at = view.now
        elif self._panic_at is not None and self._panic_at + self.stable_s < view.now:
            self._panic_at, self._panic_pods = None, 0
        if self._panic_at is not None:
            self._panic_pods = max(self._panic_pods, desired, desired_panic)
            desired = self._panic_pods
        if self.down_delay_s:
            self._delayed.append((view.now, desired))
            while self._delayed[0][0] <= view.now - self.down_delay_s:
                self._delayed.popleft()
            desired = max(each for _, each in self._delayed)
        return min(desired, INSTANCES_MAX)

    def _to_zero(self, view: View, desired: int) -> Orders | None:
        if desired > 0:
            self._inactive_since = None
            return Orders(instances=desired)
        if self._inactive_since is None:
            self._inactive_since = view.now
        if view.now - self._inactive_since < 30.0 or view.in_progress:
            return Orders(instances=min(1, view.kept))
        return Orders(instances=0)


@dataclass
class Keda:
    """KEDA over the horizontal pod autoscaler, as vLLM's production stack documents it.

    ``replica_calculator.go`` (average value, tolerance 0.1) every 15 s; up by the larger of 4 pods
    and 100 % in 15 s; down to the highest recommendation of the last 300 s. KEDA itself decides
    between 0 and 1 only: it polls every 30 s, and the cooldown is 300 s. The documented trigger is
    ``vllm:num_requests_waiting`` with threshold 5, and one that keeps a replica while there is
    traffic. A pod's grace is Kubernetes' 30 s.
    """

    threshold: float = 5.0
    running_too: bool = False
    """Count running requests as well: not what is documented, but what its users turn to."""
    stabilisation_s: float = 300.0
    polling_s: float = 30.0
    cooldown_s: float = 300.0
    name: str = "KEDA"
    grace_s: float = 30.0
    _recommended: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _active_at: float = 0.0
    _traffic_at: float = -60.0

    def decide(self, view: View) -> Orders | None:
        if view.arrivals:
            self._traffic_at = view.now
        wanted = None
        if round(view.now) % self.polling_s == 0:
            wanted = self._activate(view)
        if wanted is None and round(view.now) % 15 == 0 and view.kept:
            wanted = self._recommend(view)
        return None if wanted is None else Orders(instances=wanted)

    def _activate(self, view: View) -> int | None:
        # The second trigger: any request within the last minute, the time that ``rate`` looks over.
        if self._metric(view) > 0 or view.now - self._traffic_at < 60.0:
            self._active_at = view.now
            return None if view.kept else 1
        if view.kept and view.now - self._active_at >= self.cooldown_s:
            self._recommended.clear()
            return 0
        return None

    def _metric(self, view: View) -> float:
        running = sum(each.running for each in view.instances if not each.retiring)
        return view.waiting + (running if self.running_too else 0)

    def _recommend(self, view: View) -> int:
        replicas, metric = view.kept, self._metric(view)
        wanted = replicas
        if abs(1.0 - metric / (self.threshold * replicas)) > 0.1:
            wanted = ceil(metric / self.threshold)
        wanted = min(max(wanted, 1), INSTANCES_MAX)
        self._recommended.append((view.now, wanted))
        while self._recommended[0][0] <= view.now - self.stabilisation_s:
            self._recommended.popleft()
        if wanted < replicas:
            wanted = min(replicas, max(each for _, each in self._recommended))
        return min(wanted, max(replicas + 4, replicas * 2))


@dataclass
class Averaging:
    """Checks every 15 s, as the autoscalers of several hosted platforms do.

    It goes up on the mean of the last 15 s and down on the mean of the last 5 min, holds still for
    a minute after each change (Koyeb documents 15 s, 1 min and 5 min), and goes to zero after 5 min
    without a request.
    """

    target: float = 11.0
    down_s: float = 300.0
    hold_s: float = 60.0
    idle_s: float = 300.0
    name: str = "15 s / 5 min average"
    grace_s: float = 30.0
    _seen: deque[float] = field(default_factory=deque[float])
    _changed_at: float = -60.0
    _busy_at: float = 0.0

    def decide(self, view: View) -> Orders | None:
        self._seen.append(view.in_progress)
        while len(self._seen) > self.down_s:
            self._seen.popleft()
        if view.in_progress:
            self._busy_at = view.now
        if view.held and not view.kept:
            self._changed_at = view.now
            return Orders(instances=1)
        if round(view.now) % 15 or view.now - self._changed_at < self.hold_s or not view.kept:
            return None
        recent = list(self._seen)[-15:]
        up = ceil(sum(recent) / len(recent) / self.target)
        down = ceil(sum(self._seen) / len(self._seen) / self.target)
        wanted = up if up > view.kept else max(up, down, 1)
        if up <= view.kept:
            wanted = min(wanted, view.kept)
        if view.now - self._busy_at >= self.idle_s:
            wanted = 0
        if wanted == view.kept:
            return None
        self._changed_at = view.now
        return Orders(instances=min(wanted, INSTANCES_MAX))
