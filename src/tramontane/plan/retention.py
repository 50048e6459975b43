"""Which deployments of a service are forgotten; ``reconcile.garbage`` asks.

What a deployment was made of goes later, when nothing refers to it any more (``plan.garbage``).
"""

from tramontane.domain.deployment import OVER
from tramontane.domain.ids import DeploymentId
from tramontane.domain.inventory import History


def plan_retention(history: History, deployments_kept: int) -> tuple[DeploymentId, ...]:
    """Return the deployments that may be forgotten, oldest last.

    Kept are the newest ones, so that numbers go on counting and a user can go back; whatever is
    wanted, serves, runs or is on its way; and the one that a rollback would choose by itself,
    however many failed since.
    """
    assert deployments_kept > 0, "the newest deployment has the last number that was given"
    newest_first = sorted(history.deployments, key=lambda each: -each.number)
    kept = {each.id for each in newest_first[:deployments_kept]}
    kept |= {history.desired, history.serving, _rollback_target(history)} - {None}
    return tuple(
        each.id
        for each in newest_first
        if each.id not in kept and each.status in OVER and not each.live
    )


def _rollback_target(history: History) -> DeploymentId | None:
    """Return the newest deployment before the desired one that was healthy."""
    current = next((each.number for each in history.deployments if each.id == history.desired), 0)
    earlier = [each for each in history.deployments if each.was_healthy and each.number < current]
    return max(earlier, key=lambda each: each.number).id if earlier else None
