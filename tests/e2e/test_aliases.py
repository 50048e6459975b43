"""Aliases by the unmodified openai client: shares, canary, fallback, and the limits of time."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.platform import Platform, wait_for

pytestmark = pytest.mark.e2e

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count to a hundred."}]
SERVED_BY = "x-tramontane-service"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    for name in ("small", "large"):
        platform.tram("deploy", "--model", "tiny", "--name", name)
    token = platform.read("tokens", "create", "--project", "default")["token"]
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{platform.gateway_port}/v1", api_key=token, max_retries=0
    ) as opened:
        yield opened


def served_by(client: openai.OpenAI, model: str = "assistant", **headers: str) -> str:
    answer = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=1, extra_headers=headers
    )
    return answer.headers[SERVED_BY]


def set_alias(platform: Platform, client: openai.OpenAI, *arguments: str) -> None:
    """Set the alias and wait until Envoy has it: canaries name it, so that each form differs."""
    mark = str(time.monotonic_ns())
    platform.tram("aliases", "set", "assistant", *arguments, "--canary-header", f"x-at={mark}:tiny")
    wait_for(lambda: _answers(client, mark), "the alias serves")


def _answers(client: openai.OpenAI, mark: str) -> bool:
    try:
        return served_by(client, **{"x-at": mark}) == "tiny"
    except openai.NotFoundError:
        return False


@pytest.fixture(scope="module", autouse=True)
def tiny(platform: Platform, client: openai.OpenAI) -> None:
    platform.tram("deploy", "--model", "tiny", "--name", "tiny")


@contextmanager
def stopped(platform: Platform, name: str) -> Iterator[None]:
    """Hold all processes of a model's instance, as if it thought for ever."""
    pids = list(processes_of(platform, name))
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def processes_of(platform: Platform, name: str) -> Iterator[int]:
    """Yield the processes of its instances, of each the outermost last."""
    for instance in platform.service(name)["instances"]:
        if instance["status"] == "healthy":
            yield from _tree(instance["pid"])


def _tree(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))
    yield pid


def test_shares_are_roughly_right(platform: Platform, client: openai.OpenAI) -> None:
    set_alias(platform, client, "--to", "small=75", "--to", "large=25")
    counts = Counter(served_by(client) for _ in range(200))
    assert set(counts) == {"small", "large"}
    assert 120 <= counts["small"] <= 180, counts
    assert "assistant" in [each.id for each in client.models.list()]
    assert client.models.retrieve("assistant").id == "assistant"


def test_a_canary_goes_where_its_header_says(platform: Platform, client: openai.OpenAI) -> None:
    set_alias(platform, client, "--to", "small", "--canary-header", "x-canary=yes:large")
    assert {served_by(client) for _ in range(5)} == {"small"}
    assert {served_by(client, **{"x-canary": "yes"}) for _ in range(5)} == {"large"}


def test_a_sleeping_target_wakes(platform: Platform, client: openai.OpenAI) -> None:
    set_alias(platform, client, "--to", "small", "--fallback", "tiny")
    platform.tram("scale", "small", "0")
    platform.wait_status("small", "sleeping")
    assert served_by(client) == "small"


def test_a_paused_model_is_replaced_by_the_fallback(
    platform: Platform, client: openai.OpenAI
) -> None:
    set_alias(platform, client, "--to", "small", "--fallback", "tiny")
    platform.tram("pause", "small")
    wait_for(lambda: served_by(client) == "tiny", "the fallback serves")
    platform.tram("resume", "small")
    wait_for(lambda: served_by(client) == "small", "it is back")


def test_nobody_notices_that_an_instance_is_killed(
    platform: Platform, client: openai.OpenAI
) -> None:
    set_alias(platform, client, "--to", "small", "--fallback", "tiny")
    assert served_by(client) == "small"
    os.kill(next(processes_of(platform, "small")), signal.SIGKILL)
    for _ in range(20):
        assert served_by(client) in {"small", "tiny"}


def test_a_model_that_does_not_begin_is_left_behind(
    platform: Platform, client: openai.OpenAI
) -> None:
    set_alias(platform, client, "--to", "large", "--fallback", "tiny", "--first-token", "1s")
    assert served_by(client) == "large"
    with stopped(platform, "large"):
        begun = time.monotonic()
        answer = client.chat.completions.with_raw_response.create(
            model="assistant", messages=QUESTION, max_tokens=4, stream=True
        )
        assert answer.headers[SERVED_BY] == "tiny"
        assert list(answer.parse())
        assert 1 <= time.monotonic() - begun < 15
        set_alias(platform, client, "--to", "large", "--first-token", "1s")
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="assistant", messages=QUESTION, stream=True)
        assert caught.value.status_code == 504
        assert caught.value.code == "first_token_timed_out"


def test_nothing_is_tried_again_after_the_first_byte(
    platform: Platform, client: openai.OpenAI
) -> None:
    set_alias(platform, client, "--to", "large", "--fallback", "tiny", "--between-tokens", "2s")
    with client.chat.completions.with_streaming_response.create(
        model="assistant", messages=QUESTION, max_tokens=900, stream=True
    ) as answer:
        assert answer.headers[SERVED_BY] == "large"
        lines = answer.iter_lines()
        got = [next(lines)]
        with stopped(platform, "large"):
            try:
                got.extend(lines)
            except httpx.RemoteProtocolError:
                return
    # The model was quicker than the signal: then the answer is whole, and still the one model's.
    assert "[DONE]" in "".join(got)


def test_what_is_left_when_models_are_deleted(platform: Platform, client: openai.OpenAI) -> None:
    platform.tram("aliases", "set", "left", "--to", "small=50", "--to", "large=50")
    platform.tram("delete", "large")
    wait_for(lambda: _only(client, "small"), "the rest takes over")
    assert platform.read("aliases", "get", "left")["missing"] == ["large"]
    platform.tram("delete", "small")

    def says_why() -> bool:
        try:
            served_by(client, "left")
        except openai.InternalServerError as error:
            return error.code == "no_target"
        return False

    wait_for(says_why, "nothing is left")
    platform.tram("aliases", "delete", "left")
    wait_for(lambda: "left" not in [each.id for each in client.models.list()], "it is gone")


def _only(client: openai.OpenAI, name: str) -> bool:
    return {served_by(client, "left") for _ in range(12)} == {name}
