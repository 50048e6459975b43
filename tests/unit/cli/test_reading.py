"""Reading verbs: tables as people see them, documents as programs do, and errors."""

import json
from pathlib import Path

import pytest
import yaml

from tests.unit.cli.fake import Tram, make_deployment, make_instance, make_service
from tramontane.base.errors import NotFound, Unauthenticated, Unavailable

HELLO = "projects/default/services/hello"
LISTED = """\
NAME   PROJECT  KIND    STATUS    READY  POLICY      URL
hello  default  web     healthy   1/0-5  eu          http://hello.default.localhost:8080
chat   ai       model   sleeping  0/0-1  eu, france  http://chat.ai.localhost:8080
mails  ai       worker  healthy   1/1-1  -           -
"""
SHOWN = """\
name        hello
project     default
kind        web
status      healthy
reason      healthy
message     1 instance ready
url         http://hello.default.localhost:8080
deployment  1
serving     1
policy      none: it may run on any cell
instances   1/0-5
created     2023-11-14 22:13:20Z

ID     STATUS   CELL   DEPLOYMENT  PID   CREATED               MESSAGE
ins_1  healthy  local  1           4242  2023-11-14 22:13:20Z  healthy
"""


def test_services_list(tram: Tram) -> None:
    chat = make_service(
        name="chat",
        project="ai",
        kind="model",
        status="sleeping",
        instances=[],
        instances_max=1,
        policy=["eu", "france"],
        url="http://chat.ai.localhost:8080",
    )
    mails = make_service(
        name="mails",
        project="ai",
        kind="worker",
        instances_min=1,
        instances_max=1,
        policy=[],
        url=None,
    )
    tram.api.on("GET", "services", [make_service(), chat, mails])
    result = tram("services", "list")
    assert (result.code, result.out, result.err) == (0, LISTED, "")
    assert tram.api.tokens == ["secret"]


def test_services_list_of_a_project(tram: Tram) -> None:
    tram.api.on("GET", "services", [])
    result = tram("services", "list", "--project", "ai")
    assert tram.api.calls[0].query == (("project", "ai"),)
    assert result.out == "no services yet; deploy one with: tram deploy\n"


def test_services_get(tram: Tram) -> None:
    tram.api.on("GET", HELLO, make_service(policy=[]))
    assert tram("services", "get", "hello").out == SHOWN


def test_a_worker_says_that_it_has_no_address(tram: Tram) -> None:
    tram.api.on("GET", HELLO, make_service(kind="worker", url=None))
    assert (
        "\nurl         none: a worker takes no requests\n" in tram("services", "get", "hello").out
    )
    assert json.loads(tram("services", "get", "hello", "-o", "json").out)["url"] is None


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_are_the_api_s_own(tram: Tram, output: str, parse: object) -> None:
    service = make_service(new_field_of_a_later_api="kept")
    tram.api.on("GET", HELLO, service)
    result = tram("services", "get", "hello", "-o", output)
    assert callable(parse)
    assert parse(result.out) == service


def test_not_found_has_three_parts(tram: Tram) -> None:
    tram.api.on("GET", HELLO, NotFound("service hello does not exist"))
    result = tram("services", "get", "hello")
    assert result.code == 4
    assert result.out == ""
    assert result.err == (
        "error: service hello does not exist\n"
        "  object: service hello in project default\n"
        "  next: tram services list shows what there is\n"
    )


def test_platform_not_reachable(tram: Tram) -> None:
    tram.api.down = True
    result = tram("services", "list")
    assert result.code == 6
    assert "no platform answers at http://127.0.0.1:8081" in result.err


def test_no_platform_at_all(tram: Tram) -> None:
    (tram.home / "platform.json").unlink()
    result = tram("status")
    assert result.code == 6
    assert "no platform is running for TRAM_HOME" in result.err


@pytest.mark.parametrize(
    ("error", "code"), [(Unauthenticated("bad token"), 1), (Unavailable("later"), 6)]
)
def test_exit_codes(tram: Tram, error: Exception, code: int) -> None:
    tram.api.on("GET", "cells", error)
    assert tram("cells", "list").code == code


@pytest.mark.parametrize(
    "arguments",
    [
        ("services", "get"),
        ("servces",),
        ("services", "list", "-o", "xml"),
        ("scale", "hello", "-1"),
        ("scale", "hello", "many"),
        ("logs", "hello", "--since", "yesterday"),
        ("up", "--gateway", "8080"),
        ("up", "--country", "France"),
        ("deploy", ".", "--model", "tiny"),
    ],
)
def test_usage_errors(tram: Tram, arguments: tuple[str, ...]) -> None:
    result = tram(*arguments)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert "  next: tram" in result.err


def test_misspelt_verb_gets_a_suggestion(tram: Tram) -> None:
    assert tram("servces").err == (
        "error: no command 'servces'; did you mean services?\n  object: tram\n  next: tram --help\n"
    )


def test_choices_are_listed_on_one_line(tram: Tram) -> None:
    first, *_ = tram("completion").err.splitlines()
    assert first.endswith("Choose from: bash, zsh, fish")


@pytest.mark.parametrize("verb", [("models", "get", "x"), ("chat", "--model", "x"), ("chat", "x")])
def test_a_model_that_is_not_there_is_told_with_those_that_are(
    tram: Tram, verb: tuple[str, ...]
) -> None:
    model = {"name": "tiny", "project": "default", "status": "healthy", "url": None}
    tram.api.on("GET", "models", [model, {**model, "name": "big"}])
    result = tram(*verb)
    assert result.code == 4
    assert result.err == (
        "error: no model is named x; there are: big, tiny\n"
        "  object: model x\n"
        "  next: tram models list shows what there is\n"
    )


def test_no_platform_is_told_with_how_to_start_one(tram: Tram) -> None:
    (tram.home / "platform.json").unlink()
    assert "  next: tram up --detach\n" in tram("status").err


def test_unexpected_error_is_one_line(tram: Tram) -> None:
    tram.api.on("GET", "cells", [{"surprise": 1}])
    result = tram("cells", "list")
    assert result.code == 1
    assert "error: unexpected KeyError" in result.err
    assert "  object: cells\n" in result.err
    assert "Traceback" not in result.err
    assert "Traceback" in tram("--debug", "cells", "list").err


def test_variables_are_shown_by_name(tram: Tram) -> None:
    tram.api.on("GET", f"{HELLO}/deployments/1", make_deployment("healthy"))
    result = tram("deployments", "get", "hello", "1")
    assert "environment.KEY  (set)" in result.out


def test_instances_of_all_services(tram: Tram) -> None:
    tram.api.on("GET", "services", [make_service(instances=[make_instance(pid=None)])])
    assert tram("instances", "list").out == (
        "SERVICE        ID     STATUS   CELL   DEPLOYMENT  PID  CREATED               MESSAGE\n"
        "default/hello  ins_1  healthy  local  1           -    2023-11-14 22:13:20Z  healthy\n"
    )


def test_logs(tram: Tram) -> None:
    lines = [
        {"at": 1700000000.0, "source": "runtime", "text": "up \x1b[2Jagain"},
        {"at": 1700000001.0, "source": "build", "text": "done"},
    ]
    tram.api.on("GET", f"{HELLO}/logs", lines)
    tram.terminal.stdout = True
    result = tram("logs", "hello", "--tail", "5", "--timestamps")
    # A log line must not be able to clear the reader's screen.
    assert result.out == (
        "2023-11-14 22:13:20Z runtime: up �[2Jagain\n2023-11-14 22:13:21Z build: done\n"
    )
    assert tram.api.calls[0].query == (("tail", "5"),)
    again = tram("logs", "hello", "-o", "json", "--since", "1m", "--source", "build", "-f")
    assert [json.loads(line) for line in again.out.splitlines()] == lines
    assert dict(tram.api.calls[1].query) | {"since": "x"} == {
        "source": "build",
        "since": "x",
        "follow": "true",
    }
    assert tram.api.calls[1].timeout_s is None


def test_why(tram: Tram) -> None:
    finding = {"rule": "eu.location", "verdict": "unknown", "reason": "no country is claimed"}
    candidate = {"cell": "local", "allowed": False, "reason": "unknown", "findings": [finding]}
    event = {"at": 1.0, "subject": "svc_1", "reason": "service_pending", "message": "no cell"}
    tram.api.on(
        "GET",
        f"{HELLO}/why",
        {
            "project": "default",
            "service": "hello",
            "status": "pending",
            "reason": "policy",
            "message": "no cell",
            "policy": ["eu"],
            "candidates": [candidate],
            "events": [event],
        },
    )
    assert (
        tram("why", "hello").out
        == """\
service  default/hello
status   pending
reason   policy
message  no cell
policy   eu

CELL   ALLOWED  REASON
local  no       unknown

CELL   RULE         VERDICT  REASON
local  eu.location  unknown  no country is claimed

last events
  1970-01-01 00:00:01Z  service_pending: no cell
"""
    )


def test_tokens_create(tram: Tram) -> None:
    made = {"id": "tok_1", "name": "token", "project": "shop", "token": "tram_abc"}
    tram.api.on("POST", "tokens", made)
    result = tram("tokens", "create", "--project", "shop", "--expires", "30d", "-o", "json")
    assert json.loads(result.out)["token"] == "tram_abc"
    assert tram.api.sent("POST", "tokens") == {
        "name": "token",
        "project": "shop",
        "scope": "inference",
        "models": None,
        "limits": None,
        "expires_in_s": 30 * 86400,
    }
    assert tram("tokens", "create").out == "tram_abc\n"


def test_tokens_with_limits(tram: Tram) -> None:
    tram.api.on("POST", "tokens", {"id": "tok_1", "token": "tram_abc"})
    tram("tokens", "create", "-p", "shop", "--streams", "4", "--budget", "2.50/month")
    asked = {"streams": 4, "budget_eur": "2.50", "budget_period": "month"}
    assert tram.api.sent("POST", "tokens")["limits"] == asked
    limits = {"requests_per_minute": 1000, "tokens_per_minute": None, **asked, "budget_eur": "2.5"}
    token = {"id": "tok_1", "name": "app", "project": "shop", "scope": "inference"}
    dates = {"created_at": 0.0, "expires_at": None}
    tram.api.on("PUT", "tokens/tok_1/limits", {**token, **dates, "models": None, "limits": limits})
    result = tram("tokens", "limit", "tok_1", "--requests-per-minute", "1000")
    assert tram.api.sent("PUT", "tokens/tok_1/limits") == {"requests_per_minute": 1000}
    assert "limits   1,000 requests/min, 4 at a time, 2.5 €/month\n" in result.out
    for wrong in ("5", "0/day", "-1/day", "5/year", "1e9/day", "nan/day"):
        assert tram("tokens", "create", "--budget", wrong).code == 2


def test_tokens_for_some_models(tram: Tram) -> None:
    tram.api.on("POST", "tokens", {"id": "tok_1", "token": "tram_abc"})
    tram("tokens", "create", "-p", "shop", "--model", "assistant", "--model", "mails")
    assert tram.api.sent("POST", "tokens")["models"] == ["assistant", "mails"]
    token = {"id": "tok_1", "name": "app", "project": "shop", "scope": "inference"}
    token |= {"limits": None, "created_at": 0.0}
    some = {**token, "models": ["chat", "mails"], "expires_at": 86400.0}
    all_models = {**token, "id": "tok_2", "models": None, "expires_at": None}
    tram.api.on("GET", "tokens", [some, all_models])
    assert (
        tram("tokens", "list").out
        == """\
ID     NAME  PROJECT  SCOPE      MODELS       LIMITS  CREATED               EXPIRES
tok_1  app   shop     inference  chat, mails  none    1970-01-01 00:00:00Z  1970-01-02 00:00:00Z
tok_2  app   shop     inference  all          none    1970-01-01 00:00:00Z  never
"""
    )


FACTS = {
    "format": "gguf",
    "size_bytes": 3415872,
    "name": "Tramontane Tiny",
    "architecture": "llama",
    "parameters": 3148032,
    "quantisation": "Q8_0",
    "context_length": 1024,
    "vocabulary": 2048,
    "layers": 4,
    "embedding_length": 256,
    "attention_heads": 8,
    "kv_heads": 2,
    "key_length": 32,
    "value_length": 32,
    "sliding_window": None,
    "chat_template": True,
    "tools": False,
    "pooling": None,
    "licence": "apache-2.0",
    "origin_country": None,
    "revision": None,
    "digest": "sha256:00",
}


def test_models_inspect_says_what_is_unknown(tram: Tram) -> None:
    tram.api.on("GET", "models/inspect", FACTS)
    result = tram("models", "inspect", "tiny")
    assert tram.api.calls[-1].query == (("reference", "tiny"),)
    assert (
        result.out
        == """\
name              Tramontane Tiny
format            gguf
architecture      llama
parameters        3.15M
quantisation      Q8_0
size              3.3 MiB
context           1024
vocabulary        2048
layers            4
embedding length  256
attention heads   8
key/value heads   2
key length        32
value length      32
sliding window    unknown
chat template     yes
tools             no
pooling           unknown
licence           apache-2.0
maker's country   unknown
revision          unknown
digest            sha256:00
"""
    )
    assert json.loads(tram("models", "inspect", "tiny", "-o", "json").out) == FACTS


def test_models_inspect_names_files_here_by_their_whole_path(
    tram: Tram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").touch()
    tram.api.on("GET", "models/inspect", FACTS)
    for given, sent in (("m.gguf", tmp_path / "m.gguf"), ("m", tmp_path / "m"), ("x", "x")):
        tram("models", "inspect", given)
        assert tram.api.calls[-1].query == (("reference", str(sent)),)


def test_models_list_shows_facts_that_are_known(tram: Tram) -> None:
    chat = {"name": "chat", "project": "ai", "status": "healthy", "url": "u", "facts": FACTS}
    tram.api.on("GET", "models", [chat, {**chat, "name": "new", "facts": None}])
    assert (
        tram("models", "list").out
        == """\
NAME  PROJECT  STATUS   PARAMETERS  QUANTISATION  CONTEXT  URL
chat  ai       healthy  3.15M       Q8_0          1024     u
new   ai       healthy  unknown     unknown       unknown  u
"""
    )


def test_status(tram: Tram) -> None:
    cell = {
        "id": "cel_1",
        "name": "local",
        "runtime": "process",
        "isolation": "sandbox",
        "reachable": True,
        "memory_bytes": 8 * 1024**3,
        "cpus": 2.0,
        "instances": 1,
        "facts": [{"attribute": "country", "value": "FR"}],
    }
    document = {
        "version": "0.1.0",
        "home": "/h",
        "control_plane": {"status": "running", "pid": 10, "address": "127.0.0.1:8081"},
        "gateway": {"status": "failed", "pid": None, "message": "port taken"},
        "cells": [cell],
        "services": {"healthy": 2, "error": 0},
        "egress_allowed": ["127.0.0.1:5432", "db.example:1521"],
    }
    tram.api.on("GET", "status", document)
    assert (
        tram("status").out
        == """\
PART           STATUS   PID  ADDRESS         STARTED  MESSAGE
control plane  running  10   127.0.0.1:8081  -
gateway        failed   -    -               -        port taken

NAME   RUNTIME  ISOLATION  REACHABLE  COUNTRY  OPERATOR  MEMORY  CPUS  INSTANCES
local  process  sandbox    yes        FR       unknown   8 GiB   2.0   1

services: 2 healthy
egress allowed by the operator: 127.0.0.1:5432, db.example:1521
version 0.1.0, home /h
"""
    )
    assert json.loads(tram("status", "-o", "json").out) == document
    kinds = ("artifacts", "toolchains", "caches", "archives", "logs")
    sizes = {f"{kind}_bytes": 1024**power for power, kind in enumerate(kinds)}
    tram.api.on("GET", "status", document | {"disk": sizes})
    assert (
        "disk: artifacts 1 B, toolchains 1 KiB, caches 1 MiB, archives 1 GiB, logs 1.0 TiB\n"
        in tram("status").out
    )
