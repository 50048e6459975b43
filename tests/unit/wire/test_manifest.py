"""The manifest: what it accepts, and that every mistake is one clear error."""

import json
from decimal import Decimal

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import WORKER_GRACE_S
from tramontane.domain.usage import Price
from tramontane.wire.definitions import body_from_definition, definition_from_body
from tramontane.wire.manifest import (
    checked_definition,
    make_manifest_schema,
    manifest_schema,
    read_manifest,
)
from tramontane.wire.schemas import (
    DefinitionBody,
    DirectorySourceBody,
    EngineBody,
    ModelSourceBody,
    PriceBody,
    ScalingBody,
)

FULL = b"""
project: shop
policy: eu
services:
  web:
    run: python app.py
    build: {language: python, command: make, root: web}
    env: {COUNTRY: NO, PORT: 8080, VERSION: 1.10, EMPTY: }
    policy: [gdpr, eu]
    probe: {path: /health, grace: 2m, interval: 15s, timeout: 500ms, failures: 5}
    scale: {min: 1, max: 8, concurrency: 2.5, idle: 1h30m}
    resources: {memory: 512MiB, cpu: 0.5, processes: 64}
    egress: [api.example.com, "*.Example.org:8443"]
    models: [chat, later, chat]
    drain: 45
  chat:
    model: tiny
"""


def message(raw: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read_manifest(raw)
    return caught.value.message


def test_full_manifest() -> None:
    manifest = read_manifest(FULL)
    web, chat = manifest.services
    assert manifest.project == "shop"
    assert (web.name, web.needs_source, chat.needs_source) == ("web", True, False)
    body = web.with_source("sha256:" + "a" * 64)
    assert body.model_dump(exclude={"source"}) == {
        "kind": "web",
        "build": {"language": "python", "command": "make", "root": "web"},
        "command": "python app.py",
        "environment": {"COUNTRY": "NO", "PORT": "8080", "VERSION": "1.10", "EMPTY": ""},
        "policy": ["eu", "gdpr"],
        "probe": {
            "path": "/health",
            "grace_s": 120.0,
            "interval_s": 15.0,
            "timeout_s": 0.5,
            "failures_max": 5,
        },
        "scaling": {
            "min": 1,
            "max": 8,
            "concurrency": 2.5,
            "idle_s": 5400.0,
            "first_token_s": None,
            "between_tokens_s": None,
        },
        "resources": {"memory_bytes": 512 * 1024**2, "cpus": 0.5, "processes_max": 64},
        "engine": {"context_tokens": None, "parallel": None},
        "price": None,
        "egress": [
            {"host": "api.example.com", "port": 443},
            {"host": "*.example.org", "port": 8443},
        ],
        "models": ["chat", "later"],
        "drain_s": 45.0,
    }
    assert chat.definition.kind == "model"
    assert chat.definition.source == ModelSourceBody(model="tiny")
    assert chat.definition.policy == ["eu"]


def test_a_model_is_sized_by_the_platform_unless_its_manifest_says_how() -> None:
    (automatic,) = read_manifest(b"model: tiny").services
    resources = automatic.definition.resources
    assert (resources.memory_bytes, resources.cpus) == (None, None)
    assert automatic.definition.engine == EngineBody()
    raw = b"model: tiny\nresources: {memory: 2GiB}\nengine: {context: 2048, parallel: 2}\n"
    (said,) = read_manifest(raw).services
    assert said.definition.resources.memory_bytes == 2 * 1024**3
    assert said.definition.engine == EngineBody(context_tokens=2048, parallel=2)
    (web,) = read_manifest(b"resources: {cpu: 2}").services
    resources = web.definition.resources
    assert (resources.memory_bytes, resources.cpus) == (512 * 1024**2, 2)


def test_a_model_says_what_its_users_are_to_notice() -> None:
    raw = b"model: tiny\nscale: {first_token: 500ms, between_tokens: 50ms}\n"
    scaling = read_manifest(raw).services[0].definition.scaling
    assert (scaling.first_token_s, scaling.between_tokens_s) == (0.5, 0.05)
    assert "scale.first_token: only a model answers in tokens" in message(
        b"scale: {first_token: 2s}"
    )
    assert "scale.between_tokens: only a model answers in tokens" in message(
        b"kind: worker\nscale: {between_tokens: 2s}"
    )
    assert "scale.first_token: expected at least" in message(
        b"model: tiny\nscale: {first_token: 0}"
    )


def test_only_a_model_has_an_engine() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_manifest(b"engine: {context: 2048}")
    assert "engine.context: only a model is served by an engine" in caught.value.message
    with pytest.raises(InvalidRequest) as caught:
        read_manifest(b"model: tiny\nengine: {context: 1, parallel: 65}")
    for complaint in ("engine.context: expected at least 16", "engine.parallel: expected at most"):
        assert complaint in caught.value.message


def test_short_forms() -> None:
    (service,) = read_manifest(b"policy: NO\nprobe: /up\nscale: {min: 9}\nname: on").services
    assert service.name == "on"
    assert service.definition.policy == ["NO"]
    assert service.definition.probe.path == "/up"
    # More than the usual maximum, so the maximum follows.
    assert service.definition.scaling.max == 9


def test_models_and_what_goes_with_them() -> None:
    (service,) = read_manifest(b"models: assistant").services
    assert service.definition.models == ["assistant"]
    assert message(b"model: tiny\nmodels: [a]") == (
        "tramontane.yaml: models: means nothing for a model, which calls no other: remove it"
    )
    assert message(b"models: [a]\nenv: {OPENAI_API_KEY: x}") == (
        "tramontane.yaml: env.OPENAI_API_KEY: is set by the platform for a service with models: "
        "remove it, or models"
    )
    assert message(b'models: ["a b"]') == (
        'tramontane.yaml: models[0]: expected the name of a model, such as assistant, got "a b"'
    )


def test_a_worker_runs_its_minimum_and_has_a_short_grace() -> None:
    raw = b"""
services:
  plain: {kind: worker}
  three: {kind: worker, scale: {min: 3}}
  range: {kind: worker, scale: {max: 4}, probe: {grace: 1m}}
"""
    plain, three, between = (each.definition for each in read_manifest(raw).services)
    assert (plain.scaling.min, plain.scaling.max, plain.probe.grace_s) == (1, 1, WORKER_GRACE_S)
    assert (three.scaling.min, three.scaling.max) == (3, 3)
    assert (between.scaling.min, between.scaling.max, between.probe.grace_s) == (1, 4, 60.0)


def test_a_worker_made_in_python_has_the_same_defaults() -> None:
    source = DirectorySourceBody(digest="sha256:" + "0" * 64)
    assert DefinitionBody(kind="worker", source=source).scaling.min == 1
    made = DefinitionBody(kind="worker", source=source, scaling=ScalingBody(max=3))
    assert (made.scaling.min, made.scaling.max, made.probe.grace_s) == (1, 3, WORKER_GRACE_S)


def test_flags_are_held_to_the_same_rules() -> None:
    body = read_manifest(b"kind: worker").services[0].definition.model_dump()
    body["scaling"]["min"] = 0
    with pytest.raises(InvalidRequest, match=r"flags: scale\.min: expected at least 1") as caught:
        checked_definition(body, "flags")
    assert caught.value.path == "scale.min"


def test_service_named_env_keeps_its_numbers() -> None:
    (service,) = read_manifest(b"services: {env: {drain: 7, env: {A: 1}}}").services
    assert service.definition.drain_s == 7
    assert service.definition.environment == {"A": "1"}


def test_all_problems_at_once() -> None:
    raw = b"""
services:
  web:
    scal: {min: 1}
    scale: {min: x, max: 9999, idle: 5x}
    egress: [ok.example, "bad host"]
  Bad: {model: tiny, kind: web}
"""
    assert message(raw).splitlines() == [
        "tramontane.yaml: 7 problems",
        '  services.web.scale.min: expected a whole number, got "x"',
        "  services.web.scale.idle: expected a duration such as 30s, 5m or 1h30m, or a number of "
        'seconds, got "5x"',
        "  services.web.scal: unknown key; did you mean scale?",
        "  services.web.scale.max: expected at most 1000, got the number 9999",
        "  services.web.egress[1]: expected a host such as api.example.com or "
        '*.example.org:8443, got "bad host"',
        "  services.Bad: expected a name of lower-case letters, digits and hyphens (at most 40, a "
        'letter first), got "Bad"',
        '  services.Bad.kind: expected model, since one is named, got "web"',
    ]


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "is empty"),
        (b"build: {root: ../x}", "build.root: expected a directory below the one that is deployed"),
        (b"- 1", "expected keys such as `name: hello`, got a list"),
        (b"scale:\n\tmin: 1", "line 2: a tab where YAML wants spaces"),
        (b"\xff\xfe", "not UTF-8 text (byte 0)"),
        (b"name: a\nname: b", "line 2: name is given twice"),
        (b"<<: {name: a}", "merge keys"),
        (b"build: &b [*b]", "*b has no anchor"),
        (b"name: !!python/object:os.system x", "is not supported: remove it"),
        (b"name: a\n---\nname: b", "several documents"),
        (b'name: "\\ud800"', "surrogate"),
        (b"name: \x00", "not YAML"),
        (b"? [a]\n: b", "a key must be a word"),
        (b"name: 12", "name: expected text, got the number 12"),
        (b"kind: model", "model: is missing"),
        (b"kind: workr", "kind: expected one of web, worker or model"),
        (b"kind: job", "kind: job is not offered yet"),
        (b"services: {a: {kind: function}}", "services.a.kind: function is not offered yet"),
        (b"{kind: worker, scale: {min: 0}}", "scale.min: expected at least 1 for a worker"),
        (b"{kind: worker, scale: {min: 0, max: 3}}", "tram pause NAME"),
        (b"{kind: worker, probe: /up}", "probe.path: means nothing for a worker"),
        (b"{kind: worker, probe: {interval: 5s}}", "probe.interval: means nothing for a worker"),
        (b"{kind: worker, scale: {idle: 1m}}", "scale.idle: means nothing for a worker"),
        (b"services: {}", "services: expected at least one service"),
        (b"services: {web: }", "services.web: expected keys with values, got nothing"),
        (b"scale: {min: 6, max: 2}", "scale.min: expected at most scale.max (2), got 6"),
        (b"scale: {concurrency: 1e999}", "scale.concurrency: expected at most 100000"),
        (b"resources: {memory: 1KiB}", "resources.memory: expected at least 16MiB"),
        (b"env: {1x: 2}", "env.1x: expected a variable name"),
        (b"services: {web: {scal: {}}}", "services.web.scal: unknown key; did you mean scale?"),
        (b"a: " + b"{a: " * 200, "nested deeper"),
        (b"#" * (1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_mistakes(raw: bytes, part: str) -> None:
    assert part in message(raw)


def test_alias_bomb() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "aliases counted in full" in message("\n".join(lines).encode())


KEYS = st.sampled_from(
    [
        *(
            "name project kind model build run env policy probe scale resources egress drain"
        ).split(),
        *("services min max idle path grace memory cpu language root web x").split(),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5m", "1GB", "NO", "tiny", "eu", "a.example:44", "-1s", "worker", "job"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


def check(raw: bytes) -> None:
    try:
        manifest = read_manifest(raw)
    except InvalidRequest as error:
        # The message can be printed whatever the file held.
        error.message.encode()
    else:
        for service in manifest.services:
            body = service.with_source("sha256:" + "0" * 64)
            again = checked_definition(json.loads(body.model_dump_json()), "again")
            assert again == body


@given(st.dictionaries(KEYS, VALUES, max_size=6))
@settings(deadline=None)
def test_any_document_is_read_or_refused(document: dict[str, object]) -> None:
    check(yaml.safe_dump(document).encode())


@given(st.binary(max_size=60) | st.text(alphabet="ab:-*&!?[]{}\"'#|>%@\n \t0\\", max_size=60))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(raw: bytes | str) -> None:
    check(raw if isinstance(raw, bytes) else raw.encode())


def test_shipped_schema_is_in_step() -> None:
    assert manifest_schema() == make_manifest_schema(), (
        "write make_manifest_schema() to src/tramontane/wire/tramontane.schema.json"
    )


def test_schema_agrees_with_the_reader() -> None:
    validator = jsonschema_rs.validator_for(manifest_schema())
    assert validator.is_valid(yaml.safe_load(FULL.replace(b"EMPTY: ", b"EMPTY: ''")))
    assert validator.is_valid({"name": "a", "policy": "eu", "scale": {"idle": "5m"}})
    assert not validator.is_valid({"name": "a", "scal": {}})
    assert not validator.is_valid({"scale": {"idle": "5x"}})


def test_aliases_beside_services() -> None:
    manifest = read_manifest(
        b"services: {small: {model: tiny}, large: {model: tiny}}\n"
        b"aliases:\n"
        b"  assistant: {to: {small: 90, large: 10}, canary: x-canary=yes:large, first_token: 20s}\n"
        b"  plain: {to: small, fallback: large}\n"
    )
    assistant, plain = manifest.aliases["assistant"], manifest.aliases["plain"]
    assert [(each.service, each.percent) for each in assistant.targets] == [
        ("small", 90),
        ("large", 10),
    ]
    assert (assistant.canaries[0].header, assistant.first_token_s) == ("x-canary", 20)
    assert (plain.targets[0].percent, plain.fallbacks) == (100, ["large"])


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ("a: {to: {small: 50}}", "aliases.a: expected shares of targets that add up to 100"),
        ("a: {to: {small: 0}}", "aliases.a.to[0].percent: expected at least 1, got the number 0"),
        ("small: {to: small}", "aliases.small: expected another name: a service has this one"),
        ("a: {to: small, canary: x}", "aliases.a.canary: expected a header"),
        (
            "a: {to: small, falback: small}",
            "aliases.a.falback: unknown key; did you mean fallback?",
        ),
        ("a: {fallback: small}", "aliases.a.to: is missing"),
    ],
)
def test_what_is_wrong_with_an_alias(alias: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_manifest(f"services: {{small: {{model: tiny}}}}\naliases: {{{alias}}}\n".encode())
    assert words in caught.value.message


def test_prices_are_counted_as_they_are_written() -> None:
    raw = b"model: tiny\nprice: {prompt: 0.15, completion: 0.1, cached: 0.000000001}"
    (service,) = read_manifest(raw).services
    price = definition_from_body(service.definition).price
    assert price == Price(prompt=150_000_000, completion=100_000_000, cached=1)
    sent = DefinitionBody.model_validate_json(service.definition.model_dump_json())
    assert definition_from_body(sent).price == price
    back = body_from_definition(definition_from_body(sent)).model_dump(mode="json")
    assert back["price"] == {"prompt": "0.15", "completion": "0.1", "cached": "0.000000001"}
    # A program may send numbers as well.
    assert PriceBody.model_validate({"prompt": 0.15}).prompt == Decimal("0.15")


def test_no_price_is_not_the_price_nothing() -> None:
    for raw in (b"model: tiny", b"model: tiny\nprice: {}"):
        assert read_manifest(raw).services[0].definition.price is None
    free = read_manifest(b"model: tiny\nprice: {prompt: 0}").services[0].definition
    assert definition_from_body(free).price == Price()


@pytest.mark.parametrize(
    ("price", "problem"),
    [
        ("prompt: cheap", 'price.prompt: expected an amount in euro such as 0.15, got "cheap"'),
        ("prompt: -1", 'price.prompt: expected an amount in euro such as 0.15, got "-1"'),
        (
            "prompt: 0.0000000001",
            "price.prompt: expected at most this many digits behind the point: 9, "
            'got "0.0000000001"',
        ),
        ("completion: 100001", 'price.completion: expected at most 100000, got "100001"'),
        ("promt: 1", "price.promt: unknown key; did you mean prompt?"),
    ],
)
def test_wrong_prices(price: str, problem: str) -> None:
    assert problem in message(f"model: tiny\nprice: {{{price}}}".encode())


def test_only_a_model_has_a_price() -> None:
    problem = "price: only the tokens of a model have a price: remove it"
    assert problem in message(b"run: python app.py\nprice: {prompt: 1}")
