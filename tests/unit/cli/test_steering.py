"""Verbs that steer: services, the platform's own life, talking to a model."""

import io
import json
import signal
import stat

import pytest

from tests.unit.cli.fake import FakeChild, Tram, make_service
from tramontane.base.errors import Unauthenticated, Unavailable
from tramontane.plan.garbage import Limits
from tramontane.processes.arguments import parse_control_arguments
from tramontane.wire.calls import Call

HELLO = "projects/default/services/hello"


@pytest.mark.parametrize(
    ("number", "sent", "said"),
    [("0", 0, "goes to sleep"), ("3", 3, "goes to 3 instances"), ("auto", None, "automatically")],
)
def test_scale(tram: Tram, number: str, sent: int | None, said: str) -> None:
    tram.api.on("POST", f"{HELLO}/scale", make_service())
    result = tram("scale", "hello", number)
    assert tram.api.sent("POST", f"{HELLO}/scale") == {"instances": sent}
    assert said in result.out


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("0", "hello goes to zero and stays there"),
        ("0", "tram scale hello auto"),
        ("2", "hello goes to 2 instances"),
        ("auto", "hello goes to its minimum: 1 instance"),
    ],
)
def test_scale_a_worker(tram: Tram, number: str, said: str) -> None:
    tram.api.on("POST", f"{HELLO}/scale", make_service(kind="worker", url=None, instances_min=1))
    result = tram("scale", "hello", number)
    assert said in result.out
    assert "next request" not in result.out


def test_exec(tram: Tram) -> None:
    answer = {"instance": "ins_1", "exit_code": 7, "stdout": "out\n", "stderr": "err\n"}
    tram.api.on("POST", f"{HELLO}/exec", answer)
    result = tram("exec", "hello", "--", "ls", "-o", "--timeout")
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")
    assert tram.api.sent("POST", f"{HELLO}/exec")["command"] == ["ls", "-o", "--timeout"]


def test_rollback_pause_resume_delete(tram: Tram) -> None:
    tram.api.on("POST", f"{HELLO}/rollback", {"number": 3})
    tram.api.on("POST", f"{HELLO}/pause", make_service())
    tram.api.on("POST", f"{HELLO}/resume", make_service())
    tram.api.on("DELETE", HELLO, None)
    assert tram("rollback", "hello", "3").out == "hello goes back to deployment 3\n"
    assert tram.api.sent("POST", f"{HELLO}/rollback") == {"deployment": 3}
    assert tram("pause", "hello").code == 0
    assert tram("resume", "hello").code == 0
    assert tram("delete", "hello").out == tram("services", "delete", "hello").out


# --- up, down, doctor --------------------------------------------------------------------------


def start_with(tram: Tram, *, country: bool) -> None:
    """Let the platform come to life when its process is started."""
    tram.api.down = True
    (tram.home / "platform.json").unlink()
    facts = [{"attribute": "country", "value": "FR"}] if country else []

    def begin() -> None:
        tram.write_home()
        tram.api.down = False

    tram.processes.on_start = begin
    tram.api.on("GET", "/healthz", {})
    tram.api.on("GET", "status", {})
    tram.api.on("GET", "cells", [{"facts": facts}])


def test_up_detached(tram: Tram) -> None:
    start_with(tram, country=True)
    result = tram("up", "--detach", "--country", "fr", "--operator", "Me")
    assert result.code == 0
    assert "http://127.0.0.1:8081" in result.out
    assert "no location" not in result.err
    (command,) = tram.processes.started
    assert command[:2] == ["-m", "tramontane.processes.control"]
    assert command[-4:] == ["--country", "FR", "--operator", "Me"]


def test_up_passes_on_what_the_operator_opens(tram: Tram) -> None:
    start_with(tram, country=True)
    given = ("--allow-egress-to", "127.0.0.1:5432", "--allow-egress-to", "db.example:1521")
    assert tram("up", "--detach", *given).code == 0
    assert tuple(tram.processes.started[0][-4:]) == given
    wrong = tram("up", "--detach", "--allow-egress-to", "127.0.0.1")
    assert wrong.code == 2
    assert "HOST:PORT" in wrong.err


def test_up_passes_on_how_much_is_kept(tram: Tram) -> None:
    start_with(tram, country=True)
    limits = ("--keep-deployments", "3", "--keep-unneeded", "0", "--cache-limit", "2GiB")
    assert tram("up", "--detach", *limits).code == 0
    (command,) = tram.processes.started
    parsed = parse_control_arguments(command[2:]).limits
    assert (parsed.deployments_kept, parsed.unneeded_kept_s) == (3, 0.0)
    assert parsed.caches_bytes_max == 2 * 1024**3
    assert tram("up", "--keep-deployments", "0").code == 2
    assert "a size such as 512MiB" in tram("up", "--cache-limit", "much").err


def test_up_keeps_what_is_usual_if_nothing_is_said(tram: Tram) -> None:
    start_with(tram, country=True)
    assert tram("up", "--detach").code == 0
    (command,) = tram.processes.started
    limits = parse_control_arguments(command[2:]).limits
    assert limits == Limits()
    # What the help of the options says.
    assert (limits.deployments_kept, limits.unneeded_kept_s) == (10, 600.0)
    assert limits.caches_bytes_max == 10 * 1024**3


def test_a_database_password_is_in_no_argument(tram: Tram) -> None:
    start_with(tram, country=True)
    url = "postgresql://me:secret@db/tram"
    assert tram("up", "--detach", "--database", url).code == 0
    assert "secret" not in str(tram.processes.started)
    assert tram.processes.secrets == {"TRAM_DATABASE": url}


def test_up_without_a_country_says_what_follows(tram: Tram) -> None:
    start_with(tram, country=False)
    result = tram("up", "--detach")
    assert result.code == 0
    assert "no location is claimed" in result.err
    assert "--country" not in tram.processes.started[0]


def test_up_twice(tram: Tram) -> None:
    tram.api.on("GET", "/healthz", {})
    tram.api.on("GET", "status", {})
    result = tram("up", "--detach")
    assert result.code == 0
    assert "running already" in result.err
    assert tram.processes.started == []


def test_address_taken_by_another_platform(tram: Tram) -> None:
    start_with(tram, country=True)
    tram.write_home()
    tram.api.down = False
    refusals: list[object] = [Unauthenticated("unknown token"), {}]
    tram.api.script("GET", "status", refusals)
    assert tram("up", "--detach").code == 0
    assert len(tram.processes.started) == 1


def test_up_reports_why_it_failed(tram: Tram) -> None:
    start_with(tram, country=True)
    tram.processes.on_start = lambda: None
    tram.processes.lines = [
        "noise",
        json.dumps({"event": "failed", "code": "unsupported", "message": "no Envoy here"}),
    ]
    result = tram("up", "--detach")
    assert result.code == 1
    assert "the platform did not start: no Envoy here" in result.err
    assert "next: tram doctor shows what this machine offers" in result.err


@pytest.mark.parametrize("flags", [(), ("--detach",)])
def test_up_says_the_next_step_that_the_control_plane_knows(
    tram: Tram, flags: tuple[str, ...]
) -> None:
    start_with(tram, country=True)
    tram.processes.on_start = lambda: None
    failed = {"event": "failed", "code": "conflict", "message": "port 1 is taken", "next": "this"}
    tram.processes.lines = [json.dumps(failed)]
    result = tram("up", *flags)
    assert result.code == 1
    assert "  next: this\n" in result.err


def test_up_when_the_process_just_ends(tram: Tram) -> None:
    start_with(tram, country=True)
    tram.processes.on_start = lambda: None
    tram.processes.lines, tram.processes.exit_status = ["Traceback: x"], 3
    result = tram("up", "--detach")
    assert result.code == 1
    assert "  | Traceback: x" in result.err
    assert "ended with exit status 3" in result.err


def test_up_gives_up_in_the_end(tram: Tram) -> None:
    start_with(tram, country=True)
    tram.processes.on_start = lambda: None
    assert tram("up", "--detach").code == 5


def test_up_in_the_foreground(tram: Tram) -> None:
    start_with(tram, country=True)
    tram.processes.lines = [json.dumps({"event": "ready"}), "something else"]
    result = tram("up")
    assert result.code == 0
    assert "PART" in result.out
    assert "something else" in result.out


def test_ctrl_c_in_the_foreground_is_down(tram: Tram, monkeypatch: pytest.MonkeyPatch) -> None:
    start_with(tram, country=True)

    def interrupt(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeChild, "readline", interrupt)
    tram.processes.outputs["tramontane.processes.down"] = (0, "stopped the gateway\n")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    result = tram("up")
    assert (result.code, result.out) == (0, "stopped the gateway\n")
    assert tram.processes.started[-1][1] == "tramontane.processes.down"
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_country_is_asked_for_until_it_was_claimed(
    tram: Tram, monkeypatch: pytest.MonkeyPatch
) -> None:
    tram.terminal.stdin = True
    monkeypatch.setattr("sys.stdin", io.StringIO("Utopia\nnl\n"))
    start_with(tram, country=True)
    assert tram("up", "--detach").code == 0
    assert tram.processes.started[-1][-2:] == ["--country", "NL"]
    (tram.home / "claim.json").write_text("{}")
    start_with(tram, country=True)
    assert tram("up", "--detach").code == 0
    assert "--country" not in tram.processes.started[-1]


def test_down(tram: Tram) -> None:
    tram.processes.outputs["tramontane.processes.down"] = (0, "stopped the control plane\n")
    assert tram("down").out == "stopped the control plane\n"
    tram.processes.outputs["tramontane.processes.down"] = (1, "")
    assert tram("down").code == 1


def test_doctor(tram: Tram) -> None:
    tram.api.down = True
    finding = {"name": "Envoy", "offered": True, "detail": "1.40", "required": True, "group": "A"}
    lacking = {"name": "GPU", "offered": False, "detail": "-", "required": False, "group": "B"}
    printed = json.dumps([finding, lacking])
    tram.processes.outputs["tramontane.processes.doctor"] = (0, printed)
    result = tram("doctor")
    assert result.code == 0
    assert result.out == (
        "A      OFFERED  NEEDED    DETAIL\nEnvoy  yes      required  1.40\n\n"
        "B    OFFERED  NEEDED    DETAIL\nGPU  no       optional  -\n"
    )
    assert json.loads(tram("doctor", "-o", "json").out) == [finding, lacking]
    printed = json.dumps([{**finding, "offered": False}])
    tram.processes.outputs["tramontane.processes.doctor"] = (0, printed)
    result = tram("doctor")
    assert result.code == 1
    assert "cannot run here without: Envoy" in result.err


# --- chat --------------------------------------------------------------------------------------

TINY = {"name": "tiny", "project": "default", "status": "healthy", "url": ""}


def piece(text: str) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}]}


def test_chat_keeps_its_token_private(tram: Tram) -> None:
    tram.api.on("GET", "models", [TINY])
    tram.api.on("POST", "tokens", {"token": "inf_1"})
    tram.api.on("POST", "/v1/chat/completions", [piece("Bon"), piece("jour"), b"[DONE]"])
    for _ in range(2):
        result = tram("chat", "tiny", "say hello")
        assert (result.code, result.out) == (0, "Bonjour\n")
    body = tram.api.sent("POST", "/v1/chat/completions")
    assert body["model"] == "tiny"
    assert body["messages"] == [{"role": "user", "content": "say hello"}]
    assert sum(call.path.endswith("/tokens") for call in tram.api.calls) == 1
    assert stat.S_IMODE((tram.home / "chat-tokens.json").stat().st_mode) == 0o600


def test_chat_renews_a_token_that_is_refused(tram: Tram) -> None:
    (tram.home / "chat-tokens.json").write_text(json.dumps({"default": "old"}))
    tram.api.on("GET", "models", [TINY])
    tram.api.on("POST", "tokens", {"token": "new"})

    def answer(_: Call) -> object:
        return [piece("ok")] if tram.api.tokens[-1] == "new" else Unauthenticated("refused")

    tram.api.on("POST", "/v1/chat/completions", answer)
    assert tram("chat", "--model", "tiny", "hi").out == "ok\n"


def test_chat_with_a_model_that_cannot_serve_says_where_to_look(tram: Tram) -> None:
    tram.api.on("GET", "models", [TINY])
    tram.api.on("POST", "tokens", {"token": "inf_1"})
    tram.api.on("POST", "/v1/chat/completions", Unavailable("it cannot serve"))
    result = tram("chat", "tiny", "say hello")
    assert result.code == 6
    assert result.err == (
        "error: it cannot serve\n"
        "  object: model tiny in project default\n"
        "  next: tram why tiny -p default; tram status shows the gateway\n"
    )


def test_chat_names_what_there_is(tram: Tram) -> None:
    tram.api.on("GET", "models", [TINY, {**TINY, "name": "big"}])
    assert tram("chat", "nobody", "hi").code == 4
    assert tram("chat", "--model", "nobody", "hi").code == 4
    assert "big, tiny" in tram("chat").err
    tram.api.on("GET", "models", [])
    result = tram("chat", "hello there")
    assert result.code == 4
    assert "tram deploy --model tiny" in result.err
