"""One instance of an inference engine, as a queueing model: continuous batching, chunked prefill.

Every step of the engine writes one token for each running stream and, while a prompt is being
read, takes a chunk of it along. So a step lasts ``step_s + per_stream_s * streams``, and with a
chunk ``chunk / prompt_tokens_per_s`` more: prompts slow the streams down, as they do in vLLM and
llama.cpp. Between two events nothing changes but time, so the model moves from event to event, not
from step to step; that loses less than one step per event.

A request takes a slot and the KV room of its whole length when its prompt begins; until then it
waits, first come first served.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What hardware and engine can do; see ``bench/README.md`` for where the numbers come from."""

    name: str
    step_s: float
    """One decoding step with no stream at all: reading the weights."""
    per_stream_s: float
    prompt_tokens_per_s: float
    chunk_tokens: int
    slots: int
    kv_tokens: int
    load_s: float
    """From the order to the first request it can take."""


@dataclass(kw_only=True, slots=True)
class Request:
    """One request and what became of it."""

    at: float
    prompt_tokens: int
    generated_tokens: int
    first_token_at: float | None = None
    ended_at: float | None = None
    cut: bool = False
    """Its instance was taken away before it had all its tokens."""


@dataclass(kw_only=True)
class Instance:
    """One engine at work. ``advance`` before anything is asked of it or given to it."""

    name: str
    engine: Engine
    ordered_at: float
    ready_at: float
    waiting: deque[Request] = field(default_factory=deque[Request])
    reading: Request | None = None
    """The request whose prompt is being read."""
    unread_tokens: float = 0.0
    streams: list[tuple[float, int, Request]] = field(
        default_factory=list[tuple[float, int, Request]]
    )
    """A heap by the position in ``written`` at which each one ends."""
    written: float = 0.0
    """Tokens that a stream which was there from the beginning would have by now."""
    now: float = 0.0
    kv_used: int = 0
    waiting_tokens: int = 0
    """Prompt tokens of ``waiting``."""
    read_tokens: int = 0
    """Prompt tokens of requests whose prompt was read, ever."""
    generated: float = 0.0
    """Tokens written for all streams, ever."""
    first_tokens: list[float] = field(default_factory=list[float])
    """Times to first token since somebody last looked."""
    retiring: bool = False
    """Gets no new requests."""
    kill_at: float = inf
    _count: int = 0

    @property
    def open(self) -> int:
        """Requests that it has and that are not ended."""
        return len(self.waiting) + (self.reading is not None) + len(self.streams)

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return len(self.streams) + (self.reading is not None)

    @property
    def step_now_s(self) -> float:
        """How long a step takes now: the time between two tokens of a stream."""
        engine = self.engine
        step = engine.step_s + engine.per_stream_s * len(self.streams)
        if self.reading is not None:
            step += engine.chunk_tokens / engine.prompt_tokens_per_s
        return step

    def take(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)
        self.waiting_tokens += request.prompt_tokens
        self._admit()

    def next_event_at(self) -> float:
        """When something changes by itself; never, if nothing is under way."""
        step = self.step_now_s
        at = inf
        if self.reading is not None:
            at = self.now + self.unread_tokens * step / self.engine.chunk_tokens
        if self.streams:
            at = min(at, self.now + max(self.streams[0][0] - self.written, 0.0) * step)
        return at

    def advance(self, now: float) -> None:
        """Move to ``now``, which is no later than ``next_event_at``."""
        steps = (now - self.now) / self.step_now_s
        self.now = now
        if steps <= 0:
            return
        self.written += steps
        self.generated += steps * len(self.streams)
        if self.reading is not None:
            self.unread_tokens -= steps * self.engine.chunk_tokens

    def settle(self) -> None:
        """End what has come to its end."""
        request = self.reading
        if request is not None and self.unread_tokens <= 1e-6:
            request.first_token_at = self.now
            self.first_tokens.append(self.now - request.at)
            self.read_tokens += request.prompt_tokens
            self.reading = None
            self._count += 1
            ends = self.written + request.generated_tokens - 1
            heappush(self.streams, (ends, self._count, request))
        while self.streams and self.streams[0][0] - self.written <= 1e-6:
            _, _, ended = heappop(self.streams)
            ended.ended_at = self.now
            self.kv_used -= ended.prompt_tokens + ended.generated_tokens
        self._admit()

    def cut(self) -> int:
        """Lose everything; return how many requests that were."""
        lost = list(self.requests())
        for request in lost:
            request.cut = True
        return len(lost)

    def requests(self) -> Iterator[Request]:
        """Return all that is open."""
        yield from self.waiting
        if self.reading is not None:
            yield self.reading
        for _, _, request in self.streams:
            yield request

    def _admit(self) -> None:
        if self.reading is not None or not self.waiting:
            return
        request = self.waiting[0]
        tokens = request.prompt_tokens + request.generated_tokens
        fits = self.kv_used + tokens <= self.engine.kv_tokens or not self.streams
        if len(self.streams) < self.engine.slots and fits:
            self.waiting.popleft()
            self.waiting_tokens -= request.prompt_tokens
            self.reading = request
            self.unread_tokens = float(request.prompt_tokens)
            self.kv_used += tokens
