"""What garbage collection asks of the rows, and which of them it deletes."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import delete, func, or_, select

from tramontane.domain.definition import ModelSource
from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.ids import DeploymentId, ServiceId
from tramontane.domain.inventory import History, PastDeployment, References
from tramontane.store.part import Part
from tramontane.store.records import LIVE_STATUSES, OVER_STATUSES
from tramontane.store.rows import DEFINITION
from tramontane.store.tables import DEPLOYMENTS, INSTANCES, SERVICES


class Retention(Part):
    """Old deployments, and what those that stay refer to."""

    def list_histories(self, deployments_min: int) -> list[History]:
        """Return the services that have at least so many deployments and are not deleted."""
        many = (
            select(DEPLOYMENTS.c.service_id)
            .group_by(DEPLOYMENTS.c.service_id)
            .having(func.count() >= deployments_min)
        )
        services = select(SERVICES).where(SERVICES.c.id.in_(many), SERVICES.c.deleted.is_(False))
        deployments = (
            select(
                *(DEPLOYMENTS.c.id, DEPLOYMENTS.c.service_id, DEPLOYMENTS.c.number),
                *(DEPLOYMENTS.c.status, DEPLOYMENTS.c.was_healthy),
            )
            .where(DEPLOYMENTS.c.service_id.in_(many))
            .order_by(DEPLOYMENTS.c.number.desc())
        )
        live = select(INSTANCES.c.deployment_id).where(
            INSTANCES.c.service_id.in_(many), INSTANCES.c.status.in_(LIVE_STATUSES)
        )
        with self._database.read() as connection:
            service_rows = connection.execute(services).all()
            deployment_rows = connection.execute(deployments).all()
            living = set(connection.execute(live).scalars())
        found: dict[str, list[PastDeployment]] = defaultdict(list)
        for row in deployment_rows:
            found[row.service_id].append(
                PastDeployment(
                    id=DeploymentId(row.id),
                    number=row.number,
                    status=DeploymentStatus(row.status),
                    was_healthy=row.was_healthy,
                    live=row.id in living,
                )
            )
        return [
            History(
                service_id=ServiceId(row.id),
                generation=row.generation,
                desired=row.desired_deployment,
                serving=row.serving_deployment,
                deployments=tuple(found[row.id]),
            )
            for row in service_rows
        ]

    def forget_deployments(
        self,
        service_id: ServiceId,
        deployment_ids: Collection[DeploymentId],
        expected_generation: int,
    ) -> int:
        """Delete deployments that are over and return how many; none if it was decided too early.

        That is: the generation has moved on, as it does when a user goes back to one of them.
        """
        # Durable before what they were made of is removed, even if the power fails in between.
        with self._database.write() as connection:
            generation = connection.execute(
                select(SERVICES.c.generation).where(SERVICES.c.id == service_id).with_for_update()
            ).scalar()
            if generation != expected_generation:
                return 0
            living = select(INSTANCES.c.deployment_id).where(
                INSTANCES.c.service_id == service_id, INSTANCES.c.status.in_(LIVE_STATUSES)
            )
            deleted = connection.execute(
                delete(DEPLOYMENTS).where(
                    DEPLOYMENTS.c.service_id == service_id,
                    DEPLOYMENTS.c.id.in_(deployment_ids),
                    DEPLOYMENTS.c.status.in_(OVER_STATUSES),
                    DEPLOYMENTS.c.id.not_in(living),
                )
            )
            return deleted.rowcount

    def read_references(self) -> References:
        """Return all that rows refer to."""
        named = select(DEPLOYMENTS.c.id, DEPLOYMENTS.c.source_digest, DEPLOYMENTS.c.artifact_digest)
        live = select(INSTANCES.c.id).where(INSTANCES.c.status.in_(LIVE_STATUSES))
        with self._database.read() as connection:
            deployments = connection.execute(named).all()
            instances = frozenset(connection.execute(live).scalars())
            services = frozenset(connection.execute(select(SERVICES.c.id)).scalars())
        return References(
            artifacts=frozenset(each.artifact_digest for each in deployments) - {None},
            archives=frozenset(each.source_digest for each in deployments) - {None},
            services=services,
            deployments=frozenset(each.id for each in deployments),
            instances=instances,
        )

    def is_artifact_named(self, digest: str) -> bool:
        """Return whether a deployment was built to this artifact."""
        named = select(DEPLOYMENTS.c.id).where(DEPLOYMENTS.c.artifact_digest == digest).limit(1)
        with self._database.read() as connection:
            return connection.execute(named).first() is not None

    def list_weights_users(self) -> dict[str, tuple[str, ...]]:
        """Return the weights that deployments need, with the services of each, ``project/name``.

        That is: what is wanted, serves (perhaps asleep), runs, or is on its way. A deployment that
        is over needs none; going back to it prepares its model anew.
        """
        live = select(INSTANCES.c.deployment_id).where(INSTANCES.c.status.in_(LIVE_STATUSES))
        statement = (
            select(SERVICES.c.project, SERVICES.c.name, DEPLOYMENTS.c.definition)
            .join(SERVICES, SERVICES.c.id == DEPLOYMENTS.c.service_id)
            .where(
                # All that is not made of an uploaded archive.
                DEPLOYMENTS.c.source_digest.is_(None),
                or_(
                    DEPLOYMENTS.c.id == SERVICES.c.desired_deployment,
                    DEPLOYMENTS.c.id == SERVICES.c.serving_deployment,
                    DEPLOYMENTS.c.id.in_(live),
                    DEPLOYMENTS.c.status.not_in(OVER_STATUSES),
                ),
            )
        )
        users: dict[str, set[str]] = defaultdict(set)
        with self._database.read() as connection:
            for project, name, text in connection.execute(statement):
                source = DEFINITION.validate_json(text).source
                assert isinstance(source, ModelSource), f"{project}/{name} has neither"
                users[source.reference].add(f"{project}/{name}")
        return {reference: tuple(sorted(names)) for reference, names in users.items()}
