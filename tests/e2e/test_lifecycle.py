"""Deploy, sleep, wake, scale, roll out, roll back, pause, delete: as a user does it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import write_app
from tests.e2e.platform import Platform, wait_for

pytestmark = pytest.mark.e2e

QUICK = "scale: {min: 0, max: 3, idle: 2s}\n"


def deploy(platform: Platform, source: Path, name: str, *flags: str, check: int = 0) -> str:
    done = platform.tram("deploy", source, "--name", name, *flags, check=check)
    return done.stdout + done.stderr


def test_deploy_prints_what_was_detected_and_the_url(platform: Platform, app_source: Path) -> None:
    output = deploy(platform, app_source, "first")
    assert "python" in output.lower()
    assert f"http://first.default.localhost:{platform.gateway_port}" in output
    answer = platform.request("first")
    assert answer.status == 200
    assert answer.body.startswith(b"v1 ")
    service = platform.service("first")
    assert service["status"] == "healthy"
    assert service["instances"][0]["status"] == "healthy"
    assert service["instances"][0]["cell"] == "local"


def test_deploying_the_same_again_changes_nothing(platform: Platform, app_source: Path) -> None:
    deploy(platform, app_source, "same")
    before = platform.service("same")
    deploy(platform, app_source, "same")
    after = platform.service("same")
    assert after["deployment"] == before["deployment"]
    assert [i["id"] for i in after["instances"]] == [i["id"] for i in before["instances"]]


def test_a_host_without_a_service_is_404_in_words(platform: Platform) -> None:
    answer = platform.request("nobody")
    assert answer.status == 404
    assert "no service has this name" in answer.json["error"]["message"]


def test_sleep_then_200_requests_wake_it_once(platform: Platform, tmp_path: Path) -> None:
    source = write_app(tmp_path / "app", "v1", QUICK)
    deploy(platform, source, "sleepy")
    platform.wait_status("sleepy", "sleeping")
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: platform.request("sleepy"), range(200)))
    assert [answer.status for answer in answers] == [200] * 200
    assert len({answer.body.split()[1] for answer in answers}) == 1, "one wake, one instance"


def test_a_large_body_is_held_and_delivered_whole(platform: Platform, tmp_path: Path) -> None:
    deploy(platform, write_app(tmp_path / "app", "v1", QUICK), "bodies")
    platform.wait_status("bodies", "sleeping")
    answer = platform.request("bodies", "/", method="POST", body=b"x" * 5_000_000)
    assert answer.status == 200
    assert answer.body.endswith(b" 5000000")


def test_scale_by_hand_and_back_to_automatic(platform: Platform, app_source: Path) -> None:
    deploy(platform, app_source, "sized", "--max", "4")
    platform.tram("scale", "sized", "3")
    wait_for(
        lambda: [i["status"] for i in platform.service("sized")["instances"]] == ["healthy"] * 3,
        "three healthy instances",
    )
    platform.tram("scale", "sized", "1")
    wait_for(lambda: len(platform.service("sized")["instances"]) == 1, "one instance")
    platform.tram("scale", "sized", "0")
    platform.wait_status("sized", "sleeping")
    assert platform.request("sized").status == 200, "the next request wakes it"


def test_no_stream_is_cut_by_scale_in(platform: Platform, app_source: Path) -> None:
    deploy(platform, app_source, "streams")
    platform.tram("scale", "streams", "2")
    wait_for(
        lambda: [i["status"] for i in platform.service("streams")["instances"]] == ["healthy"] * 2,
        "two healthy instances",
    )
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(platform.request, "streams", "/stream?12") for _ in range(8)]
        wait_for(lambda: any(f.running() for f in streams), "streams to be open")
        platform.tram("scale", "streams", "1")
        bodies = [stream.result().body for stream in streams]
    assert all(body.endswith(b"11\nend\n") for body in bodies)


def test_a_rollout_under_load_fails_no_request(platform: Platform, tmp_path: Path) -> None:
    source = write_app(tmp_path / "app", "v1")
    deploy(platform, source, "rolling")
    seen: list[tuple[int, bytes]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answer = platform.request("rolling")
            seen.append((answer.status, answer.body.split()[0]))

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(load) for _ in range(4)]
        try:
            deploy(platform, write_app(tmp_path / "app", "v2"), "rolling")
            wait_for(lambda: seen and seen[-1][1] == b"v2", "the new version to answer")
        finally:
            stop.set()
        for worker in workers:
            worker.result()
    assert {status for status, _ in seen} == {200}
    platform.tram("rollback", "rolling")
    wait_for(lambda: platform.request("rolling").body.startswith(b"v1 "), "the old version")


def test_a_version_that_does_not_start_leaves_the_old_one(
    platform: Platform, tmp_path: Path
) -> None:
    deploy(platform, write_app(tmp_path / "app", "v1"), "steady")
    broken = write_app(tmp_path / "app", "v2")
    (broken / "main.py").write_text("raise SystemExit('cannot find the flux capacitor')\n")
    (broken / "Procfile").write_text("web: python main.py\n")
    output = deploy(platform, broken, "steady", check=1)
    assert "flux capacitor" in output
    assert platform.request("steady").body.startswith(b"v1 ")
    assert platform.service("steady")["status"] == "degraded"


def test_a_failed_build_shows_the_tools_own_error(platform: Platform, tmp_path: Path) -> None:
    deploy(platform, write_app(tmp_path / "app", "v1"), "builds")
    broken = write_app(tmp_path / "app", "v2")
    (broken / "requirements.txt").write_text("no-such-package-of-tramontane==9.9\n")
    output = deploy(platform, broken, "builds", check=1)
    assert "no-such-package-of-tramontane" in output
    assert platform.request("builds").body.startswith(b"v1 ")


def test_a_service_that_cannot_start_refuses_with_a_reason_and_backs_off(
    platform: Platform, tmp_path: Path
) -> None:
    source = tmp_path / "app"
    source.mkdir()
    (source / "Procfile").write_text("web: sh start.sh\n")
    (source / "start.sh").write_text(
        "if [ -e /tmp/never ]; then exit 1; fi\necho starting; exec sleep 1000\n"
    )
    (source / "tramontane.yaml").write_text("probe: {grace: 2s}\n")
    deploy(platform, source, "stuck", check=1)
    first = platform.request("stuck")
    assert first.status == 503
    assert "stuck" in first.json["error"]["message"]


def test_pause_resume_delete(platform: Platform, app_source: Path) -> None:
    deploy(platform, app_source, "pausing")
    platform.tram("pause", "pausing")
    wait_for(lambda: platform.request("pausing").status == 503, "the refusal")
    assert platform.service("pausing")["status"] == "paused"
    platform.tram("resume", "pausing")
    wait_for(lambda: platform.request("pausing").status == 200, "it to answer again")
    platform.tram("delete", "pausing")
    wait_for(lambda: platform.request("pausing").status == 404, "it to be gone")
    wait_for(
        lambda: platform.tram("services", "get", "pausing", check=None).returncode == 4,
        "the name to be free",
    )


def test_logs_show_build_and_runtime(platform: Platform, app_source: Path) -> None:
    deploy(platform, app_source, "talking")
    platform.request("talking", "/log?hello-from-the-app")
    wait_for(
        lambda: "hello-from-the-app" in platform.tram("logs", "talking").stdout,
        "the app's own line",
    )
    assert platform.tram("logs", "talking", "--source", "build").stdout.strip()


def test_exec_runs_inside_the_sandbox(platform: Platform, app_source: Path) -> None:
    deploy(platform, app_source, "inside")
    done = platform.tram("exec", "inside", "--", "sh", "-c", "echo $TRAM_SERVICE; ls /app")
    assert done.stdout.splitlines()[0] == "inside"
    assert "main.py" in done.stdout


def test_status_and_doctor_speak_json(platform: Platform) -> None:
    status = platform.read("status")
    assert status["control_plane"]["pid"] > 0
    assert status["gateway"]["pid"] > 0
    doctor = json.loads(platform.tram("doctor", "-o", "json", check=None).stdout)
    assert doctor
