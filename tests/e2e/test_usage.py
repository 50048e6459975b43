"""The ledger and limits of keys, end to end: whoever is killed, what was used is known."""

import http.client
import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.conftest import running_platform
from tests.e2e.platform import Platform, wait_for

pytestmark = pytest.mark.e2e

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
LONG = {"model": "tiny", "prompt": "Paris", "max_tokens": 900, "stream": True}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """A platform of its own, whose parts are killed."""
    with running_platform() as running:
        running.tram("deploy", "--model", "tiny", "--name", "tiny")
        yield running


def make_key(platform: Platform, *options: str) -> tuple[str, str]:
    made = platform.read("tokens", "create", "--project", "default", *options)
    return made["id"], made["token"]


def records_of(platform: Platform, key: str) -> list[Any]:
    found = platform.read("usage", "--requests", "--key", key)
    return sorted(found["requests"], key=lambda each: each["at"])


@dataclass
class Customer:
    """Asks one thing after another with a key of its own, and keeps what it was told."""

    platform: Platform
    key: str
    token: str
    dice: random.Random
    told: list[tuple[int, int]] = field(default_factory=list)
    asked: int = 0

    def live(self, requests: int) -> None:
        while self.asked < requests:
            self.asked += 1
            try:
                if self.dice.random() < 0.4:
                    self._break_off()
                else:
                    self._ask()
            except (OSError, http.client.HTTPException):
                continue  # somebody was killed

    def _send(self, path: str, body: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.platform.gateway_port, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        return connection

    def _ask(self) -> None:
        connection = self._send(
            "/v1/chat/completions",
            {"model": "tiny", "messages": QUESTION, "max_tokens": self.dice.randrange(2, 9)},
        )
        try:
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                usage = json.loads(body)["usage"]
                self.told.append((usage["prompt_tokens"], usage["completion_tokens"]))
        finally:
            connection.close()

    def _break_off(self) -> None:
        connection = self._send("/v1/completions", LONG)
        try:
            connection.getresponse().read(self.dice.randrange(1, 4000))
        finally:
            connection.close()


def test_whoever_is_killed_every_request_is_counted_once(platform: Platform) -> None:
    dice = random.Random(11)
    customers = [
        Customer(platform, *make_key(platform), random.Random(dice.random())) for _ in range(6)
    ]

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def reached(count: int) -> bool:
        return sum(each.asked for each in customers) >= count

    def supervisor() -> int:
        pid = platform.service("tiny")["instances"][0]["pid"]
        # The program's parents are bubblewrap's two processes, and theirs the supervisor.
        for _ in range(3):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid

    with ThreadPoolExecutor(len(customers)) as pool:
        lives = [pool.submit(each.live, 60) for each in customers]
        wait_for(lambda: reached(60), "requests to flow")
        kill(platform.service("tiny")["instances"][0]["pid"])
        wait_for(lambda: reached(130), "requests to flow on")
        platform.kill_control()
        wait_for(lambda: reached(160), "requests to flow on")
        platform.up()
        kill(platform.read("status")["gateway"]["pid"])
        wait_for(lambda: reached(230), "requests to flow on")
        platform.wait_status("tiny", "healthy")
        kill(supervisor())
        for each in lives:
            each.result(120)

    for customer in customers:

        def settled(customer: Customer = customer) -> bool:
            ends = [each["end"] for each in records_of(platform, customer.key)]
            return ends.count("finished") >= len(customer.told)

        wait_for(settled, "the ledger to have what was told")
        records = records_of(platform, customer.key)
        finished = [
            (each["prompt_tokens"], each["completion_tokens"])
            for each in records
            if each["end"] == "finished"
        ]
        # What a customer was told is there, in order; what it was not told in time may be too.
        rest = iter(finished)
        assert all(told in rest for told in customer.told)
        assert len(records) <= customer.asked
        ids = [each["request_id"] for each in records]
        assert len(ids) == len(set(ids)), "no request is there twice"
        assert {each["end"] for each in records} <= {"finished", "aborted", "cut", "refused"}
    ends = [each["end"] for one in customers for each in records_of(platform, one.key)]
    assert ends.count("aborted") > 20
    assert ends.count("cut") > 0
    assert not list((platform.home / "ledger").glob("*.lines"))[1:], "books of the dead are closed"


def test_limits_are_told_with_their_reason_and_when_to_come_back(platform: Platform) -> None:
    _, token = make_key(platform, "--requests-per-minute", "2")
    base = f"http://127.0.0.1:{platform.gateway_port}/v1"
    with openai.OpenAI(base_url=base, api_key=token, max_retries=0) as client:
        for _ in range(2):
            client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=4)  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=4)  # type: ignore[arg-type]
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    assert "2 requests per minute" in refused.value.message


def test_a_limit_that_is_taken_away_holds_no_longer(platform: Platform) -> None:
    key, token = make_key(platform, "--requests-per-minute", "1")
    base = f"http://127.0.0.1:{platform.gateway_port}/v1"
    with openai.OpenAI(base_url=base, api_key=token, max_retries=0) as client:
        client.completions.create(model="tiny", prompt="Paris", max_tokens=2)
        with pytest.raises(openai.RateLimitError):
            client.completions.create(model="tiny", prompt="Paris", max_tokens=2)
        platform.kill_control()
        with pytest.raises(openai.RateLimitError):
            client.completions.create(model="tiny", prompt="Paris", max_tokens=2)
        platform.up()
        platform.tram("tokens", "limit", key)
        client.completions.create(model="tiny", prompt="Paris", max_tokens=2)
