"""Files and batches on the command line."""

from tests.unit.cli.fake import Tram

BATCH = {
    "id": "batch_1",
    "status": "failed",
    "endpoint": "/v1/chat/completions",
    "key_id": "tok_1",
    "total": 3,
    "succeeded": 1,
    "failed": 1,
    "errors": [{"code": "invalid_json_line", "message": "no JSON", "line": 2}],
    "created_at": 1_700_000_000.0,
}
LISTED = """\
ID       STATUS  ENDPOINT              DONE    FAILED  KEY    CREATED
batch_1  failed  /v1/chat/completions  2 of 3  1       tok_1  2023-11-14 22:13:20Z
"""
FILES = """\
ID      NAME      PURPOSE  SIZE   LINES  CREATED               EXPIRES
file_1  in.jsonl  batch    2 KiB  7      2023-11-14 22:13:20Z  never
"""


def test_files_list(tram: Tram) -> None:
    file = {
        "id": "file_1",
        "name": "in.jsonl",
        "purpose": "batch",
        "size_bytes": 2048,
        "lines": 7,
        "created_at": 1_700_000_000.0,
        "expires_at": None,
    }
    tram.api.on("GET", "projects/shop/files", [file])
    assert tram("files", "list", "-p", "shop").out == FILES


def test_batches_list(tram: Tram) -> None:
    tram.api.on("GET", "projects/default/batches", [BATCH])
    assert tram("batches", "list").out == LISTED


def test_batches_get_says_what_is_wrong(tram: Tram) -> None:
    tram.api.on("GET", "projects/default/batches/batch_1", BATCH)
    assert "invalid_json_line: line 2: no JSON" in tram("batches", "get", "batch_1").out


def test_batches_cancel(tram: Tram) -> None:
    answer = {**BATCH, "status": "cancelling", "errors": []}
    tram.api.on("POST", "projects/default/batches/batch_1/cancel", answer)
    assert "cancelling" in tram("batches", "cancel", "batch_1").out


def test_an_unknown_batch_ends_with_4(tram: Tram) -> None:
    done = tram("batches", "get", "batch_9")
    assert done.code == 4
    assert "tram batches list" in done.err
