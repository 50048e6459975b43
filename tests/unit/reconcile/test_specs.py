"""What runtimes are told about an instance."""

from tramontane.domain.definition import Definition, DirectorySource, ServiceKind
from tramontane.reconcile.specs import STOP_GRACE_S, stop_grace_s


def definition(kind: ServiceKind) -> Definition:
    return Definition(kind=kind, source=DirectorySource(digest="sha256:0"), drain_s=90)


def test_a_worker_gets_its_drain_to_finish_what_nobody_else_could_drain() -> None:
    assert stop_grace_s(definition(ServiceKind.WORKER)) == 90
    assert stop_grace_s(definition(ServiceKind.WEB)) == STOP_GRACE_S
