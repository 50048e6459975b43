"""What is remembered of the gateway's reports."""

from tramontane.domain.ids import ServiceId
from tramontane.domain.load import EndpointLoad, EngineLoad, UpstreamLoad
from tramontane.reconcile.demand import DemandTracker

SERVICE = ServiceId("svc_1")
NOW = 1_800_000_000.0


def report(at: float, in_progress: int, issued: int = 0) -> UpstreamLoad:
    return UpstreamLoad(
        upstream="svc_1@3",
        at=at,
        interval_s=1.0,
        endpoints=(EndpointLoad(endpoint="/run/a", in_progress=in_progress, issued=issued),),
    )


def test_reports_become_samples_and_activity() -> None:
    tracker = DemandTracker(NOW)
    assert tracker.record_load(report(NOW + 1, 3, issued=3))
    assert not tracker.record_load(report(NOW + 2, 3)), "nothing changed, nothing to look at"
    demand = tracker.demand(SERVICE, NOW + 2)
    assert [sample.in_progress for sample in demand.samples] == [3, 3]
    assert demand.last_active_at == NOW + 2
    assert demand.in_progress_by_endpoint == (("/run/a", 3),)


def test_silence_means_nothing_in_progress() -> None:
    tracker = DemandTracker(NOW)
    tracker.record_load(report(NOW, 3))
    demand = tracker.demand(SERVICE, NOW + 5)
    assert demand.samples[-1].in_progress == 0
    assert demand.in_progress_by_endpoint == ()
    assert len(demand.samples) == 6


def test_a_wake_waits_until_it_is_settled() -> None:
    tracker = DemandTracker(NOW)
    tracker.record_wake(SERVICE, NOW + 1)
    assert tracker.demand(SERVICE, NOW + 1).waiting
    tracker.settle(SERVICE)
    assert not tracker.demand(SERVICE, NOW + 1).waiting


def test_memory_is_bounded_by_the_stable_window() -> None:
    tracker = DemandTracker(NOW)
    for second in range(1000):
        tracker.record_load(report(NOW + second, 1))
    assert len(tracker.demand(SERVICE, NOW + 999).samples) == 60


def test_arrivals_are_counted_for_as_long_as_anybody_looks() -> None:
    tracker = DemandTracker(NOW)
    for second in range(100):
        tracker.record_load(report(NOW + second, 1, issued=2))
    assert tracker.demand(SERVICE, NOW + 99).arrived == 200
    assert tracker.demand(SERVICE, NOW + 500).arrived == 200


def test_what_an_engine_said_is_believed_for_two_reports() -> None:
    tracker = DemandTracker(NOW)
    said = (EngineLoad(endpoint="/run/a", running=2, queued=1, slots=4),)
    tracker.record_engines(SERVICE, said, NOW)
    assert tracker.demand(SERVICE, NOW + 2).engines == said
    assert tracker.demand(SERVICE, NOW + 3).engines == ()
