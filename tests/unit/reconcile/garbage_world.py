"""A platform small enough to explore: the real store, archives and builds, and everything that
users and builds do with them as single steps, so that each can fall between two of a collection.

Locks are the real ones. Where a real party would wait for one, the step here does nothing.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tramontane.base.errors import Conflict, InvalidRequest, NotFound
from tramontane.base.ids import IdFactory, random_id
from tramontane.builders.garbage import BuildStorage
from tramontane.builders.store import Store as BuildStore
from tramontane.builders.store import use_key
from tramontane.domain.artifact import Artifact, Mount
from tramontane.domain.definition import Definition, DirectorySource, ServiceKind
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.inventory import History, Item, ItemKind, References
from tramontane.domain.snapshot import Changes
from tramontane.plan.garbage import Limits
from tramontane.reconcile.garbage import GarbageReconciler, Storage
from tramontane.runtimes.runtime import Runtime
from tramontane.store.sources import SourceFiles, Upload
from tramontane.store.store import Store
from tramontane.testing.clocks import FakeClock

LIMITS = Limits(deployments_kept=2, unneeded_kept_s=100.0, caches_bytes_max=0)
Seam = Callable[[], None]


class Killed(BaseException):
    """kill -9: nothing that the process would have done afterwards happens."""


@dataclass
class SeamStorage:
    """A storage with room for somebody else's step between any two of its own."""

    inner: Storage
    seam: Seam

    def list_items(self) -> Sequence[Item]:
        items = self.inner.list_items()
        self.seam()
        return items

    def remove(self, item: Item, let_go: Callable[[], bool]) -> bool:
        def ask() -> bool:
            self.seam()
            answer = let_go()
            self.seam()
            return answer

        self.seam()
        return self.inner.remove(item, ask)


@dataclass
class SeamMemory:
    """The same for the store."""

    store: Store
    seam: Seam

    def list_histories(self, deployments_min: int) -> Sequence[History]:
        found = self.store.list_histories(deployments_min)
        self.seam()
        return found

    def forget_deployments(
        self,
        service_id: ServiceId,
        deployment_ids: Collection[DeploymentId],
        expected_generation: int,
    ) -> int:
        count = self.store.forget_deployments(service_id, deployment_ids, expected_generation)
        self.seam()
        return count

    def read_references(self) -> References:
        found = self.store.read_references()
        self.seam()
        return found

    def is_artifact_named(self, digest: str) -> bool:
        return self.store.is_artifact_named(digest)

    def forget_source(self, digest: str) -> bool:
        return self.store.forget_source(digest)


class Failures(logging.Handler):
    """Keeps what a collection says about what failed."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@dataclass
class Build:
    """A build on its way, with all that it holds."""

    held: ExitStack
    artifact: Artifact
    archive: Path


def archive(number: int) -> bytes:
    return b"archive %d" % number


def digest_of(number: int) -> str:
    return f"sha256:{hashlib.sha256(archive(number)).hexdigest()}"


@dataclass
class World:
    """One platform and all who use it."""

    store: Store
    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    ids: IdFactory = random_id
    runtimes: dict[CellId, Runtime] = field(default_factory=dict[CellId, Runtime])
    seam: Seam = lambda: None
    promised: dict[str, float] = field(default_factory=dict[str, float])
    """Digests that somebody was told are here, and when."""
    uploads: dict[int, tuple[ExitStack, Upload]] = field(
        default_factory=dict[int, tuple[ExitStack, Upload]]
    )
    builds: dict[DeploymentId, Build] = field(default_factory=dict[DeploymentId, Build])

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Bring up a process: it knows only what is on disk."""
        self.files = SourceFiles(self.directory / "sources", self.ids)
        self.files.remove_partial()
        self.building = BuildStore(self.directory / "builds")
        self.building.ensure_folders()
        builds = SeamStorage(BuildStorage(self.building.root), self.pause)
        self.garbage = GarbageReconciler(
            store=SeamMemory(self.store, self.pause),
            storages={
                **dict.fromkeys(
                    (ItemKind.ARTIFACT, ItemKind.LAYER, ItemKind.CACHE, ItemKind.LEFTOVER), builds
                ),
                ItemKind.ARCHIVE: SeamStorage(self.files, self.pause),
            },
            runtimes=self.runtimes,
            limits=LIMITS,
            clock=self.clock,
        )

    def kill(self) -> None:
        """Kill the process: the kernel frees its locks, and half done work stays on disk."""
        for build in self.builds.values():
            build.held.close()
        for _, upload in self.uploads.values():
            upload._file.close()
        self.builds.clear()
        self.uploads.clear()
        self.start()

    def collect(self) -> None:
        """Run one whole collection, with whatever ``seam`` does in between."""
        handler = Failures(logging.ERROR)
        logger = logging.getLogger(GarbageReconciler.__module__)
        logger.addHandler(handler)
        logger.propagate = False
        try:
            asyncio.run(self.garbage.reconcile())
        finally:
            logger.removeHandler(handler)
            logger.propagate = True
        for each in handler.records:
            # A collection goes on after a failure, but here there is nothing that may fail.
            raise AssertionError(each.getMessage()) from (each.exc_info or (None, None))[1]

    def pause(self) -> None:
        """Let others do what they do between two steps of a collection."""
        self.seam()

    # --- what users do -------------------------------------------------------------------------

    def ask(self, number: int) -> None:
        """Ask whether an archive is here, as a client does before it uploads."""
        if self.files._lock.locked():
            return
        digest = digest_of(number)
        there = self.files.mark_used(digest, self.clock.now())
        if there and self.store.read_source(digest) is not None:
            self.promised[digest] = self.clock.now()

    def begin_upload(self, number: int) -> None:
        if number not in self.uploads:
            with ExitStack() as held:
                held.enter_context(self.files.hold(digest_of(number)))
                upload = held.enter_context(self.files.begin(digest_of(number)))
                upload.write(archive(number))
                self.uploads[number] = (held.pop_all(), upload)

    def place_upload(self, number: int) -> None:
        """Give the file its name, if nobody removes another of this name just now."""
        if number in self.uploads and not self.files._lock.locked():
            upload = self.uploads[number][1]
            if upload._partial.exists():
                upload.finish()
                self.files.mark_used(digest_of(number), self.clock.now())

    def record_upload(self, number: int) -> None:
        if number not in self.uploads:
            return
        if self.uploads[number][1]._partial.exists():
            return  # it could not be placed, and its client waits
        held, upload = self.uploads.pop(number)
        with held:
            now = self.clock.now()
            self.store.record_source(digest_of(number), upload.size_bytes, now=now)
        self.promised[digest_of(number)] = now

    def deploy(self, name: str, number: int) -> None:
        definition = Definition(
            kind=ServiceKind.WEB,
            source=DirectorySource(digest=digest_of(number)),
            # No two deployments are the same, so each is a new one.
            environment=(("VERSION", self.ids("ver")),),
        )
        try:
            self.store.deploy("p", name, definition, now=self.clock.now(), ids=self.ids)
        except InvalidRequest:
            assert not self.is_promised(digest_of(number)), "a promised archive is gone"
        except Conflict:
            return  # the service is being deleted

    def rollback(self, name: str, number: int) -> None:
        try:
            self.store.rollback("p", name, number, now=self.clock.now())
        except (NotFound, Conflict):
            return

    def delete(self, name: str) -> None:
        try:
            service = self.store.delete_service("p", name, now=self.clock.now())
        except NotFound:
            return
        self.end_instances(name)
        self.store.finish_delete(service.id)

    # --- what builds and instances do ----------------------------------------------------------

    def begin_build(self, name: str) -> None:
        """Build what is desired: with the artifact that is there, or a new one."""
        deployment = self.desired(name)
        if deployment is None or deployment.status is not DeploymentStatus.BUILDING:
            return
        if deployment.id in self.builds:
            return
        source = deployment.definition.source
        assert isinstance(source, DirectorySource)
        name = source.digest.removeprefix("sha256:")[:8]
        folder, layer = self.building.artifacts / name, self.building.layers / "shared"
        with ExitStack() as held:
            for each in (folder, layer):
                lock = self.building.try_lock(use_key(each), shared=True)
                if lock is None:
                    return
                held.callback(lock.free)
            path = held.enter_context(self.files.hold(source.digest))
            assert path.exists(), "the archive of a deployment is gone"
            artifact = self.building.read_artifact(name)
            if artifact is not None:
                os.utime(folder / "artifact.json", (self.clock.now(), self.clock.now()))
            else:
                artifact = self.make(folder, layer)
            self.builds[deployment.id] = Build(held.pop_all(), artifact, path)

    def make(self, folder: Path, layer: Path) -> Artifact:
        if not layer.exists():
            staged = self.building.make_staging(f"layer-{layer.name}")
            (staged / "content").write_text("content")
            self.building.write_layer(staged)
            self.building.publish(staged, layer)
        artifact = Artifact(
            digest=f"sha256:{folder.name}",
            language="static",
            command=("x",),
            directory="/",
            mounts=(Mount(source=str(folder), target="/app"), Mount(source=str(layer), target="/")),
        )
        staged = self.building.make_staging(f"build-{folder.name}")
        (staged / "app").mkdir()
        (staged / "app" / "file").write_text("content")
        self.building.write_artifact(staged, artifact, [layer.name])
        os.utime(staged / "artifact.json", (self.clock.now(), self.clock.now()))
        self.building.publish(staged, folder)
        return artifact

    def end_build(self, name: str) -> None:
        """Record what was built; it takes over at once."""
        deployment = self.desired(name)
        if deployment is None or deployment.id not in self.builds:
            return
        build = self.builds.pop(deployment.id)
        with build.held:
            assert self.store.record_artifact(deployment.id, build.artifact)
        self.take_over(name)

    def take_over(self, name: str) -> None:
        """Let the desired deployment serve, step by step as a plan would."""
        for status in (
            *(DeploymentStatus.PENDING, DeploymentStatus.STARTING),
            DeploymentStatus.HEALTHY,
        ):
            deployment = self.desired(name)
            if deployment is None or deployment.artifact is None:
                return
            service = self.store.read_service("p", name).service
            others = tuple(
                replace(each, status=DeploymentStatus.SUPERSEDED)
                for each in self.store.list_deployments(service.id)
                if each.id != deployment.id and status is DeploymentStatus.HEALTHY
                if each.status is not DeploymentStatus.SUPERSEDED
            )
            changes = Changes(
                service=replace(service, serving_deployment=deployment.id),
                deployments=(replace(deployment, status=status), *others),
            )
            if deployment.status is not DeploymentStatus.HEALTHY:
                assert self.store.apply(changes, service.id, service.generation)

    def start_instance(self, name: str) -> None:
        deployment = self.desired(name)
        if deployment is None or deployment.status is not DeploymentStatus.HEALTHY:
            return
        instance = Instance(
            id=InstanceId(self.ids("ins")),
            service_id=deployment.service_id,
            deployment_id=deployment.id,
            cell_id=CellId("cel_1"),
            created_at=self.clock.now(),
        )
        service = self.store.read_service("p", name).service
        assert self.store.apply(Changes(instances=(instance,)), service.id, service.generation)

    def end_instances(self, name: str) -> None:
        for record in self.store.list_services():
            if record.service.name == name:
                ended = tuple(
                    replace(each, status=InstanceStatus.FAILED, ended_at=self.clock.now())
                    for each in record.instances
                )
                changes = Changes(instances=ended)
                assert self.store.apply(changes, record.service.id, record.service.generation)

    # --- what must hold ------------------------------------------------------------------------

    def desired(self, name: str) -> Deployment | None:
        for record in self.store.list_services():
            if record.service.name == name and not record.service.deleted:
                return record.deployment(record.service.desired_deployment)
        return None

    def is_promised(self, digest: str) -> bool:
        at = self.promised.get(digest)
        return at is not None and self.clock.now() - at < LIMITS.unneeded_kept_s

    def check(self) -> None:
        """Assert that nothing is missing that a row, a build or a promise stands for."""
        for digest in (digest_of(number) for number in range(10)):
            if self.is_promised(digest):
                assert self.store.read_source(digest) is not None, f"{digest} was promised"
                assert self.files.path(digest).exists(), f"{digest} was promised"
        references = self.store.read_references()
        for digest in references.archives:
            assert self.store.read_source(digest) is not None
            assert self.files.path(digest).exists()
        for digest in references.artifacts:
            self.check_artifact(digest)
        for build in self.builds.values():
            self.check_artifact(build.artifact.digest)
            assert build.archive.exists()
        for record in self.store.list_services():
            deployments = {each.id for each in self.store.list_deployments(record.service.id)}
            needed = {each.deployment_id for each in record.instances}
            service = record.service
            needed |= {service.desired_deployment, service.serving_deployment} - {None}  # type: ignore[arg-type]
            assert needed <= deployments

    def check_artifact(self, digest: str) -> None:
        artifact = self.building.read_artifact(digest)
        assert artifact is not None, f"{digest} is gone"
        folder, layer = (Path(mount.source) for mount in artifact.mounts)
        assert (folder / "app" / "file").read_text() == "content"
        assert (layer / "layer.json").exists(), f"{digest} has lost its layer"

    def check_settled(self) -> None:
        """Assert that, with nobody around, all that nothing needs goes and all else stays."""
        for _ in range(3):
            self.clock.advance(LIMITS.unneeded_kept_s + 1)
            self.collect()
        self.check()
        references = self.store.read_references()
        assert self.left() == (references.artifacts, references.archives)
        assert list(self.building.staging.iterdir()) == []
        assert list(self.building.locks.iterdir()) == []

    def left(self) -> tuple[set[str], set[str]]:
        """Return the artifacts and the archives that are on disk."""
        artifacts = {f"sha256:{each.name}" for each in self.building.artifacts.iterdir()}
        return artifacts, {each.name for each in self.files.list_items()}
