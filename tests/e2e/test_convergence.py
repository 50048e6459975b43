"""Whatever is killed whenever: what was acknowledged is what the platform comes to.

A user deploys, scales, rolls back, pauses, resumes and deletes three services through the API, and
repeats what got no answer, while the control plane is killed at random moments, at times Envoy, a
supervisor, a program or the launcher as well. After each start every acknowledged wish must still
be on record; now and then there is peace, and everything must come true. At the end ``tram down``
must leave nothing.

    TRAM_KILL_POINTS=200 .venv/bin/pytest tests/e2e/test_convergence.py     the full run
    TRAM_KILL_SEED=7 …                                                      the same run again

Without ``TRAM_KILL_POINTS`` it is 25 kills, fewer if that takes longer than ``QUICK_S``.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.census import Census
from tests.e2e.platform import Platform, alive, wait_for
from tramontane import Client
from tramontane.base.errors import Conflict, NotFound, TimedOut, TramontaneError, Unavailable
from tramontane.runtimes.process.layout import read_json
from tramontane.runtimes.process.processes import descendants, name
from tramontane.wire.archive import pack
from tramontane.wire.schemas import (
    DefinitionBody,
    DirectorySourceBody,
    ResourcesBody,
    ScalingBody,
    ServiceView,
)

pytestmark = pytest.mark.e2e

POINTS = int(os.environ.get("TRAM_KILL_POINTS", "25"))
SEED = int(os.environ.get("TRAM_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
QUICK_S = 60.0
QUICK_POINTS_MIN = 8
LIFE_STARTS = 2.5
"""A control plane is killed at a random moment within so many times of what its start takes, so
two of five are killed before they are ready."""
PEACE_EVERY = 9
COMES_TRUE_S = 60.0
SERVICES = ("anna", "bert", "cleo")
EXAMPLE = Path(__file__).parents[2] / "examples/hello-procfile"


@dataclass
class Wish:
    """What was acknowledged for one service."""

    exists: bool = False
    version: str = ""
    versions: dict[int, str] = field(default_factory=dict[int, str])
    """What each deployment answers with."""
    instances: int | None = None
    asleep: bool = False
    paused: bool = False

    def set_automatic(self) -> None:
        self.instances, self.asleep, self.paused = None, False, False


Action = Callable[[Client], None]
"""Asks for one thing and, once it is acknowledged, changes the wish; may be repeated."""


class User:
    """Asks for things at random and remembers what was acknowledged."""

    def __init__(self, dice: random.Random, directory: Path) -> None:
        self.wishes = {service: Wish() for service in SERVICES}
        self.said: list[str] = []
        self._dice = dice
        self._directory = directory
        self._made = 0
        self.open: tuple[str, Action] | None = None
        """Asked for without an answer: it may have been heard or not, so it is asked again."""

    def ask(self, client: Client) -> None:
        """Ask for one thing, first of all again for what got no answer."""
        if self.open is None:
            service = self._dice.choice(SERVICES)
            self.open = (service, self._choose(service))
        with suppress(Unavailable, TimedOut):
            self.open[1](client)
            self.open = None

    def check_recorded(self, views: list[ServiceView]) -> None:
        """Everything acknowledged is known, before anything had time to come true."""
        found = {each.name: each for each in views if each.status != "deleting"}
        unsure = {self.open[0]} if self.open else set()
        for service, wish in self.wishes.items():
            if service in unsure:
                continue
            assert (service in found) == wish.exists, f"{service}: {wish}"
            if wish.exists:
                number = found[service].deployment
                assert wish.versions.get(number or 0) == wish.version, f"{service}: {wish}"

    def _choose(self, service: str) -> Action:
        wish = self.wishes[service]
        verbs: list[tuple[Callable[[str], Action], int]] = [(self._deploy, 4)]
        if wish.exists:
            verbs += [(self._rollback, 3), (self._scale, 4), (self._sleep, 2)]
            verbs += [(self._pause, 2), (self._resume, 3 if wish.paused else 1), (self._delete, 1)]
        verb = self._dice.choices([v for v, _ in verbs], [w for _, w in verbs])[0]
        return verb(service)

    def _deploy(self, service: str) -> Action:
        self._made += 1
        version = f"v{self._made}"
        # One in three is to be built, the others have a new environment only.
        archive = self._archive(self._made // 3)
        wish = self.wishes[service]

        def act(client: Client) -> None:
            if not client.has_source(archive[0]):
                client.upload_source(*archive)
            definition = DefinitionBody(
                source=DirectorySourceBody(digest=archive[0]),
                environment={"GREETING": version},
                scaling=ScalingBody(max=3),
                resources=ResourcesBody(memory_bytes=64 * 1024**2),
            )
            try:
                deployment = client.put_service("default", service, definition)
            except Conflict as refused:
                if wish.exists:
                    raise
                raise Unavailable("an earlier delete is under way") from refused
            wish.exists, wish.version = True, version
            wish.versions[deployment.number] = version
            wish.set_automatic()
            self._say(f"deploy {service} {version} as {deployment.number}")

        return act

    def _archive(self, number: int) -> tuple[str, Path]:
        target = self._directory / f"{number}.tar.gz"
        if not target.exists():
            source = self._directory / f"source{number}"
            shutil.copytree(EXAMPLE, source)
            (source / "number").write_text(f"{number}\n")
            pack(source, target)
        # Packing is repeatable: equal content has an equal digest.
        return pack(self._directory / f"source{number}", target).digest, target

    def _rollback(self, service: str) -> Action:
        wish = self.wishes[service]
        number = self._dice.choice(list(wish.versions))

        def act(client: Client) -> None:
            changes = wish.paused or wish.versions[number] != wish.version
            try:
                client.rollback_service("default", service, number)
            except Conflict as refused:
                if "never built" in str(refused):
                    return
                raise
            wish.version = wish.versions[number]
            if changes:
                wish.set_automatic()
            self._say(f"rollback {service} {number}")

        return act

    def _scale(self, service: str) -> Action:
        wish, count = self.wishes[service], self._dice.choice((1, 2, 3, None))

        def act(client: Client) -> None:
            client.scale_service("default", service, count)
            wish.instances, wish.asleep = count, False
            self._say(f"scale {service} {count}")

        return act

    def _sleep(self, service: str) -> Action:
        wish = self.wishes[service]

        def act(client: Client) -> None:
            client.scale_service("default", service, 0)
            wish.instances, wish.asleep = None, True
            self._say(f"sleep {service}")

        return act

    def _pause(self, service: str) -> Action:
        wish = self.wishes[service]

        def act(client: Client) -> None:
            client.pause_service("default", service)
            wish.paused = True
            self._say(f"pause {service}")

        return act

    def _resume(self, service: str) -> Action:
        wish = self.wishes[service]

        def act(client: Client) -> None:
            client.resume_service("default", service)
            wish.set_automatic()
            self._say(f"resume {service}")

        return act

    def _delete(self, service: str) -> Action:
        def act(client: Client) -> None:
            with suppress(NotFound):  # heard already, at an earlier attempt
                client.delete_service("default", service)
            self.wishes[service].__init__()
            self._say(f"delete {service}")

        return act

    def _say(self, what: str) -> None:
        self.said.append(what)


class World:
    """One platform whose control plane the test starts and kills by itself."""

    def __init__(self, platform: Platform, census: Census) -> None:
        self.platform = platform
        self.census = census
        self.control: subprocess.Popen[bytes] | None = None
        self.faults: list[str] = []
        self.start_s = 1.0
        """What a start takes, on this machine and with what else it does now."""

    def client(self) -> Client:
        """Return a client that works across restarts, before the platform calls itself ready."""
        token = (self.platform.home / "credentials").read_text().strip()
        return Client(f"http://127.0.0.1:{self.platform.api_port}", token)

    def start(self) -> subprocess.Popen[bytes]:
        platform = self.platform
        addresses = {"--gateway": platform.gateway_port, "--api": platform.api_port}
        flags = [part for key, port in addresses.items() for part in (key, f"127.0.0.1:{port}")]
        with (platform.home / "control.log").open("ab") as log:
            self.control = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tramontane.processes.control"),
                    *("--home", str(platform.home), *flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.census.held = {self.control.pid}
        self._started_at = time.monotonic()
        return self.control

    def wait_ready(self, client: Client) -> None:
        def ready() -> bool:
            assert self.control is not None
            assert self.control.poll() is None, self.platform.control_log()
            with suppress(TramontaneError):
                return (self.platform.home / "platform.json").exists() and bool(client.get_status())
            return False

        wait_for(ready, "the control plane to be ready", 60)
        self.start_s = time.monotonic() - self._started_at

    def kill(self) -> None:
        if self.control is not None:
            self.control.kill()
            self.control.wait()

    def hurt(self, dice: random.Random, client: Client) -> None:
        """Kill something else than the control plane."""
        kind = dice.choice(("envoy", "supervisor", "program", "launcher"))
        pid = self._find(kind, dice, client)
        if pid is not None and alive(pid):
            os.kill(pid, signal.SIGKILL)
            self.faults.append(kind)

    def _find(self, kind: str, dice: random.Random, client: Client) -> int | None:
        if kind == "envoy":
            return client.get_status().gateway.pid
        if kind == "launcher":
            launchers = [p for p in descendants(os.getpid()) if name(p) == "tram-launcher"]
            return next(iter(launchers), None)
        # Of services that are not on the way to another version: a new one may fail for it.
        settled = [s for s in client.list_services() if s.deployment == s.serving_deployment]
        running = [i for s in settled for i in s.instances if i.status == "healthy"]
        if not running:
            return None
        victim = dice.choice(running)
        if kind == "program":
            return victim.pid
        status = read_json(self.platform.home / "instances/instances" / victim.id / "status.json")
        return status["supervisor"]["pid"] if status else None

    def converge(self, user: User, client: Client) -> None:
        """Wait until every wish has come true, as seen from outside."""
        for service, wish in user.wishes.items():
            trouble = [""]

            def true(service: str = service, wish: Wish = wish, told: list[str] = trouble) -> bool:
                told[0] = self._missing(client, service, wish)
                return not told[0]

            try:
                wait_for(true, f"{service} to be as asked", COMES_TRUE_S)
            except AssertionError as error:
                raise AssertionError(
                    f"{service} should be {wish} but: {trouble[0]}\n"
                    + "\n".join(user.said[-40:])
                    + self.platform.control_log()
                ) from error

    def _missing(self, client: Client, service: str, wish: Wish) -> str:
        """Return what is not yet as wished; empty if nothing."""
        try:
            view = client.get_service("default", service)
        except NotFound:
            return "it is gone" if wish.exists else self._not_answered(service, 404)
        if not wish.exists:
            return f"it is {view.status}"
        if wish.versions.get(view.serving_deployment or 0) != wish.version and not wish.paused:
            return f"deployment {view.serving_deployment} serves: {view.status} {view.message}"
        statuses = [each.status for each in view.instances]
        if wish.paused or wish.asleep:
            wanted: list[str] | None = []
        else:
            wanted = None if wish.instances is None else ["healthy"] * wish.instances
        if wanted is not None and statuses != wanted:
            return f"its instances are {statuses}: {view.status} {view.message}"
        if wish.paused:
            return self._not_answered(service, 503)
        wish.asleep = False  # the request wakes it
        return self._not_answered(service, 200, wish.version)

    def _not_answered(self, service: str, status: int, version: str = "") -> str:
        try:
            answer = self.platform.request(service, timeout_s=20)
        except OSError as error:
            return f"the gateway: {error}"
        if answer.status != status:
            return f"it answers {answer.status}: {answer.body[:200]!r}"
        if version and answer.json["message"] != f"{version}, world!":
            return f"it answers {answer.body[:200]!r}"
        return ""


@pytest.fixture
def world() -> Iterator[World]:
    if shutil.which("perl") is None:
        pytest.skip("needs perl, for a program that starts in milliseconds")
    top = Path(tempfile.mkdtemp(prefix="tram-cv-"))
    with Census() as census:
        platform = Platform(home=top / "home")
        world = World(platform, census)
        try:
            platform.up()
            platform.kill_control()
            yield world
        finally:
            world.kill()
            platform.tram("down", check=None)
            shutil.rmtree(top, ignore_errors=True)


def test_every_acknowledged_wish_comes_true_whatever_is_killed(
    world: World, tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    user = User(dice, tmp_path)
    began, killed, peaces = time.monotonic(), 0, 0
    quick = "TRAM_KILL_POINTS" not in os.environ
    with world.client() as client:
        world.start()
        world.wait_ready(client)
        world.kill()
        while killed < POINTS:
            control = world.start()
            if killed % PEACE_EVERY == PEACE_EVERY - 1:
                _live_in_peace(world, user, client)
                peaces += 1
                world.kill()
            else:
                _live(world, user, client, dice, control)
            killed += 1
            world.census.look()
            if quick and killed >= QUICK_POINTS_MIN and time.monotonic() - began > QUICK_S:
                break
        world.start()
        _live_in_peace(world, user, client)
    took = time.monotonic() - began
    faults = {kind: world.faults.count(kind) for kind in sorted(set(world.faults))}
    sys.stdout.write(
        f"seed {SEED}: {killed} kills of the control plane in {took:.0f} s, others {faults}, "
        f"{len(user.said)} changes acknowledged, {peaces + 1} times everything had come true\n"
    )
    if dice.random() < 0.5:
        world.kill()  # down needs no control plane
    world.census.held = set()
    world.platform.down()
    world.census.check_nothing_left()
    assert not list((world.platform.home / "instances/instances").iterdir())
    assert any("net:" in each for each in world.census.namespaces_seen), "there was something"
    assert len(user.said) >= killed / 2, "the user got to say something between kills"


def _live(
    world: World, user: User, client: Client, dice: random.Random, control: subprocess.Popen[bytes]
) -> None:
    """One life of the control plane, full of wishes, with a sudden end."""
    deadline = threading.Timer(dice.uniform(0, LIFE_STARTS * world.start_s), control.kill)
    deadline.start()
    checked = False
    try:
        while control.poll() is None:
            with suppress(Unavailable, TimedOut):
                if not checked:
                    user.check_recorded(client.list_services())
                    checked = True
                if dice.random() < 0.06:
                    world.hurt(dice, client)
            user.ask(client)
            with suppress(subprocess.TimeoutExpired):
                control.wait(dice.uniform(0, 0.2))
    finally:
        deadline.cancel()
    assert control.wait() == -signal.SIGKILL, world.platform.control_log()


def _live_in_peace(world: World, user: User, client: Client) -> None:
    world.wait_ready(client)
    user.check_recorded(client.list_services())
    wait_for(lambda: user.open is None or user.ask(client), "the open wish to be heard")
    world.converge(user, client)
