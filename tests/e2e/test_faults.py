"""kill -9 anything: what was acknowledged comes true, what runs keeps serving, nothing is left."""

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, alive, wait_for
from tests.e2e.raw import head
from tramontane.processes.layout import make_layout

pytestmark = pytest.mark.e2e


class Load:
    """Requests in a loop from a few threads, each outcome kept."""

    def __init__(self, platform: Platform, service: str, workers: int = 4) -> None:
        self.outcomes: list[int] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers)
        self._platform, self._service = platform, service
        self._running = [self._pool.submit(self._loop) for _ in range(workers)]

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self.outcomes.append(self._platform.request(self._service).status)
            except OSError:
                self.outcomes.append(0)

    def __enter__(self) -> "Load":
        wait_for(lambda: len(self.outcomes) > 20, "load to flow")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()

    def flow(self, count: int = 200) -> None:
        before = len(self.outcomes)
        wait_for(lambda: len(self.outcomes) > before + count, "more requests")


def test_running_services_do_not_notice_a_dead_control_plane(
    platform: Platform, app_source: Path
) -> None:
    platform.tram("deploy", app_source, "--name", "lasting")
    before = platform.service("lasting")["instances"][0]
    with Load(platform, "lasting") as load:
        platform.kill_control()
        load.flow(300)
        platform.up()
        load.flow(300)
    assert set(load.outcomes) == {200}
    after = platform.service("lasting")["instances"]
    assert [each["id"] for each in after] == [before["id"]]
    assert [each["pid"] for each in after] == [before["pid"]], "adopted, not restarted"


def test_a_killed_instance_is_replaced(platform: Platform, app_source: Path) -> None:
    platform.tram("deploy", app_source, "--name", "mortal")
    victim = platform.service("mortal")["instances"][0]
    os.kill(victim["pid"], signal.SIGKILL)

    def replaced() -> bool:
        found = platform.service("mortal")["instances"]
        return bool(found) and found[0]["id"] != victim["id"] and found[0]["status"] == "healthy"

    wait_for(replaced, "a new instance")
    assert platform.request("mortal").status == 200


def test_killing_an_instance_under_load_fails_at_most_what_it_carried(
    platform: Platform, app_source: Path
) -> None:
    platform.tram("deploy", app_source, "--name", "loaded")
    platform.tram("scale", "loaded", "2")
    wait_for(
        lambda: [i["status"] for i in platform.service("loaded")["instances"]] == ["healthy"] * 2,
        "two healthy instances",
    )
    with Load(platform, "loaded", workers=4) as load:
        os.kill(platform.service("loaded")["instances"][0]["pid"], signal.SIGKILL)
        load.flow(300)
    failed = [outcome for outcome in load.outcomes if outcome != 200]
    assert len(failed) <= 4, "one per request in progress, four were"
    assert set(load.outcomes[-100:]) == {200}


def test_a_killed_gateway_comes_back_with_the_same_listeners(
    platform: Platform, app_source: Path
) -> None:
    platform.tram("deploy", app_source, "--name", "behind")
    pid = platform.read("status")["gateway"]["pid"]
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        try:
            return platform.request("behind").status == 200
        except OSError:
            return False

    wait_for(back, "the gateway to serve again")
    assert platform.read("status")["gateway"]["pid"] != pid


@pytest.mark.parametrize("died", [False, True], ids=["running", "dead_control_plane"])
def test_down_leaves_nothing(tmp_path: Path, app_source: Path, died: bool) -> None:
    platform = Platform(home=tmp_path / "home")
    layout = make_layout(platform.home)
    platform.up()
    try:
        platform.tram("deploy", app_source, "--name", "brief")
        pids = [each["pid"] for each in platform.service("brief")["instances"]]
        pids += [platform.control_pid(), platform.read("status")["gateway"]["pid"]]
        if died:
            platform.kill_control()
        assert layout.run.exists()
    finally:
        platform.down()
    assert not [pid for pid in pids if alive(pid)]
    assert not list(platform.processes())
    assert not layout.run.exists()
    assert (layout.gateway / "envoy.log").exists(), "one may want to know what Envoy said"
    platform.tram("status", check=6)


def test_stopping_with_a_watcher_is_nothing_to_complain_of(tmp_path: Path) -> None:
    platform = Platform(home=tmp_path / "home")
    platform.up()
    try:
        token = (platform.home / "credentials").read_text().strip()
        watch = head(
            b"GET /api/v1/watch HTTP/1.1", b"host: x", b"authorization: Bearer " + token.encode()
        )
        with socket.create_connection(("127.0.0.1", platform.api_port), timeout=10) as watcher:
            watcher.sendall(watch)
            assert watcher.recv(100).startswith(b"HTTP/1.1 200")
            platform.down()
    finally:
        platform.down()
    assert platform.complaints() == []
    assert platform.control_log().endswith("stopping: a signal asked for it\n")


def test_ports_that_are_taken_are_named_with_who_has_them(
    platform: Platform, tmp_path: Path
) -> None:
    second = Platform(home=tmp_path / "home")
    flags = {"--gateway": platform.gateway_port, "--api": platform.api_port}
    for flag, taken in flags.items():
        ports = {"--gateway": second.gateway_port, "--api": second.api_port, flag: taken}
        given = [word for name, port in ports.items() for word in (name, f"127.0.0.1:{port}")]
        said = second.tram("up", "--detach", *given, check=1).stderr
        assert f"port {taken} is taken" in said
        assert f"held by the platform of TRAM_HOME {platform.home} (" in said
        assert f"next: choose another with {flag} HOST:PORT" in said
        assert f"TRAM_HOME={platform.home} tram down" in said
    wait_for(lambda: not list(second.processes()), "the control planes that failed to end")
    second.down()
