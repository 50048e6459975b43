"""More requests in progress bring more instances, fewer take them away again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import write_app
from tests.e2e.platform import Platform, wait_for

pytestmark = pytest.mark.e2e


def test_concurrency_scales_out_and_in_without_a_failed_request(
    platform: Platform, tmp_path: Path
) -> None:
    manifest = "scale: {min: 0, max: 3, concurrency: 2, idle: 3s}\n"
    platform.tram("deploy", write_app(tmp_path / "app", "v1", manifest), "--name", "elastic")
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            statuses.append(platform.request("elastic", "/slow?0.3").status)

    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(load) for _ in range(6)]
        try:
            wait_for(
                lambda: (
                    [each["status"] for each in platform.service("elastic")["instances"]]
                    == ["healthy"] * 3
                ),
                "three instances",
                timeout_s=60,
            )
        finally:
            stop.set()
        for worker in workers:
            worker.result()
    assert set(statuses) == {200}
    platform.wait_status("elastic", "sleeping", timeout_s=60)
