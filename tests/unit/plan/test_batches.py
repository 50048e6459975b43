"""What is a good request, how many may be sent at once, and what is tried again."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.batch import BATCH_TRANSITIONS, BatchError, BatchStatus
from tramontane.plan.batches import (
    ATTEMPTS_MAX,
    ERRORS_MAX,
    EXPIRED,
    PAUSE_MAX_S,
    REQUESTS_MAX,
    Line,
    ModelLoad,
    check_lines,
    make_answered,
    make_unanswered,
    plan_end,
    plan_pause,
    plan_room,
    read_line,
    read_number,
)
from tramontane.testing.batches import make_batch, make_line

NAMED = make_batch()
FREE = make_batch(named=False, model="tiny")


def test_a_good_line_is_sent_as_it_is() -> None:
    text = make_line(0, body={"model": "tiny", "messages": ["é"], "seed": 2**70})
    line = read_line(NAMED, 7, text)
    assert isinstance(line, Line)
    assert (line.number, line.custom_id, line.model) == (7, "r0", "tiny")
    assert json.loads(line.body) == {"model": "tiny", "messages": ["é"], "seed": 2**70}


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        (b"not json", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b'{"custom_id": NaN}', "invalid_json_line", None),
        (b'{"a":' * 100_000, "invalid_json_line", None),
        (b"\xff\xfe\xfd", "invalid_json_line", None),
        (make_line(0, custom_id=None), "missing_required_parameter", "custom_id"),
        (make_line(0, custom_id=7), "invalid_custom_id", "custom_id"),
        (make_line(0, custom_id=""), "invalid_custom_id", "custom_id"),
        (make_line(0, method=None), "missing_required_parameter", "method"),
        (make_line(0, method="GET"), "invalid_method", "method"),
        (make_line(0, url="/v1/embeddings"), "invalid_url", "url"),
        (make_line(0, body=None), "missing_required_parameter", "body"),
        (make_line(0, body="text"), "invalid_type", "body"),
        (make_line(0, body={}), "missing_required_parameter", "body.model"),
        (make_line(0, body={"model": 1}), "invalid_type", "body.model"),
        (make_line(0, body={"model": "m", "stream": True}), "unsupported_parameter", "body.stream"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(text: bytes, code: str, param: str | None) -> None:
    wrong = read_line(NAMED, 4, text)
    assert isinstance(wrong, BatchError)
    assert (wrong.code, wrong.param, wrong.line) == (code, param, 5)


def test_where_the_batch_says_it_a_line_need_not() -> None:
    line = read_line(FREE, 0, b'{"body": {"prompt": "x"}}')
    assert isinstance(line, Line)
    assert (line.custom_id, line.model) == (None, "tiny")
    assert json.loads(line.body)["model"] == "tiny"
    own = read_line(FREE, 0, b'{"body": {"model": "other"}}')
    assert isinstance(own, Line)
    assert own.model == "other"
    wrong = read_line(FREE, 0, b'{"url": "/v1/embeddings", "body": {}}')
    assert isinstance(wrong, BatchError)


@given(st.binary(max_size=200))
def test_no_line_breaks_the_reading(text: bytes) -> None:
    assert isinstance(read_line(NAMED, 0, text), Line | BatchError)


def test_a_name_is_given_once() -> None:
    lines = [(number, make_line(number % 3)) for number in range(4)]
    check = check_lines(NAMED, lines)
    assert [(each.code, each.line) for each in check.errors] == [("duplicate_custom_id", 4)]
    nameless = [(number, b'{"body": {}}') for number in range(4)]
    assert check_lines(FREE, nameless).errors == ()
    assert check_lines(FREE, nameless).total == 4


def test_limits_are_held() -> None:
    assert [each.code for each in check_lines(NAMED, []).errors] == ["empty_file"]
    nameless = ((number, b'{"body": {}}') for number in range(REQUESTS_MAX + 1))
    assert [each.code for each in check_lines(FREE, nameless).errors] == ["too_many_requests"]
    bad = ((number, b"x") for number in range(ERRORS_MAX * 2))
    assert len(check_lines(NAMED, bad).errors) == ERRORS_MAX


def load(in_progress: int, *, instances: int = 1, concurrency: float = 20.0) -> ModelLoad:
    return ModelLoad(instances=instances, concurrency=concurrency, in_progress=in_progress)


@pytest.mark.parametrize(
    ("seen", "ours", "room"),
    [
        (None, 0, 1),
        (load(0), 0, 2),
        (load(2), 2, 2),
        (load(3), 2, 1),
        (load(4), 2, 0),
        (load(9), 0, 0),
        (load(0, instances=0), 0, 2),
        (load(0, instances=3), 0, 6),
        (load(0, concurrency=1.0), 0, 1),
        (load(2, concurrency=1.0), 1, 0),
        (load(40, concurrency=256.0), 30, 22),
        (load(1), 2, 2),
    ],
)
def test_a_batch_gives_way(seen: ModelLoad | None, ours: int, room: int) -> None:
    assert plan_room(seen, ours) == room


@given(
    st.integers(0, 50), st.integers(0, 50), st.integers(0, 5), st.floats(min_value=1, max_value=500)
)
def test_a_batch_alone_makes_no_model_scale_out(
    others: int, ours: int, instances: int, concurrency: float
) -> None:
    seen = load(others + ours, instances=instances, concurrency=concurrency)
    room = plan_room(seen, ours)
    assert room >= 1 or others >= 1
    assert room == 0 or others + room <= max(instances, 1) * concurrency


def test_only_what_may_change_is_tried_again() -> None:
    for status in (200, 400, 401, 404, 413, 422):
        assert plan_pause(status, 1, None) is None
    pauses = [plan_pause(503, attempts, None) for attempts in range(1, ATTEMPTS_MAX + 1)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, PAUSE_MAX_S, None]
    assert plan_pause(None, 1, None) == 1.0
    assert plan_pause(429, 10_000, 5.0) == PAUSE_MAX_S
    assert [plan_pause(500, attempts, None) for attempts in (1, 2, 3)] == [1.0, 2.0, None]
    assert plan_pause(503, 1, 5.0) == 5.0
    assert plan_pause(503, 1, 5000.0) == PAUSE_MAX_S


def test_results_say_whose_they_are() -> None:
    line = Line(number=12, custom_id="é", model="tiny", body=b"{}")
    answered = make_answered(NAMED, line, 200, b'{"a": 1}')
    assert answered.endswith(b"}\n")
    assert answered.count(b"\n") == 1
    assert read_number(answered) == 12
    assert json.loads(answered) == {
        "id": "batch_req_1_12",
        "custom_id": "é",
        "response": {"status_code": 200, "request_id": "batch_req_1_12", "body": {"a": 1}},
        "error": None,
    }
    half = make_answered(NAMED, replace(line, custom_id="\ud800"), 200, b'"\\ud800"')
    assert json.loads(half)["custom_id"] == json.loads(half)["response"]["body"] == "\ud800"
    odd = json.loads(make_answered(NAMED, line, 502, b"no\njson\xff"))
    assert odd["response"]["body"] == "no\njson�"
    unanswered = json.loads(make_unanswered(NAMED, 3, None, EXPIRED))
    assert (unanswered["response"], unanswered["error"]["code"]) == (None, "batch_expired")


def test_the_end_says_how_it_went() -> None:
    finalizing = replace(NAMED, status=BatchStatus.FINALIZING)
    assert plan_end(finalizing) is BatchStatus.COMPLETED
    assert plan_end(replace(finalizing, errors=(EXPIRED,))) is BatchStatus.EXPIRED
    assert plan_end(replace(NAMED, status=BatchStatus.CANCELLING)) is BatchStatus.CANCELLED


def test_every_status_leads_to_an_end() -> None:
    assert set(BATCH_TRANSITIONS) == set(BatchStatus)
    for status, after in BATCH_TRANSITIONS.items():
        assert status not in after
