"""``tram chat``: talk to a model through the gateway, as any client of the inference API would.

The first conversation makes a token for inference and keeps it in ``TRAM_HOME`` (mode 0600).
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import click

from tramontane.base.errors import NotFound, Unauthenticated, Unavailable
from tramontane.cli.failures import make_not_found
from tramontane.cli.options import NumberType
from tramontane.cli.session import Session, pass_session
from tramontane.cli.text import log_text
from tramontane.wire import calls
from tramontane.wire.calls import Call

TOKENS_FILE = "chat-tokens.json"
TIMEOUT_S = 600.0
"""For the first word: a sleeping model has to be loaded."""

Message = dict[str, str]


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME] [TEXT]...")
@click.option("--model", metavar="NAME", help="The model; then all arguments are text.")
@click.option("-p", "--project", metavar="PROJECT", help="Where to look for the model.")
@click.option("--system", metavar="TEXT", help="What the model is told beforehand.")
@click.option("--max-tokens", type=NumberType(min=1), metavar="N", help="Answer length.")
@pass_session
def chat(
    session: Session,
    *,
    words: Sequence[str],
    model: str | None,
    project: str | None,
    system: str | None,
    max_tokens: int | None,
) -> None:
    """Talk to a model: one question with TEXT, a conversation without.

    NAME is a model or an alias; it may be left out where there is only one model.
    """
    session.about("model" + (f" {model}" if model else ""), "tram models list")
    found, text = _choose(session, words, model, project)
    session.about(f"model {found['name']} in project {found['project']}", "tram models list")
    talk = Conversation(session, found["name"], found["project"], max_tokens)
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    if not text and not session.terminal.stdin:
        text = sys.stdin.read().strip()
    if text:
        _say(talk, messages, text)
        return
    session.note(f"talking to {found['name']}; end with Ctrl-D")
    while True:
        try:
            line = click.prompt(">", prompt_suffix=" ", default="", show_default=False)
        except click.Abort:
            click.echo()
            return
        if line.strip():
            _say(talk, messages, line)


def _say(talk: "Conversation", messages: list[Message], text: str) -> None:
    messages.append({"role": "user", "content": text})
    answer: list[str] = []
    for piece in talk.ask(messages):
        answer.append(piece)
        click.echo(log_text(piece, raw=False), nl=False)
    click.echo()
    messages.append({"role": "assistant", "content": "".join(answer)})


def _choose(
    session: Session, words: Sequence[str], model: str | None, project: str | None
) -> tuple[Any, str]:
    """Return the model that is meant, and the text for it."""
    found = [
        each
        for each in session.api().fetch(calls.list_models())
        if project is None or each["project"] == project
    ]
    named = {each["name"]: each for each in found}
    wanted = model or (words[0] if words else None)
    if wanted is not None and wanted not in named:
        aliases = session.api().fetch(calls.list_aliases(project))
        named |= {each["name"]: each for each in aliases if each["name"] not in named}
    if model is not None:
        if model not in named:
            raise make_not_found("model", model, named)
        return named[model], " ".join(words)
    if words and words[0] in named:
        return named[words[0]], " ".join(words[1:])
    if len(found) == 1 and (not words or len(words) > 1 or " " in words[0]):
        return found[0], " ".join(words)
    if not found:
        raise NotFound("there is no model to talk to: deploy one with tram deploy --model tiny")
    if not words:
        raise click.UsageError(f"name one of the models: {', '.join(sorted(named))}")
    session.about(f"model {words[0]}", "tram models list")
    raise make_not_found("model", words[0], named)


class Conversation:
    """Questions to one model through the gateway."""

    def __init__(self, session: Session, model: str, project: str, max_tokens: int | None) -> None:
        self._session = session
        self._model = model
        self._project = project
        self._max_tokens = max_tokens
        self._gateway = _gateway_address(session)

    def ask(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield the answer in pieces, as the model makes them."""
        try:
            yield from self._pieces(messages, self._token())
        except Unauthenticated:
            # The kept token is of an earlier life of this platform.
            yield from self._pieces(messages, self._new_token())

    def _pieces(self, messages: Sequence[Message], token: str) -> Iterator[str]:
        body: dict[str, object] = {
            "model": self._model,
            "messages": list(messages),
            "stream": True,
        }
        if self._max_tokens is not None:
            body["max_tokens"] = self._max_tokens
        call = Call(
            method="POST",
            path="/v1/chat/completions",
            body=json.dumps(body).encode(),
            accept="text/event-stream",
            repeatable=False,
            timeout_s=TIMEOUT_S,
        )
        self._session.progress(f"waiting for {self._model} ...")
        try:
            for document in self._session.connect(self._gateway, token).stream(call):
                self._session.progress_done()
                if document == b"[DONE]":
                    return
                yield from _content(document)
        except Unavailable as error:
            why = f"tram why {self._model} -p {self._project}"
            raise Unavailable(
                error.message, next_step=f"{why}; tram status shows the gateway"
            ) from error

    def _token(self) -> str:
        return _read_tokens(self._file).get(self._project) or self._new_token()

    def _new_token(self) -> str:
        call = calls.create_token(name="tram chat", project=self._project, scope="inference")
        token: str = self._session.api().fetch(call)["token"]
        _write_tokens(self._file, {**_read_tokens(self._file), self._project: token})
        return token

    @property
    def _file(self) -> Path:
        return self._session.home / TOKENS_FILE


def _gateway_address(session: Session) -> str:
    address = session.platform().gateway
    if address is None:
        address = session.api().fetch(calls.get_status())["gateway"]["address"]
    if not address:
        raise Unavailable("the gateway is not running: see tram status")
    return address if "://" in address else f"http://{address}"


def _content(document: bytes) -> Iterator[str]:
    value = json.loads(document)
    if "error" in value:
        raise Unavailable(f"the model stopped: {value['error'].get('message', 'no reason given')}")
    for choice in value.get("choices", ()):
        if text := choice.get("delta", {}).get("content"):
            yield text


def _read_tokens(file: Path) -> dict[str, str]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, str]", value) if isinstance(value, dict) else {}


def _write_tokens(file: Path, tokens: dict[str, str]) -> None:
    """Replace the file as a whole, never readable by others, not even for a moment."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        json.dump(tokens, target)
    fresh.replace(file)
