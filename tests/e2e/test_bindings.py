"""Services that are bound to models: what their programs find, and all that they do not."""

import base64
import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.conftest import running_platform, write_app
from tests.e2e.platform import Platform, wait_for

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples/rag-python"
QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of Italy?"}
]
ASK = """
import json, sys, openai
client = openai.OpenAI(max_retries=0)
found = {"models": [each.id for each in client.models.list()]}
for name in sys.argv[1:]:
    try:
        answer = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "What is the capital of Italy?"}]
        )
        found[name] = answer.choices[0].message.content
    except openai.APIStatusError as error:
        found[name] = [error.status_code, error.code, error.body["message"]]
print(json.dumps(found))
"""
REACH = """
import json, os, socket, sys, urllib.error, urllib.request

def ask(url, headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as it:
            return it.status
    except urllib.error.HTTPError as error:
        return error.code

base = os.environ["OPENAI_BASE_URL"]
gateway, api, *hosts = sys.argv[1:]
found = {host: ask(base.removesuffix("/v1") + "/", {"host": host}) for host in hosts}
found["api"] = ask(base.removesuffix("/v1") + "/api/v1/status", {})
found["port"] = base
for name, port in (("gateway", gateway), ("api itself", api)):
    with socket.socket() as connection:
        found[name] = connection.connect_ex(("127.0.0.1", int(port)))
for name in ("no_proxy", "NO_PROXY"):
    os.environ.pop(name)
for name, port in (("gateway by proxy", gateway), ("api by proxy", api)):
    found[name] = ask(f"http://127.0.0.1:{port}/v1/models", {})
print(json.dumps(found))
"""
NODE = """
const http = require("node:http");
http.createServer(async (request, response) => {
  const answer = await fetch(process.env.OPENAI_BASE_URL + "/chat/completions", {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${process.env.OPENAI_API_KEY}`,
    },
    body: JSON.stringify({ model: "assistant", messages: [
      { role: "user", content: "What is the capital of Spain?" } ] }),
  });
  response.end(JSON.stringify(await answer.json()));
}).listen(process.env.PORT);
"""


@pytest.fixture(scope="module")
def bound(platform: Platform) -> Platform:
    """Two models, and the example that is bound to one of them."""
    for name in ("assistant", "second"):
        platform.tram("deploy", "--model", "tiny", "--name", name)
    done = platform.tram("deploy", EXAMPLE, "--timeout", "10m", timeout_s=600)
    assert "warning" not in done.stderr
    return platform


def run_inside(platform: Platform, service: str, program: str, *arguments: object) -> Any:
    command = ("exec", service, "--", "python", "-c", program, *map(str, arguments))
    return json.loads(platform.tram(*command).stdout)


def key_of(platform: Platform, service: str) -> str:
    return platform.tram("exec", service, "--", "sh", "-c", 'echo "$OPENAI_API_KEY"').stdout.strip()


def claims_of(key: str) -> dict[str, Any]:
    body = key.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def outside(platform: Platform, key: str) -> openai.OpenAI:
    """Return a client with this key that is in no sandbox."""
    url = f"http://127.0.0.1:{platform.gateway_port}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)


@pytest.mark.parametrize(
    ("question", "document", "answer"),
    [
        ("What is the capital of Poland?", "poland.txt", "Warsaw"),
        ("What is the currency of Switzerland?", "switzerland.txt", "Swiss franc"),
        ("Which language is spoken in France?", "france.txt", "French"),
    ],
)
def test_the_example_answers_from_the_right_document(
    bound: Platform, question: str, document: str, answer: str
) -> None:
    found = bound.request("rag-python", "/ask?" + urlencode({"question": question})).json
    assert answer in found["answer"]
    first = found["passages"][0]
    assert first["document"] == document
    assert answer in first["text"]


def test_inside_there_is_the_bound_model_and_no_other(bound: Platform) -> None:
    bound.request("rag-python")
    found = run_inside(bound, "rag-python", ASK, "assistant", "second", "tiny")
    assert found["models"] == ["assistant"]
    assert "Rome" in found["assistant"]
    for name in ("second", "tiny"):
        status, code, message = found[name]
        assert (status, code) == (404, "model_not_found")
        assert "under models: in tramontane.yaml" in message


def test_nothing_else_is_reached_that_way(bound: Platform) -> None:
    bound.request("rag-python")
    hosts = ("rag-python.default.localhost", "second.default.localhost", "localhost")
    found = run_inside(bound, "rag-python", REACH, bound.gateway_port, bound.api_port, *hosts)
    assert found.pop("port").startswith("http://127.0.0.1:")
    assert {host: found.pop(host) for host in hosts} == dict.fromkeys(hosts, 404)
    assert found.pop("api") == 404
    assert found.pop("gateway") != 0, "connected to the host's port"
    assert found.pop("api itself") != 0
    assert found == {"gateway by proxy": 403, "api by proxy": 403}


def test_the_key_is_for_the_bound_model_everywhere(bound: Platform) -> None:
    bound.request("rag-python")
    key = key_of(bound, "rag-python")
    claims = claims_of(key)
    assert (claims["models"], claims["scope"]) == (["assistant"], "inference")
    assert claims["exp"] - claims["iat"] <= 86400
    with outside(bound, key) as client:
        assert [model.id for model in client.models.list()] == ["assistant"]
        assert client.chat.completions.create(model="assistant", messages=QUESTION).choices
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="second", messages=QUESTION)
    connection = http.client.HTTPConnection("127.0.0.1", bound.api_port)
    connection.request("GET", "/api/v1/services", headers={"authorization": f"Bearer {key}"})
    assert connection.getresponse().status == 401
    connection.close()


def test_the_key_is_written_nowhere(bound: Platform) -> None:
    bound.request("rag-python")
    signature = key_of(bound, "rag-python").rpartition(".")[2].encode()
    shown = bound.tram("services", "get", "rag-python", "-o", "json").stdout
    shown += bound.tram("deployments", "get", "rag-python", "1", "-o", "json").stdout
    shown += bound.tram("tokens", "list", "-o", "json").stdout
    shown += bound.tram("logs", "rag-python").stdout
    assert signature.decode() not in shown
    files = [each for each in bound.home.rglob("*") if each.is_file()]
    assert len(files) > 10
    assert not [each for each in files if signature in each.read_bytes()]
    commands = [each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [each for each in commands if signature in each]


def test_a_bound_model_that_sleeps_is_woken(bound: Platform) -> None:
    bound.tram("scale", "assistant", "0")
    bound.wait_status("assistant", "sleeping")
    question = urlencode({"question": "What is the capital of France?"})
    assert "Paris" in bound.request("rag-python", f"/ask?{question}").json["answer"]


def test_calls_go_on_without_a_control_plane(bound: Platform) -> None:
    question = "/ask?" + urlencode({"question": "What is the capital of France?"})
    assert bound.request("rag-python", question).status == 200
    before = key_of(bound, "rag-python")
    bound.kill_control()
    assert "Paris" in bound.request("rag-python", question).json["answer"]
    bound.up()
    assert "Paris" in bound.request("rag-python", question).json["answer"]
    assert key_of(bound, "rag-python") == before, "the instance is still the same"
    with outside(bound, before) as client:
        assert [model.id for model in client.models.list()] == ["assistant"]


@pytest.mark.skipif(shutil.which("node") is None, reason="this machine lacks node")
def test_a_program_in_node_needs_nothing_either(bound: Platform, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "n", "scripts": {"start": "node server.js"}}')
    (tmp_path / "server.js").write_text(NODE)
    (tmp_path / "tramontane.yaml").write_text("name: node\nmodels: assistant\n")
    bound.tram("deploy", tmp_path)
    assert "Madrid" in bound.request("node").json["choices"][0]["message"]["content"]
    bound.tram("delete", "node")


def test_a_model_that_comes_later(bound: Platform, tmp_path: Path) -> None:
    source = shutil.copytree(EXAMPLE, tmp_path / "early")
    (source / "tramontane.yaml").write_text("name: early\nmodels: [later]\n")
    warning = "there is no model later in project default: it is not found until it is deployed"
    planned = bound.tram("plan", "-f", source / "tramontane.yaml").stdout
    assert f"  warning: {warning}" in planned
    done = bound.tram("deploy", source, "--env", "CHAT_MODEL=later", timeout_s=600)
    assert f"early: warning: {warning}" in done.stderr
    assert run_inside(bound, "early", ASK, "later")["later"][:2] == [404, "model_not_found"]
    answer = bound.request("early", "/ask?question=Who")
    assert (answer.status, "the model does not exist" in answer.json["error"]) == (502, True)
    bound.tram("deploy", "--model", "tiny", "--name", "later")
    assert "Rome" in run_inside(bound, "early", ASK, "later")["later"]
    for name in ("early", "later"):
        bound.tram("delete", name)


def test_the_key_ends_with_the_service(bound: Platform) -> None:
    """Last: it takes the example away."""
    bound.request("rag-python")
    key = key_of(bound, "rag-python")
    with outside(bound, key) as client:
        assert client.models.list().data
        bound.tram("delete", "rag-python")

        def refused() -> str | None:
            try:
                client.models.list()
            except openai.AuthenticationError as error:
                return error.code
            return None

        assert wait_for(refused, "the key to be refused") == "key_revoked"


@pytest.fixture(scope="module")
def unsandboxed() -> Iterator[Platform]:
    with running_platform("--isolation", "none") as platform:
        yield platform


def test_without_a_sandbox_the_gateway_itself_is_the_address(
    unsandboxed: Platform, tmp_path: Path
) -> None:
    source = write_app(tmp_path / "app", "v1", "name: app\nmodels: [assistant]\n")
    unsandboxed.tram("deploy", source, timeout_s=600)
    command = ("exec", "app", "--", "sh", "-c", 'echo "$OPENAI_BASE_URL"')
    url = f"http://127.0.0.1:{unsandboxed.gateway_port}/v1"
    assert unsandboxed.tram(*command).stdout.strip() == url
    key = key_of(unsandboxed, "app")
    assert "exp" not in claims_of(key), "nothing else would renew it"
    with outside(unsandboxed, key) as client:
        assert client.models.list().data == []
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="assistant", messages=QUESTION)
        unsandboxed.tram("deploy", "--model", "tiny", "--name", "assistant")
        answer = client.chat.completions.create(model="assistant", messages=QUESTION)
        assert "Rome" in (answer.choices[0].message.content or "")
