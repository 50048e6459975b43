"""Files under /v1, asked as the gateway asks once it has checked a key."""

import pytest
from inference_world import InferenceWorld

from tramontane.api.inference import files


def on_disk(inference: InferenceWorld) -> list[str]:
    directory = inference.parts.contents.path("file_1").parent
    return sorted(each.name for each in directory.iterdir()) if directory.exists() else []


async def test_a_file_comes_back_as_it_went(inference: InferenceWorld) -> None:
    content = b'{"a": 1}\n--not-a-boundary\r\n\r\n' * 3 + b"no end"
    made = (await inference.upload(content)).json()
    assert (made["bytes"], made["num_lines"], made["purpose"]) == (len(content), 10, "batch")
    assert made["expires_at"] == made["created_at"] + 30 * 86400
    found = await inference.client.get(f"/v1/files/{made['id']}")
    assert found.json() == {**made, "deleted": False}
    read = await inference.client.get(f"/v1/files/{made['id']}/content")
    assert read.content == content
    assert inference.parts.contents.path(made["id"]).stat().st_mode & 0o777 == 0o600


async def test_other_purposes_stay_until_they_are_deleted(inference: InferenceWorld) -> None:
    made = (await inference.upload(fields={"purpose": "user_data"})).json()
    assert made["expires_at"] is None
    gone = await inference.client.delete(f"/v1/files/{made['id']}")
    assert gone.json() == {"id": made["id"], "object": "file", "deleted": True}
    assert on_disk(inference) == []
    again = await inference.client.delete(f"/v1/files/{made['id']}")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "not_found")


async def test_an_expired_file_is_not_there(inference: InferenceWorld) -> None:
    wanted = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = (await inference.upload(fields=wanted)).json()
    inference.clock.advance(3599)
    assert (await inference.client.get(f"/v1/files/{made['id']}")).status_code == 200
    inference.clock.advance(1)
    assert (await inference.client.get(f"/v1/files/{made['id']}")).status_code == 404
    assert (await inference.client.get("/v1/files")).json()["data"] == []


async def test_pages_follow_each_other_in_both_ways(inference: InferenceWorld) -> None:
    made = []
    for _ in range(5):
        made.append((await inference.upload()).json()["id"])
        inference.clock.advance(1)
    await inference.upload(fields={"purpose": "vision"})
    newest = made[::-1]
    seen: list[str] = []
    query = {"limit": 2, "purpose": "batch"}
    while True:
        page = (await inference.client.get("/v1/files", params=query)).json()
        seen += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    assert seen == newest
    oldest = (await inference.client.get("/v1/files?order=asc&purpose=batch")).json()
    assert [each["id"] for each in oldest["data"]] == made
    second = (await inference.client.get("/v1/files?page=1&page_size=2&purpose=batch")).json()
    assert [each["id"] for each in second["data"]] == newest[2:4]
    assert second["total"] == 5


async def test_a_project_sees_its_own_files_only(inference: InferenceWorld) -> None:
    made = (await inference.upload()).json()["id"]
    other = {"x-tramontane-project": "elsewhere"}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await inference.client.request(method, f"/v1/files/{made}{path}", headers=other)
        assert answer.status_code == 404
    assert (await inference.client.get("/v1/files", headers=other)).json()["data"] == []
    assert (await inference.client.get(f"/v1/files/{made}")).status_code == 200


async def test_a_key_of_every_project_has_no_files(inference: InferenceWorld) -> None:
    answer = await inference.client.get("/v1/files", headers={"x-tramontane-project": "*"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_full_project_takes_no_more(inference: InferenceWorld) -> None:
    assert (await inference.upload(b"x" * 900)).status_code == 200
    refused = await inference.upload(b"x" * 101)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
    assert len(on_disk(inference)) == 1
    assert (await inference.upload(b"x" * 100)).status_code == 200


async def test_what_is_too_large_leaves_nothing(
    inference: InferenceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FILE_BYTES_MAX", 100)
    monkeypatch.setattr(files, "BATCH_BYTES_MAX", 50)
    for content, purpose in ((b"x" * 101, "vision"), (b"x" * 51, "batch")):
        refused = await inference.upload(content, {"purpose": purpose})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "file_too_large")
    assert on_disk(inference) == []
    assert (await inference.upload(b"x" * 50)).status_code == 200


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"purpose": "anything"}, "purpose"),
        ({"expires_after[seconds]": "5"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "now"}, "expires_after[anchor]"),
        ({"expiry": "3"}, "expiry"),
        ({"visibility": "user"}, "visibility"),
    ],
)
async def test_a_wrong_field_is_named(
    inference: InferenceWorld, options: dict[str, str], param: str
) -> None:
    answer = await inference.upload(b"x", options)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert on_disk(inference) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=fi"),
        ("multipart/form-data; boundary=b", b"nothing of the kind"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
    ],
)
async def test_what_is_no_form_is_refused(
    inference: InferenceWorld, content_type: str, body: bytes
) -> None:
    answer = await inference.client.post(
        "/v1/files", content=body, headers={"content-type": content_type}
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert on_disk(inference) == []


async def test_fields_are_small(inference: InferenceWorld) -> None:
    answer = await inference.upload(b"x", {"more": "x" * 70_000})
    assert answer.status_code == 400
    assert "too large" in answer.json()["error"]["message"]


async def test_what_is_not_done_here_is_said(inference: InferenceWorld) -> None:
    made = (await inference.upload()).json()["id"]
    assert (await inference.client.get(f"/v1/files/{made}/url")).status_code == 501
    assert (await inference.client.get("/v1/files?search=x")).json()["error"]["param"] == "search"
    assert (await inference.client.get("/v1/files?limit=0")).json()["error"]["param"] == "limit"
    assert (await inference.client.put("/v1/files")).status_code == 405
    for url in ("/v1/files/a%00", "/v1/files?after=a%00", "/v1/batch/jobs/%00"):
        assert (await inference.client.get(url)).status_code in {400, 422}
