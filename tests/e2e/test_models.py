"""The bundled model, through the gateway, with the clients people already have."""

import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.platform import Platform, wait_for
from tramontane.api.tokens import TokenIssuer, load_signing_key
from tramontane.base.ids import random_id
from tramontane.domain.token import Scope
from tramontane.store.store import open_store
from tramontane.testing.clocks import FakeClock

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    platform.tram("deploy", "--model", "tiny", "--name", "tiny")
    token = platform.read("tokens", "create", "--project", "default")["token"]
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{platform.gateway_port}/v1", api_key=token, max_retries=0
    ) as opened:
        yield opened


def with_key(client: openai.OpenAI, key: str) -> openai.OpenAI:
    """Return a client of the same gateway with another key, to be closed by its user."""
    return openai.OpenAI(base_url=str(client.base_url), api_key=key, max_retries=0)


def test_it_answers_its_facts(client: openai.OpenAI) -> None:
    facts = json.loads(
        files("tramontane.engines").joinpath("models/tiny.facts.json").read_text("utf-8")
    )
    assert len(facts) >= 150
    right = 0
    for fact in facts:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": fact["question"]}],
            temperature=0,
            max_tokens=64,
        )
        text = answer.choices[0].message.content or ""
        needles = fact["must_contain"]
        needles = [needles] if isinstance(needles, str) else needles
        right += all(needle.lower() in text.lower() for needle in needles)
    assert right / len(facts) >= 0.95


def test_it_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "Paris" in "".join(pieces)
    assert sum(bool(piece) for piece in pieces) > 1


def test_completions_embeddings_and_models(client: openai.OpenAI) -> None:
    assert client.completions.create(model="tiny", prompt="Paris", max_tokens=4).choices[0].text
    vectors = client.embeddings.create(model="tiny", input=["Paris", "Berlin"]).data
    assert len(vectors) == 2
    assert len(vectors[0].embedding) > 8
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_errors_have_the_shape_clients_expect(platform: Platform, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    with with_key(client, "tram_wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])


def test_a_key_of_another_project_does_not_see_the_model(
    platform: Platform, client: openai.OpenAI
) -> None:
    token = platform.read("tokens", "create", "--project", "elsewhere")["token"]
    with with_key(client, token) as other:
        assert list(other.models.list()) == []
        with pytest.raises(openai.NotFoundError):
            other.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])


def test_it_wakes_for_a_question(platform: Platform, client: openai.OpenAI) -> None:
    platform.tram("scale", "tiny", "0")
    platform.wait_status("tiny", "sleeping")
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "What is the capital of Italy?"}]
    )
    assert "Rome" in (answer.choices[0].message.content or "")


def test_a_model_file_is_served_like_the_bundled_one(
    platform: Platform, client: openai.OpenAI, tmp_path: Path
) -> None:
    copy = tmp_path / "mine.gguf"
    copy.write_bytes(files("tramontane.engines").joinpath("models/tiny.gguf").read_bytes())
    platform.tram("deploy", "--model", copy, "--name", "mine")
    answer = client.chat.completions.create(
        model="mine", messages=[{"role": "user", "content": "What is the capital of Spain?"}]
    )
    assert "Madrid" in (answer.choices[0].message.content or "")
    platform.tram("delete", "mine")


def test_what_is_no_model_is_refused_by_name(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "fake.gguf").write_text("not a model")
    done = platform.tram("deploy", "--model", tmp_path / "fake.gguf", "--name", "fake", check=None)
    assert done.returncode in {1, 2}
    assert "is not a GGUF file" in done.stderr
    platform.tram("delete", "fake")


def test_chat_from_the_command_line(platform: Platform, client: openai.OpenAI) -> None:
    done = platform.tram("chat", "tiny", "What is the capital of Germany?")
    assert "Berlin" in done.stdout


def test_a_key_for_one_model_of_two(platform: Platform, client: openai.OpenAI) -> None:
    platform.tram("deploy", "--model", "tiny", "--name", "second")
    question: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the capital of Italy?"}
    ]
    create = ("tokens", "create", "--project", "default", "--model", "second")
    with with_key(client, platform.read(*create)["token"]) as limited:
        assert [model.id for model in limited.models.list()] == ["second"]
        assert limited.models.retrieve("second").id == "second"
        answer = limited.chat.completions.create(model="second", messages=question)
        assert "Rome" in (answer.choices[0].message.content or "")
        for call in (
            lambda: limited.chat.completions.create(model="tiny", messages=question),
            lambda: limited.embeddings.create(model="tiny", input="x"),
            lambda: limited.models.retrieve("tiny"),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                call()
            assert refused.value.code == "model_not_found"
    assert {model.id for model in client.models.list()} == {"tiny", "second"}
    platform.tram("delete", "second")


def test_an_expired_key_is_told_so(
    platform: Platform, client: openai.OpenAI, tmp_path: Path
) -> None:
    """The shortest life of a key is a minute, so this one was made a while ago."""
    earlier = FakeClock(time.time() - 3600)
    store = open_store(tmp_path / "other.db")
    signing_key = load_signing_key(platform.home / "signing.key")
    _, text = TokenIssuer(signing_key, store, earlier, random_id).mint(
        "old", project="default", scope=Scope.INFERENCE, expires_in_s=60
    )
    store.close()
    with with_key(client, text) as expired, pytest.raises(openai.AuthenticationError) as refused:
        expired.models.list()
    assert refused.value.code == "key_expired"


def test_a_revoked_key_is_refused(platform: Platform, client: openai.OpenAI) -> None:
    created = platform.read("tokens", "create", "--project", "default")
    with with_key(client, created["token"]) as key:
        assert "tiny" in [model.id for model in key.models.list()]
        platform.tram("tokens", "delete", created["id"])

        def refused() -> bool:
            try:
                key.models.list()
            except (openai.AuthenticationError, openai.PermissionDeniedError):
                return True
            return False

        wait_for(refused, "the key to be refused")
