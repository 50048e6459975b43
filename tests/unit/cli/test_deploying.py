"""From a directory to an address: deploy, apply, plan."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.fake import Tram, make_deployment, make_service
from tramontane.cli.models import sizing_lines
from tramontane.wire.calls import Call

HELLO = "projects/default/services/hello"
PENDING_POLICY = make_deployment(
    "pending", reason="policy", message="eu.location: the country of cell local is unknown"
)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    directory = tmp_path / "hello"
    directory.mkdir()
    (directory / "main.py").write_text("print('hello')\n")
    return directory


def accept(tram: Tram, *deployments: object, service: str = HELLO) -> None:
    """Let the fake platform accept an upload and play these deployments."""
    tram.api.on("PUT", f"{service}", make_deployment("building"))
    tram.api.script("GET", f"{service}/deployments/1", deployments or [make_deployment("healthy")])
    tram.api.on("GET", f"{service}/logs", [])
    tram.api.on("GET", service, make_service())


def on_upload(tram: Tram) -> None:
    """Accept any archive."""
    fetch = tram.api.fetch

    def accepting(call: Call) -> object:
        if "/sources/" in call.path and call.method == "PUT":
            assert call.file is not None
            assert call.file.stat().st_size > 0
            tram.api.calls.append(call)
            return {"digest": call.path.rsplit("/", 1)[1], "size_bytes": 1}
        return fetch(call)

    tram.api.fetch = accepting  # type: ignore[method-assign]


def test_deploy_a_directory(tram: Tram, app: Path) -> None:
    accept(tram, make_deployment("building"), make_deployment("starting"))
    tram.api.script(
        "GET",
        f"{HELLO}/deployments/1",
        [make_deployment("building"), make_deployment("starting"), make_deployment("healthy")],
    )
    log = [{"at": 1700000001.0, "source": "build", "text": "found Python"}]
    tram.api.on("GET", f"{HELLO}/logs", log)
    on_upload(tram)
    result = tram("deploy", str(app), "--env", "A=b=c", "--min", "7", "--policy", "eu")
    assert result.code == 0
    assert result.out == "http://hello.default.localhost:8080\n"
    # The log is asked for twice, and each line is shown once.
    assert result.err.count("build: found Python") == 1
    body = tram.api.sent("PUT", HELLO)
    assert body["environment"] == {"A": "b=c"}
    assert body["scaling"]["min"] == body["scaling"]["max"] == 7
    assert body["policy"] == ["eu"]
    uploads = [call for call in tram.api.calls if call.method == "PUT" and call.file]
    assert uploads[0].path.endswith(body["source"]["digest"].replace(":", "%3A"))


def test_known_source_is_not_sent_again(tram: Tram, app: Path) -> None:
    accept(tram)
    tram.api.connect = lambda address, token: _Present(tram)  # type: ignore[assignment,return-value]
    result = tram("deploy", str(app))
    assert result.code == 0
    assert "unchanged since an earlier upload" in result.err
    assert not [call for call in tram.api.calls if call.file]


class _Present:
    """A platform that has every source."""

    def __init__(self, tram: Tram) -> None:
        self._api = tram.api

    def fetch(self, call: Call) -> object:
        return None if call.method == "HEAD" else self._api.fetch(call)

    def stream(self, call: Call) -> Iterator[bytes]:
        return self._api.stream(call)


def test_deploy_a_model(tram: Tram) -> None:
    tiny = "projects/default/services/tiny"
    accept(tram, service=tiny)
    assert tram("deploy", "--model", "tiny", "--no-wait").code == 0
    body = tram.api.sent("PUT", tiny)
    assert (body["kind"], body["source"]) == ("model", {"model": "tiny"})


SIZING = {
    "engine": "llama.cpp",
    "memory_bytes": 118 * 1024**2,
    "needed_bytes": 54 * 1024**2,
    "cpus": 1.0,
    "threads": 1,
    "context_tokens": 1024,
    "parallel": 4,
    "batch_tokens": 512,
    "embeddings": True,
    "prompt_cache_bytes": 0,
    "parts": [
        {"name": "weights", "size_bytes": 20 * 1024**2, "how": ""},
        {"name": "engine", "size_bytes": 34 * 1024**2, "how": ""},
    ],
    "notes": ["1,024 tokens of context instead of the model's own 2,048"],
}
SIZE = (
    "size: llama.cpp, 4 x 1,024 tokens of context, 1 core, 118 MiB = "
    "weights 20 + engine 34 + headroom 64\n"
)


def test_deploying_a_model_shows_what_an_instance_gets(tram: Tram) -> None:
    tiny = "projects/default/services/tiny"
    accept(tram, service=tiny)
    tram.api.on("GET", tiny, make_service(name="tiny", sizing=SIZING))
    result = tram("deploy", "--model", "tiny")
    assert SIZE in result.err
    assert "note: 1,024 tokens of context instead of the model's own 2,048\n" in result.err
    body = tram.api.sent("PUT", tiny)
    assert body["resources"]["memory_bytes"] is None
    printed = json.loads(tram("deploy", "--model", "tiny", "-o", "json").out)
    assert printed["sizing"] == SIZING


def test_a_model_that_no_cell_can_ever_hold_is_not_waited_for(tram: Tram) -> None:
    tiny = "projects/default/services/tiny"
    accept(tram, make_deployment("pending", reason="too_large", message="it needs 9"), service=tiny)
    result = tram("deploy", "--model", "tiny")
    assert result.code == 1
    assert "error: no cell can ever run tiny: it needs 9\n" in result.err
    assert "next: correct it and deploy again; until then deployment" in result.err


def test_plan_shows_the_size_of_a_model_or_why_there_is_none(tram: Tram, tmp_path: Path) -> None:
    (tmp_path / "tramontane.yaml").write_text("services: {a: {model: tiny}, b: {model: gone}}\n")
    candidate = {"cell": "local", "allowed": True, "reason": "fits", "findings": []}
    planned = {"action": "create", "changes": [], "placeable": True, "problem": None}
    services = [
        {"name": "a", **planned, "candidates": [{**candidate, "sizing": SIZING}]},
        {
            "name": "b",
            **planned,
            "placeable": False,
            "problem": "cannot read the model gone",
            "candidates": [{**candidate, "sizing": None}],
        },
        {"name": "c", **planned, "note": "not here yet", "candidates": [candidate]},
    ]
    document = {"project": "default", "services": services}
    tram.api.on("POST", "projects/default/plan", document)
    out = tram("plan", "-f", str(tmp_path)).out
    assert f"a: create\n  {SIZE}  note: 1,024" in out
    assert "b: create; no cell may and can run it: it would stay pending\n  cannot read" in out
    assert "c: create\n  not here yet\n" in out
    assert json.loads(tram("plan", "-f", str(tmp_path), "-o", "json").out) == document


def test_memory_beyond_what_is_needed_is_shown_as_what_it_is_for() -> None:
    lines = sizing_lines({**SIZING, "memory_bytes": 150 * 1024**2, "prompt_cache_bytes": 2**25})
    assert lines[0].endswith("150 MiB = weights 20 + engine 34 + headroom 64 + prompt cache 32")
    trusted = {**SIZING, "needed_bytes": 0, "parts": [], "cpus": 2.5}
    assert sizing_lines(trusted)[0].endswith("2.5 cores, 118 MiB")


def test_model_file_is_sent_by_its_whole_path(
    tram: Tram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    small = "projects/default/services/small"
    accept(tram, service=small)
    assert tram("deploy", "--model", "small.gguf").code == 0
    assert tram.api.sent("PUT", small)["source"] == {"model": str(tmp_path / "small.gguf")}


def test_manifest_is_used_and_flags_win(tram: Tram, app: Path) -> None:
    (app / "tramontane.yaml").write_text(
        "name: shop\nproject: p\nrun: ./go\nenv: {A: 1, B: 2}\npolicy: eu\nscale: {max: 2}\n"
    )
    shop = "projects/p/services/shop"
    accept(tram, service=shop)
    on_upload(tram)
    assert tram("deploy", str(app), "--env", "B=3", "--policy", "france").code == 0
    body = tram.api.sent("PUT", shop)
    assert body["command"] == "./go"
    assert body["environment"] == {"A": "1", "B": "3"}
    assert body["policy"] == ["france"]
    assert body["scaling"]["max"] == 2


def test_a_procfile_with_a_worker_alone_makes_a_worker(tram: Tram, app: Path) -> None:
    (app / "Procfile").write_text("worker: python main.py\n")
    accept(tram)
    tram.api.on("GET", HELLO, make_service(kind="worker", url=None))
    on_upload(tram)
    result = tram("deploy", str(app))
    body = tram.api.sent("PUT", HELLO)
    assert (body["kind"], body["scaling"]["min"], body["scaling"]["max"]) == ("worker", 1, 1)
    assert "hello is a worker, without an address: its Procfile has a `worker:` line" in result.err
    assert result.out == "hello is healthy\n"


@pytest.mark.parametrize(
    ("procfile", "manifest", "kind"),
    [
        ("web: x\nworker: y\n", "", "web"),
        ("web: x\nworker: y\n", "kind: worker\n", "worker"),
        ("worker: y\n", "kind: web\n", "web"),
        ("worker: y\n", "run: ./serve\n", "web"),
        ("worker: y\n", "name: hello\n", "worker"),
    ],
)
def test_what_the_manifest_says_of_the_kind_counts(
    tram: Tram, app: Path, procfile: str, manifest: str, kind: str
) -> None:
    (app / "Procfile").write_text(procfile)
    if manifest:
        (app / "tramontane.yaml").write_text(manifest)
    accept(tram)
    on_upload(tram)
    result = tram("deploy", str(app))
    assert tram.api.sent("PUT", HELLO)["kind"] == kind
    implied = kind == "worker" and "kind" not in manifest
    assert ("is a worker, without an address" in result.err) is implied


def test_a_worker_with_no_instance_is_refused_before_anything_is_sent(
    tram: Tram, app: Path
) -> None:
    (app / "Procfile").write_text("worker: python main.py\n")
    result = tram("deploy", str(app), "--min", "0")
    assert result.code == 2
    assert "scale.min: expected at least 1 for a worker" in result.err
    assert not tram.api.calls


def test_apply_looks_for_the_procfile_of_each_service(tram: Tram, app: Path) -> None:
    for folder, line in (("front", "web: x"), ("mails", "worker: y")):
        (app / folder).mkdir()
        (app / folder / "Procfile").write_text(line)
    manifest = app / "tramontane.yaml"
    manifest.write_text(
        "services:\n  front: {build: {root: front}}\n  mails: {build: {root: mails}}\n"
    )
    services = [planned(name, "create") for name in ("front", "mails")]
    tram.api.on("POST", "projects/default/plan", {"services": services})
    for name, kind, url in (("front", "web", "http://front"), ("mails", "worker", None)):
        service = f"projects/default/services/{name}"
        accept(tram, service=service)
        tram.api.on("GET", service, make_service(name=name, kind=kind, url=url))
    on_upload(tram)
    result = tram("apply", "-f", str(manifest))
    assert result.code == 0, result.err
    assert tram.api.sent("PUT", "projects/default/services/front")["kind"] == "web"
    assert tram.api.sent("PUT", "projects/default/services/mails")["kind"] == "worker"
    assert result.out.splitlines()[-1] == "mails  healthy  -"
    assert "mails is a worker" in result.err


def test_refused_by_policy(tram: Tram) -> None:
    accept(tram, make_deployment("building"), PENDING_POLICY)
    result = tram("deploy", "--model", "tiny", "--name", "hello", "--policy", "eu")
    assert result.code == 3
    assert result.out == ""
    assert "error: no cell may run hello: eu.location: the country of cell local" in result.err
    assert "  next: tram why hello shows each rule and cell" in result.err


def test_build_failure_shows_the_tool_s_words_once(tram: Tram, app: Path) -> None:
    failed = make_deployment("failed", reason="build_failed", message="pip ended with status 1")
    accept(tram, failed)
    tram.api.on("GET", f"{HELLO}/logs", [{"at": 1.7e9 + 1, "source": "build", "text": "no such"}])
    on_upload(tram)
    result = tram("deploy", str(app))
    assert result.code == 1
    assert result.err.count("no such") == 1
    assert "error: deployment 1 of hello failed: pip ended with status 1" in result.err


def test_start_failure_shows_the_last_output(tram: Tram) -> None:
    accept(tram, make_deployment("failed", reason="start_failed", message="it exited"))

    def lines(call: Call) -> object:
        runtime = ("source", "runtime") in call.query
        return [{"at": 1.0, "source": "runtime", "text": "ImportError: x"}] if runtime else []

    tram.api.on("GET", f"{HELLO}/logs", lines)
    result = tram("deploy", "--model", "tiny", "--name", "hello")
    assert result.code == 1
    assert "  | ImportError: x\n" in result.err


def test_time_out(tram: Tram) -> None:
    accept(tram, make_deployment("starting", message="starting in cell local"))
    result = tram("deploy", "--model", "tiny", "--name", "hello", "--timeout", "5s")
    assert result.code == 5
    assert "hello is not ready after 5 s: deployment 1 is starting (starting in cell" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("deploy", "/nowhere"), 2, "cannot deploy /nowhere: it does not exist"),
        (("deploy", "--image", "x"), 1, "  object: image x\n  next: deploy a directory or a model"),
        (("deploy", ".", "--model", "tiny"), 2, "error: PATH and --model exclude each other"),
        (("deploy", "--min", "x"), 2, "'x' is not a valid whole number"),
        (("deploy", "--model", "tiny", "--env", "SECRET"), 2, "--env expects KEY=VALUE"),
        (("deploy", "--model", "tiny", "--min", "3", "--max", "2"), 2, "--min 3 is more than"),
        (("deploy", "--model", "/123.gguf"), 2, "give one with --name"),
        (("deploy", "--model", "gpt"), 2, "neither bundled (bundled is tiny) nor the absolute"),
        (("deploy", "--model", "hf://gpt"), 2, "expected hf://ORGANIZATION/REPOSITORY"),
        (("apply", "-f", "/nowhere.yaml"), 2, "cannot read /nowhere.yaml"),
        (("plan", "-f", "/nowhere.yaml"), 2, "cannot read /nowhere.yaml"),
    ],
)
def test_mistakes(tram: Tram, arguments: tuple[str, ...], code: int, part: str) -> None:
    result = tram(*arguments)
    assert result.code == code
    assert part in result.err
    assert not [call for call in tram.api.calls if call.changes]


NO_APP = "give the directory of an app: tram deploy PATH"
NO_FILE = "give the file with -f FILE; a directory without a manifest is deployed with: tram deploy"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("deploy none", f"it does not exist\n  object: source none\n  next: {NO_APP}"),
        ("deploy text", f"it is not a directory\n  object: source text\n  next: {NO_APP}"),
        ("deploy a.yaml", "  next: if it is a manifest: tram apply -f a.yaml"),
        ("deploy a.gguf", "  next: if it is a model: tram deploy --model a.gguf"),
        ("deploy two", "two/tramontane.yaml has 2 services\n  object: source two\n  next: deploy"),
        ("apply -f none", f"it does not exist\n  object: manifest none\n  next: {NO_FILE}"),
        ("plan -f none", f"it does not exist\n  object: manifest none\n  next: {NO_FILE}"),
        ("apply -f empty", "cannot read empty/tramontane.yaml: it does not exist"),
    ],
)
def test_a_path_that_will_not_do_is_named_with_the_way_out(
    tram: Tram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "tramontane.yaml").write_text(TWO)
    for name in ("text", "a.yaml", "a.gguf"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    result = tram(*arguments.split())
    assert result.code == 2
    assert told in result.err


def test_a_manifest_that_is_none_is_the_object_not_a_field(tram: Tram, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    for text in ("", "just words", "a: [", "a\tb: 1\n\t- x"):
        file.write_text(text)
        assert f"  object: manifest {file}\n" in tram("apply", "-f", str(file)).err
    file.write_text("scael: 1")
    assert f"  object: manifest {file} · field scael\n" in tram("apply", "-f", str(file)).err


def test_a_model_that_never_started_has_no_output_of_its_own(tram: Tram) -> None:
    accept(tram, make_deployment("failed", reason="invalid_request", message="no such file"))
    result = tram("deploy", "--model", "tiny", "--name", "hello")
    assert "  next: correct it and deploy again; the whole output: tram logs hello\n" in result.err


def test_secret_value_is_not_repeated(tram: Tram) -> None:
    assert "hunter2" not in tram("deploy", "--model", "tiny", "--env", "=hunter2").err


TWO = "services: {hello: {model: tiny}, other: {model: tiny, policy: eu}}\n"


def planned(name: str, action: str, *warnings: str) -> dict[str, object]:
    candidate = {"cell": "local", "allowed": True, "reason": "it fits", "findings": []}
    return {
        "name": name,
        "action": action,
        "changes": ["scaling.max: 5 -> 2"],
        "candidates": [candidate],
        "placeable": True,
        "models": ["assistant"] if warnings else [],
        "warnings": list(warnings),
    }


def test_apply_leaves_the_unchanged_alone(tram: Tram, tmp_path: Path) -> None:
    file = tmp_path / "tramontane.yaml"
    file.write_text(TWO)
    accept(tram)
    accept(tram, service="projects/default/services/other")
    services = [planned("hello", "update"), planned("other", "unchanged")]
    tram.api.on("POST", "projects/default/plan", {"project": "default", "services": services})
    result = tram("apply", "-f", str(file))
    assert result.code == 0
    assert "other: unchanged" in result.err
    puts = [call.path.rsplit("/", 1)[1] for call in tram.api.calls if call.method == "PUT"]
    assert puts == ["hello"]


def test_apply_reports_each_failure(tram: Tram, tmp_path: Path) -> None:
    file = tmp_path / "tramontane.yaml"
    file.write_text(TWO)
    accept(tram, make_deployment("failed", reason="start_failed", message="broken"))
    accept(tram, PENDING_POLICY, service="projects/default/services/other")
    services = [planned("hello", "create"), planned("other", "create")]
    tram.api.on("POST", "projects/default/plan", {"project": "default", "services": services})
    result = tram("apply", "-f", str(file))
    assert result.code == 1
    assert "deployment 1 of hello failed: broken" in result.err
    assert "no cell may run other" in result.err


def test_plan(tram: Tram, tmp_path: Path) -> None:
    file = tmp_path / "tramontane.yaml"
    file.write_text(TWO)
    answer = {"project": "default", "services": [planned("hello", "update")]}
    tram.api.on("POST", "projects/default/plan", answer)
    assert (
        tram("plan", "-f", str(file)).out
        == """\
hello: update
  scaling.max: 5 -> 2

CELL   ALLOWED  REASON
local  yes      it fits
"""
    )
    assert json.loads(tram("plan", "-f", str(file), "-o", "json").out) == answer


MISSING = "there is no model assistant in project default: it is not found until it is deployed"


def test_models_that_are_not_there_are_said(tram: Tram, tmp_path: Path, app: Path) -> None:
    file = tmp_path / "tramontane.yaml"
    file.write_text("services: {hello: {models: assistant}}\n")
    services = [planned("hello", "create", MISSING)]
    tram.api.on("POST", "projects/default/plan", {"project": "default", "services": services})
    shown = f"  may call models: assistant\n  warning: {MISSING}\n"
    assert shown in tram("plan", "-f", str(file)).out
    accept(tram)
    on_upload(tram)
    assert f"hello: warning: {MISSING}\n" in tram("apply", "-f", str(file)).err
    assert tram.api.sent("PUT", "projects/default/services/hello")["models"] == ["assistant"]
    accept(tram)
    tram.api.on("PUT", HELLO, make_deployment("building", warnings=[MISSING]))
    assert f"hello: warning: {MISSING}\n" in tram("deploy", str(app)).err
