"""Our policy in the simulator: the product's own function, with what gateway and engines report."""

from collections import deque
from dataclasses import dataclass, field
from math import inf

from bench.scaling.engine import Instance
from bench.scaling.simulator import INSTANCES_MAX, Orders, View
from tramontane.domain.load import EngineLoad
from tramontane.plan.inference_scaling import (
    InferenceScalingState,
    InstanceSignals,
    Objective,
    Signals,
    plan_inference_scale,
)


@dataclass
class Ours:
    """``plan_inference_scale`` once a second, with its defaults."""

    objective: Objective
    engine_signals: bool = True
    """Without them only the gateway's counts are given, as today."""
    name: str = "ours"
    grace_s: float = inf
    _state: InferenceScalingState = field(default_factory=InferenceScalingState)
    _arrived: int = 0
    _active_at: float | None = None
    _starts_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=5))
    _ready: set[str] = field(default_factory=set[str])

    def decide(self, view: View) -> Orders:
        self._arrived += view.arrivals
        if view.arrivals or view.in_progress:
            self._active_at = view.now
        for each in view.instances:
            if each.ready_at <= view.now and each.name not in self._ready:
                self._ready.add(each.name)
                self._starts_s.append(each.ready_at - each.ordered_at)
        signals = Signals(
            at=view.now,
            instances=[self._see(each, view.now) for each in view.instances],
            held=view.held,
            arrived=self._arrived,
            starts_s=tuple(self._starts_s),
            last_active_at=self._active_at,
            slots=view.engine.slots,
        )
        decision = plan_inference_scale(self.objective, signals, self._state, view.now)
        self._state = decision.state
        return Orders(
            instances=min(decision.instances, INSTANCES_MAX),
            retire=decision.retire,
            recall=decision.recall,
            remove=decision.remove,
        )

    def _see(self, instance: Instance, now: float) -> InstanceSignals:
        ready = instance.ready_at <= now
        waits, instance.first_tokens = tuple(instance.first_tokens), []
        engine = EngineLoad(
            endpoint=instance.name,
            running=instance.running,
            queued=len(instance.waiting),
            slots=instance.engine.slots,
            prompt_tokens_waiting=instance.waiting_tokens,
            tokens_in_flight=instance.kv_used,
            kv_share=instance.kv_used / instance.engine.kv_tokens,
            first_token_s=waits,
            between_tokens_s=instance.step_now_s if instance.streams else None,
        )
        return InstanceSignals(
            name=instance.name,
            ready=ready,
            retiring=instance.retiring,
            open=instance.open,
            since=instance.ordered_at,
            engine=engine if ready and self.engine_signals else None,
        )
