"""Batches under /v1 in the words of both APIs, asked as the gateway asks."""

from dataclasses import replace

import httpx
import pytest
from inference_world import InferenceWorld

from tramontane.domain.batch import BatchError, BatchStatus

CHAT = "/v1/chat/completions"
JOBS = "/v1/batch/jobs"
SHARED = {"endpoint": CHAT, "completion_window": "24h"}


async def make(inference: InferenceWorld, **values: object) -> dict:
    file_id = (await inference.upload()).json()["id"]
    body = {"input_file_id": file_id, **SHARED, **values}
    answer = await inference.client.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def advance(inference: InferenceWorld, batch_id: str, *path: BatchStatus, **values: int) -> None:
    store = inference.parts.store
    for status in path:
        batch = store.find_batch(batch_id)
        assert batch
        inference.clock.advance(1)
        assert store.advance_batch(batch, status, inference.clock.now(), counts=values)


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    said = answer.json()["error"]
    assert set(said) == {"message", "type", "param", "code"}
    return answer.status_code, said["code"], said["param"]


async def test_a_batch_from_its_beginning_to_its_end(inference: InferenceWorld) -> None:
    made = await make(inference, metadata={"team": "é"})
    assert inference.nudged == [made["id"]]
    assert made["expires_at"] == made["created_at"] + 24 * 3600
    assert (made["status"], made["metadata"]) == ("validating", {"team": "é"})
    assert made["output_file_id"] is made["in_progress_at"] is made["errors"] is None
    assert made["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    advance(inference, made["id"], BatchStatus.IN_PROGRESS, total=3, succeeded=3)
    found = (await inference.client.get(f"/v1/batches/{made['id']}")).json()
    assert found["output_file_id"] is None, "it is not whole yet"
    assert found["in_progress_at"] == made["created_at"] + 1
    advance(inference, made["id"], BatchStatus.FINALIZING, BatchStatus.COMPLETED)
    found = (await inference.client.get(f"/v1/batches/{made['id']}")).json()
    assert (found["status"], found["completed_at"]) == ("completed", made["created_at"] + 3)
    assert found["output_file_id"].startswith("file_")
    assert found["error_file_id"] is None


async def test_the_same_batch_in_mistral_s_words(inference: InferenceWorld) -> None:
    made = await make(inference)
    path = f"{JOBS}/{made['id']}"
    queued = (await inference.client.get(path)).json()
    assert (queued["status"], queued["input_files"]) == ("QUEUED", [made["input_file_id"]])
    batch = inference.parts.store.find_batch(made["id"])
    assert batch
    errors = [BatchError(code="x", message="bad", line=line) for line in (1, 2)]
    inference.parts.store.advance_batch(batch, BatchStatus.FAILED, 5.0, errors=errors)
    failed = (await inference.client.get(path)).json()
    assert (failed["status"], failed["completed_at"]) == ("FAILED", 5)
    assert failed["errors"] == [
        {"message": "line 1: bad", "count": 1},
        {"message": "line 2: bad", "count": 1},
    ]


async def test_inline_requests_are_kept_as_a_file(inference: InferenceWorld) -> None:
    requests = [{"custom_id": "a", "body": {"x": 1}}, {"body": {}}]
    body = {"endpoint": CHAT, "model": "tiny", "requests": requests, "timeout_hours": 2}
    job = (await inference.client.post(JOBS, json=body)).json()
    assert job["model"] == "tiny"
    content = await inference.client.get(f"/v1/files/{job['input_files'][0]}/content")
    assert content.text == '{"custom_id": "a", "body": {"x": 1}}\n{"custom_id": null, "body": {}}\n'
    batch = inference.parts.store.find_batch(job["id"])
    assert batch
    assert (batch.named, batch.expires_at - batch.created_at) == (False, 7200.0)


async def test_results_come_with_the_job_if_wanted(inference: InferenceWorld) -> None:
    made = await make(inference)
    batch = inference.parts.store.find_batch(made["id"])
    assert batch
    for file_id in (batch.output_file, batch.error_file):
        with inference.parts.contents.append(file_id) as file:
            file.write(b'{"custom_id": "%s"}\n' % file_id.encode())
    path = f"{JOBS}/{made['id']}"
    assert (await inference.client.get(f"{path}?inline=true")).json()["outputs"] is None
    ended = (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.COMPLETED)
    advance(inference, made["id"], *ended, total=2, succeeded=1, failed=1)
    outputs = (await inference.client.get(f"{path}?inline=true")).json()["outputs"]
    assert [each["custom_id"] for each in outputs] == [batch.output_file, batch.error_file]
    assert (await inference.client.get(path)).json()["outputs"] is None


async def test_cancelling_is_asked_for_once(inference: InferenceWorld) -> None:
    made = await make(inference)
    for _ in range(2):
        answer = await inference.client.post(f"/v1/batches/{made['id']}/cancel")
        assert answer.json()["status"] == "cancelling"
    job = (await inference.client.post(f"{JOBS}/{made['id']}/cancel")).json()
    assert job["status"] == "CANCELLATION_REQUESTED"
    assert set(inference.nudged) == {made["id"]}
    advance(inference, made["id"], BatchStatus.CANCELLED)
    gone = await inference.client.delete(f"{JOBS}/{made['id']}")
    assert gone.json() == {"id": made["id"], "object": "batch", "deleted": True}


async def test_what_is_over_cannot_be_cancelled(inference: InferenceWorld) -> None:
    made = await make(inference)
    assert (await inference.client.delete(f"{JOBS}/{made['id']}")).status_code == 409
    advance(inference, made["id"], BatchStatus.FAILED)
    answer = await inference.client.post(f"/v1/batches/{made['id']}/cancel")
    assert error(answer)[:2] == (409, "conflict")


async def test_a_file_stays_while_a_batch_needs_it(inference: InferenceWorld) -> None:
    made = await make(inference)
    path = f"/v1/files/{made['input_file_id']}"
    assert error(await inference.client.delete(path))[:2] == (409, "conflict")
    inference.clock.advance(31 * 86400)
    assert inference.parts.store.forget_expired_files(inference.clock.now()) == 0
    advance(inference, made["id"], BatchStatus.FAILED)
    assert inference.parts.store.forget_expired_files(inference.clock.now()) == 1


async def test_lists_are_parted(inference: InferenceWorld) -> None:
    made = []
    for _ in range(3):
        made.append((await make(inference))["id"])
        inference.clock.advance(1)
    first = (await inference.client.get("/v1/batches?limit=2")).json()
    assert [each["id"] for each in first["data"]] == made[:0:-1]
    assert first["has_more"]
    rest = (await inference.client.get(f"/v1/batches?after={first['last_id']}")).json()
    assert [each["id"] for each in rest["data"]] == made[:1]
    advance(inference, made[0], BatchStatus.FAILED)
    queries = {
        "page=0&page_size=1&order_by=created": made[:1],
        "status=FAILED": made[:1],
        "status=FAILED&status=QUEUED": made[::-1],
        "model=tiny": [],
        "created_by_me=true": made[::-1],
        "created_after=2100-01-01T00:00:00%2B00:00": [],
    }
    for query, expected in queries.items():
        found = (await inference.client.get(f"{JOBS}?{query}")).json()
        assert [each["id"] for each in found["data"]] == expected, query
    assert (await inference.client.get(f"{JOBS}?page_size=1")).json()["total"] == 3
    other = {"x-tramontane-key": "tok_2"}
    mine = await inference.client.get(f"{JOBS}?created_by_me=true", headers=other)
    assert mine.json()["total"] == 0


async def test_a_project_sees_its_own_batches_only(inference: InferenceWorld) -> None:
    made = await make(inference)
    other = {"x-tramontane-project": "elsewhere"}
    for method, path in (("GET", ""), ("POST", "/cancel")):
        for root in ("/v1/batches", JOBS):
            url = f"{root}/{made['id']}{path}"
            assert (await inference.client.request(method, url, headers=other)).status_code == 404
    body = {"input_file_id": made["input_file_id"], **SHARED}
    stolen = await inference.client.post("/v1/batches", json=body, headers=other)
    assert error(stolen) == (400, "invalid_file", "input_file_id")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input_file_id": "file_none"}, "invalid_file", "input_file_id"),
        ({"endpoint": "/v1/images"}, "invalid_request", "endpoint"),
        ({"completion_window": "1h"}, "invalid_request", "completion_window"),
        ({"metadata": {"a": "x" * 513}}, "invalid_request", "metadata.a"),
        ({"metadata": {"a": 1}}, "invalid_request", "metadata.a"),
        ({"color": "red"}, "invalid_request", "color"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "invalid_request",
            "output_expires_after.seconds",
        ),
    ],
)
async def test_a_wrong_wish_is_named(
    inference: InferenceWorld, change: dict, code: str, param: str
) -> None:
    file_id = (await inference.upload()).json()["id"]
    body = {"input_file_id": file_id, **SHARED, **change}
    assert error(await inference.client.post("/v1/batches", json=body)) == (400, code, param)
    assert (await inference.client.get("/v1/batches")).json()["data"] == []
    assert inference.nudged == []


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"input_files": ["file_none"]},
        {"input_files": []},
        {"requests": []},
        {"requests": [{"custom_id": "a"}]},
        {"requests": [{"body": {}}], "input_files": ["file_1"]},
        {"requests": [{"body": {}}], "timeout_hours": 169},
        {"requests": [{"body": {}}], "agent_id": "ag_1"},
        {"requests": [{"body": {}}], "endpoint": "/v1/ocr"},
    ],
)
async def test_errors_of_jobs_have_mistral_s_shape(inference: InferenceWorld, change: dict) -> None:
    answer = await inference.client.post(JOBS, json={"endpoint": CHAT, **change})
    said = answer.json()
    assert answer.status_code in {400, 422}
    assert (said["object"], said["raw_status_code"]) == ("error", answer.status_code)
    assert said["type"] == "invalid_request_error"
    assert inference.nudged == []


async def test_only_files_of_requests_will_do(inference: InferenceWorld) -> None:
    file_id = (await inference.upload(fields={"purpose": "vision"})).json()["id"]
    body = {"input_file_id": file_id, **SHARED}
    answer = await inference.client.post("/v1/batches", json=body)
    assert error(answer) == (400, "invalid_file", "input_file_id")


async def test_what_is_no_json_is_refused(inference: InferenceWorld) -> None:
    for content in (b"", b"[]", b"{", b'{"endpoint": "\xff"}'):
        answer = await inference.client.post("/v1/batches", content=content)
        assert answer.status_code == 400, content


async def test_late_counts_change_nothing_back(inference: InferenceWorld) -> None:
    made = await make(inference)
    store = inference.parts.store
    store.count_results(made["id"], 5, 1)
    store.count_results(made["id"], 3, 1)
    batch = store.find_batch(made["id"])
    assert batch
    assert (batch.succeeded, batch.failed) == (5, 1)
    stale = replace(batch, status=BatchStatus.IN_PROGRESS)
    assert not store.advance_batch(stale, BatchStatus.FINALIZING, 1.0)
