"""Files and batches with the clients people already have, while the platform is killed."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import mistralai.client
import openai
import pytest
from mistralai.client.errors import SDKError
from openai.types import Batch

from tests.e2e.platform import Platform, alive, wait_for

pytestmark = pytest.mark.e2e

OVER = {"completed", "failed", "expired", "cancelled"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def key(platform: Platform) -> dict[str, str]:
    platform.tram("deploy", "--model", "tiny", "--name", "tiny")
    return platform.read("tokens", "create", "--project", "default")


@pytest.fixture(scope="module")
def client(platform: Platform, key: dict[str, str]) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{platform.gateway_port}/v1"
    with openai.OpenAI(base_url=url, api_key=key["token"], max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def mistral(platform: Platform, key: dict[str, str]) -> Iterator[mistralai.client.Mistral]:
    url = f"http://127.0.0.1:{platform.gateway_port}"
    with mistralai.client.Mistral(server_url=url, api_key=key["token"]) as opened:
        yield opened


def make_body(number: int, **values: Any) -> dict[str, Any]:
    """Return a chat of a few tokens; every tenth is of an unknown model, every tenth is bad."""
    body = {
        "model": "tiny",
        "max_tokens": 24,
        "messages": [{"role": "user", "content": f"Count from {number}"}],
        **values,
    }
    if number % 10 == 3:
        body["model"] = "nobody"
    if number % 10 == 7:
        body["messages"] = "nonsense"
    return body


def expected_status(number: int) -> int:
    return {3: 404, 7: 400}.get(number % 10, 200)


def make_requests(count: int) -> bytes:
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": make_body(number)}
        for number in range(count)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def start(client: openai.OpenAI, content: bytes) -> Batch:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"of": "a test"}
    )


def wait_for_batch(
    client: openai.OpenAI, batch_id: str, condition: Callable[[Batch], bool], what: str
) -> Batch:
    def look() -> Batch | None:
        try:
            batch = client.batches.retrieve(batch_id)
        except (openai.InternalServerError, openai.APIConnectionError):
            return None  # the control plane or the gateway was just killed
        return batch if condition(batch) else None

    return wait_for(look, what, timeout_s=120)


def read_lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def check_results(lines: list[dict[str, Any]], count: int, prefix: str = "r") -> None:
    """Every request has one result, and it is the one that it must have."""
    assert Counter(each["custom_id"] for each in lines) == Counter(
        f"{prefix}{number}" for number in range(count)
    )
    for each in lines:
        number = int(each["custom_id"].removeprefix(prefix))
        assert each["response"]["status_code"] == expected_status(number), each
        assert each["error"] is None
        if expected_status(number) == 200:
            assert each["response"]["body"]["usage"]["completion_tokens"] > 0


def count_sent(platform: Platform, key_id: str) -> int:
    log = (platform.home / "gateway" / "access.log").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    return sum(each.get("key") == key_id and each["path"] == CHAT for each in lines)


def count_finished(platform: Platform, key_id: str) -> int:
    found = platform.read("usage", "--requests", "--key", key_id)["requests"]
    return sum(each["end"] == "finished" for each in found)


def test_a_batch_survives_the_death_of_everything(
    platform: Platform, client: openai.OpenAI, key: dict[str, str]
) -> None:
    before = count_finished(platform, key["id"])
    batch = start(client, make_requests(200))
    wait_for_batch(client, batch.id, lambda b: done(b) >= 20, "20 results")
    platform.kill_control()
    platform.up()
    now = wait_for_batch(client, batch.id, lambda b: done(b) >= 60, "60 results")
    assert now.status == "in_progress", "the kills have to fall in the middle"
    instance = platform.service("tiny")["instances"][0]["pid"]
    os.kill(instance, signal.SIGKILL)
    wait_for_batch(client, batch.id, lambda b: done(b) >= 100, "100 results")
    gateway = platform.read("status")["gateway"]["pid"]
    os.kill(gateway, signal.SIGKILL)
    wait_for(lambda: not alive(gateway), "the gateway to be gone")
    ended = wait_for_batch(client, batch.id, lambda b: b.status in OVER, "the end")
    assert ended.status == "completed"
    assert ended.request_counts
    assert (ended.request_counts.completed, ended.request_counts.failed) == (160, 40)
    outputs = read_lines(client, ended.output_file_id)
    errors = read_lines(client, ended.error_file_id)
    assert (len(outputs), len(errors)) == (160, 40)
    check_results(outputs + errors, 200)

    def counted() -> int:
        return count_finished(platform, key["id"]) - before

    # What was in progress at a kill may have come to its end at the model before it was run again.
    assert 160 <= wait_for(lambda: counted() >= 160 and counted(), "the ledger") <= 190


def done(batch: Batch) -> int:
    assert batch.request_counts
    return batch.request_counts.completed + batch.request_counts.failed


def test_nothing_is_run_twice_but_what_was_in_progress(
    platform: Platform, client: openai.OpenAI
) -> None:
    key = platform.read("tokens", "create", "--project", "default")
    with openai.OpenAI(base_url=client.base_url, api_key=key["token"], max_retries=0) as other:
        batch = start(other, make_requests(150))
    wait_for_batch(client, batch.id, lambda b: done(b) >= 30, "30 results")
    platform.kill_control()
    platform.up()
    ended = wait_for_batch(client, batch.id, lambda b: b.status in OVER, "the end")
    assert ended.status == "completed"
    files = (ended.output_file_id, ended.error_file_id)
    check_results([line for each in files for line in read_lines(client, each)], 150)

    def logged() -> int:
        return count_sent(platform, key["id"])

    assert wait_for(lambda: logged() >= 150 and logged(), "the log") <= 152


def test_mistral_s_client_runs_a_job(platform: Platform, mistral: mistralai.client.Mistral) -> None:
    requests = [{"custom_id": f"m{number}", "body": make_body(number)} for number in range(100)]
    content = "\n".join(map(json.dumps, requests)).encode()
    file = mistral.files.upload(
        file={"file_name": "requests.jsonl", "content": content}, purpose="batch"
    )
    assert file.num_lines == 100
    job = mistral.batch.jobs.create(input_files=[file.id], endpoint=CHAT, model="tiny")
    assert job.status == "QUEUED"

    def look() -> Any:
        try:
            found = mistral.batch.jobs.get(job_id=job.id)
        except SDKError:
            return None
        return found if found.completed_requests >= 20 else None

    wait_for(look, "20 results", timeout_s=60)
    platform.kill_control()
    platform.up()

    def is_over() -> Any:
        found = mistral.batch.jobs.get(job_id=job.id)
        return found if found.status not in {"QUEUED", "RUNNING"} else None

    ended = wait_for(is_over, "the end", timeout_s=120)
    assert (ended.status, ended.succeeded_requests, ended.failed_requests) == ("SUCCESS", 80, 20)
    lines = [
        json.loads(line)
        for file_id in (ended.output_file, ended.error_file)
        for line in mistral.files.download(file_id=file_id).read().splitlines()
    ]
    check_results(lines, 100, "m")
    assert job.id in [each.id for each in mistral.batch.jobs.list(status=["SUCCESS"]).data or []]


def test_inline_requests_come_back_inline(mistral: mistralai.client.Mistral) -> None:
    job = mistral.batch.jobs.create(
        endpoint="/v1/embeddings",
        model="tiny",
        requests=[{"custom_id": f"i{number}", "body": {"input": "x"}} for number in range(5)],
        metadata={"of": "a test"},
    )

    def is_over() -> Any:
        found = mistral.batch.jobs.get(job_id=job.id, inline=True)
        return found if found.status not in {"QUEUED", "RUNNING"} else None

    ended = wait_for(is_over, "the end")
    assert (ended.status, ended.metadata) == ("SUCCESS", {"of": "a test"})
    assert sorted(each["custom_id"] for each in ended.outputs) == [f"i{n}" for n in range(5)]
    assert all(each["response"]["body"]["data"][0]["embedding"] for each in ended.outputs)


def test_a_batch_wakes_its_model_and_a_cancelled_one_keeps_its_results(
    platform: Platform, client: openai.OpenAI
) -> None:
    platform.tram("scale", "tiny", "0")
    platform.wait_status("tiny", "sleeping")
    batch = start(client, make_requests(2000))
    wait_for_batch(client, batch.id, lambda b: done(b) >= 10, "10 results")
    assert client.batches.cancel(batch.id).status == "cancelling"
    ended = wait_for_batch(client, batch.id, lambda b: b.status in OVER, "the end")
    assert ended.status == "cancelled"
    lines = read_lines(client, ended.output_file_id) + read_lines(client, ended.error_file_id)
    assert len({each["custom_id"] for each in lines}) == len(lines) == 2000
    unsent = [each for each in lines if each["error"]]
    assert {each["error"]["code"] for each in unsent} == {"batch_cancelled"}
    assert 0 < len(unsent) < 2000


def test_lines_that_cannot_be_read_are_named(client: openai.OpenAI) -> None:
    batch = start(client, make_requests(3) + b"\nno json\n" + make_requests(1))
    ended = wait_for_batch(client, batch.id, lambda b: b.status in OVER, "the end")
    assert ended.status == "failed"
    assert ended.errors
    assert [(each.line, each.code) for each in ended.errors.data or []] == [
        (4, "invalid_json_line"),
        (5, "duplicate_custom_id"),
    ]
    assert ended.output_file_id is ended.error_file_id is None


def test_a_revoked_key_ends_its_batches(platform: Platform, client: openai.OpenAI) -> None:
    created = platform.read("tokens", "create", "--project", "default")
    url = str(client.base_url)
    with openai.OpenAI(base_url=url, api_key=created["token"], max_retries=0) as other:
        batch = start(other, make_requests(5000))
    wait_for_batch(client, batch.id, lambda b: done(b) >= 5, "5 results")
    platform.tram("tokens", "delete", created["id"])
    ended = wait_for_batch(client, batch.id, lambda b: b.status in OVER, "the end")
    assert ended.status == "cancelled"
    assert ended.errors
    assert [each.code for each in ended.errors.data or []] == ["key_revoked"]


def test_files_come_and_go(client: openai.OpenAI, mistral: mistralai.client.Mistral) -> None:
    file = client.files.create(file=("notes.txt", b"some notes"), purpose="user_data")
    assert client.files.retrieve(file.id).bytes == 10
    assert client.files.content(file.id).read() == b"some notes"
    assert file.id in [each.id for each in client.files.list(purpose="user_data", limit=1)]
    assert file.id in [each.id for each in mistral.files.list(page_size=100).data]
    assert not mistral.files.retrieve(file_id=file.id).deleted
    assert mistral.files.delete(file_id=file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert refused.value.param == "input_file_id"
    with pytest.raises(SDKError) as unknown:
        mistral.batch.jobs.get(job_id="batch_none")
    assert json.loads(unknown.value.body)["raw_status_code"] == unknown.value.status_code == 404
