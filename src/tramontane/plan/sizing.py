"""How large an instance of a model is: engine, memory, cores, context and requests at a time.

From the facts of its files, what a cell has and what its user wishes; pure, so that the same
numbers come out wherever they are asked for: placement, ``tram plan``, and the start of the engine.
The arithmetic is kept, part by part, whether it comes out or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tramontane.domain.cell import Capacity
from tramontane.domain.definition import EngineOptions, ResourceWishes
from tramontane.domain.model import ModelFacts, WeightsFormat
from tramontane.plan.footprint import (
    CACHE,
    CELLS,
    CHECKPOINTS,
    MEBIBYTE,
    Load,
    Part,
    batch_of,
    footprint,
    missing_facts,
)

LLAMA_CPP = "llama.cpp"
PARALLEL = (4, 2, 1)
"""Requests at a time: fewer, where there is no memory for a context worth having."""
CONTEXT_WORTH_HAVING = 8192
CONTEXT_UNSAID = 4096
"""For a model that does not say for how much it was trained."""
SHARE = 2
"""Unasked, an instance takes no more than one part in so many of a cell: beside it, its next
version must start."""
CACHE_BYTES_UNASKED = 2 * 1024 * MEBIBYTE
"""Unasked, the cache takes no more than this or than the weights: it is cleared at every start, a
second per GiB and more, and that is time in which a request waits for a sleeping model."""
HEADROOM_SHARE = 10
HEADROOM_BYTES = 384 * MEBIBYTE
"""For requests, and what a sum does not foresee. While text becomes tokens it takes fifty times its
length, whether the context could hold it or not: enough for one of 5 MB, or sixteen of 400 KB."""
HEADROOM_BYTES_LEAST = 64 * MEBIBYTE
"""Where its user limits the memory, or the cell does: long texts may end the instance then."""
SMALL_BYTES = 64 * MEBIBYTE
"""Below this a model computes so little per token that a second thread mostly waits and spins:
measured with the bundled model on two busy cores, p99 went from 63 ms to 7 s."""


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What one instance gets, and why that is enough."""

    engine: str
    memory_bytes: int
    """Its limit: the parts, with headroom."""
    cpus: float
    threads: int
    context_tokens: int
    """Per request."""
    parallel: int
    batch_tokens: int
    checkpoints: int
    embeddings: bool
    prompt_cache_bytes: int
    """For prompts of earlier requests: what its user gave beyond what it needs."""
    parts: tuple[Part, ...]
    """What it takes, by name; empty where the files say too little to tell."""
    notes: tuple[str, ...] = ()
    """What is less than the model offers, and why."""

    @property
    def needed_bytes(self) -> int:
        """What it takes, without headroom."""
        return sum(each.size_bytes for each in self.parts)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why no instance of this model can be in this cell, whatever is free there."""

    message: str
    parts: tuple[Part, ...] = ()
    """The smallest sum that was tried."""


@lru_cache(maxsize=1024)
def size_model(
    facts: ModelFacts, capacity: Capacity, resources: ResourceWishes, options: EngineOptions
) -> Sizing | Refusal:
    """Return the size of one instance, or why there is none.

    Remembered, since a waking request waits for it.
    """
    if facts.format is not WeightsFormat.GGUF:
        return Refusal(
            message=f"no engine here serves weights as {facts.format.value}; "
            "give a GGUF file of the same model"
        )
    own = facts.context_length
    if own is not None and options.context_tokens is not None and options.context_tokens > own:
        return Refusal(
            message=f"a context of {options.context_tokens:,} tokens was asked for, but the model "
            f"was trained for {own:,}; lower engine.context"
        )
    missing = missing_facts(facts)
    if missing:
        return _take_on_trust(missing, facts, capacity, resources, options)
    return _Search(facts, capacity, resources, options).run()


def describe_parts(parts: tuple[Part, ...]) -> str:
    """Return the sum in one line, the largest first."""
    largest_first = sorted(parts, key=lambda each: -each.size_bytes)
    return ", ".join(f"{each.name} {mebibytes(each.size_bytes)}" for each in largest_first)


def mebibytes(size_bytes: int) -> str:
    """Return what is needed, as it stands in sentences: rounded up."""
    return f"{-(-size_bytes // MEBIBYTE):,} MiB"


def mebibytes_down(size_bytes: int) -> str:
    """Return what there is: rounded down."""
    return f"{max(size_bytes, 0) // MEBIBYTE:,} MiB"


# --- when the files say enough -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Room:
    memory_bytes: int
    cache_bytes: int
    """Of the memory, for a context that nobody asked for."""
    headroom_bytes: int


class _Search:
    """Looks for the most that fits: all slots before the context, a context before all of it."""

    def __init__(
        self,
        facts: ModelFacts,
        capacity: Capacity,
        resources: ResourceWishes,
        options: EngineOptions,
    ) -> None:
        self._facts = facts
        self._capacity = capacity
        self._resources = resources
        self._slots = PARALLEL if options.parallel is None else (options.parallel,)
        self._given = options.context_tokens
        self._wanted = self._given or facts.context_length or CONTEXT_UNSAID

    def run(self) -> Sizing | Refusal:
        """Return the best size within what the user gave, or within the cell."""
        given, whole = self._resources.memory_bytes, self._capacity.memory_bytes
        cache = max(self._facts.size_bytes, CACHE_BYTES_UNASKED)
        last = _Room(
            memory_bytes=whole if given is None else given,
            cache_bytes=whole if given is None else given,
            headroom_bytes=HEADROOM_BYTES_LEAST,
        )
        unasked = [
            _Room(memory_bytes=each, cache_bytes=cache, headroom_bytes=HEADROOM_BYTES)
            for each in (whole // SHARE, whole)
        ]
        for each in [*unasked, last] if given is None else [last]:
            load = self._most_within(each)
            if load is not None:
                return self._sized(load, each)
        return self._refused(last)

    def _most_within(self, room: "_Room") -> Load | None:
        worth_having = min(CONTEXT_WORTH_HAVING, self._wanted)
        tries = [(slots, worth_having) for slots in self._slots] + [(self._slots[-1], CELLS)]
        for slots, least in tries:
            tokens = self._longest(slots, least, room)
            if tokens is not None:
                return self._load(slots, tokens)
        return None

    def _longest(self, slots: int, least: int, room: "_Room") -> int | None:
        """Return the longest context that fits, if it is the wanted one or at least ``least``."""
        if self._fits(self._load(slots, self._wanted), room):
            return self._wanted
        if self._given is not None:
            return None
        # In steps of the cache: the first number of steps that does not fit lies in between.
        fits, fails = -(-least // CELLS) - 1, -(-self._wanted // CELLS)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self._fits(self._load(slots, middle * CELLS), room):
                fits = middle
            else:
                fails = middle
        return fits * CELLS if fits * CELLS >= least else None

    def _load(self, slots: int, tokens: int) -> Load:
        return Load(
            context_tokens=tokens, parallel=slots, batch_tokens=batch_of(self._facts, tokens)
        )

    def _fits(self, load: Load, room: "_Room") -> bool:
        parts = footprint(self._facts, load)
        cache = sum(each.size_bytes for each in parts if each.name == CACHE)
        asked = self._given is not None
        fits = with_headroom(parts, room.headroom_bytes) <= room.memory_bytes
        return fits and (asked or cache <= room.cache_bytes)

    def _sized(self, load: Load, room: "_Room") -> Sizing:
        parts = footprint(self._facts, load)
        needed = with_headroom(parts, room.headroom_bytes)
        given = self._resources.memory_bytes
        cpus, threads = _cores(self._facts, self._capacity, self._resources)
        return Sizing(
            engine=LLAMA_CPP,
            memory_bytes=needed if given is None else given,
            cpus=cpus,
            threads=threads,
            context_tokens=load.context_tokens,
            parallel=load.parallel,
            batch_tokens=load.batch_tokens,
            checkpoints=CHECKPOINTS,
            embeddings=self._facts.embeds,
            prompt_cache_bytes=0 if given is None else max(given - with_headroom(parts), 0),
            parts=parts,
            notes=tuple(self._notes(load)),
        )

    def _notes(self, load: Load) -> Iterator[str]:
        if load.context_tokens < self._wanted:
            why = (
                "more would not fit into resources.memory"
                if self._resources.memory_bytes is not None
                else "unasked, a model takes half of a cell, and its cache as much as its weights "
                f"or {mebibytes(CACHE_BYTES_UNASKED)}; ask for more with engine.context"
            )
            yield (
                f"{load.context_tokens:,} tokens of context instead of the model's own "
                f"{self._wanted:,}: {why}"
            )
        if load.parallel < self._slots[0]:
            yield (
                f"{_times(load.parallel)} at a time instead of {self._slots[0]}, so that each has "
                "a context worth having"
            )

    def _refused(self, room: "_Room") -> Refusal:
        least = self._load(self._slots[-1], self._given or min(CELLS, self._wanted))
        parts = footprint(self._facts, least)
        given = self._resources.memory_bytes
        needed = with_headroom(parts, room.headroom_bytes)
        there = f"the cell has {mebibytes_down(room.memory_bytes)}"
        if given is not None:
            there = f"resources.memory allows {mebibytes_down(given)}"
        return Refusal(
            message=f"it needs {mebibytes(needed)} of memory for "
            f"{_times(least.parallel)} at a time with {least.context_tokens:,} tokens of context "
            f"({describe_parts(parts)}, and headroom), but {there}; {self._next_step()}",
            parts=parts,
        )

    def _next_step(self) -> str:
        if self._resources.memory_bytes is not None:
            return "raise resources.memory, or leave it out to have it reckoned"
        if self._given is not None or len(self._slots) == 1:
            return "lower engine.context or engine.parallel, or leave them out"
        return "take a smaller model, one with stronger quantisation, or a larger machine"


def with_headroom(parts: tuple[Part, ...], least_bytes: int = HEADROOM_BYTES) -> int:
    """Return the limit for an instance that takes these parts, in whole mebibytes."""
    needed = sum(each.size_bytes for each in parts)
    limit = needed + max(needed // HEADROOM_SHARE, least_bytes)
    return -(-limit // MEBIBYTE) * MEBIBYTE


def _cores(facts: ModelFacts, capacity: Capacity, resources: ResourceWishes) -> tuple[float, int]:
    """Return how many cores the instance may use, and how many threads compute."""
    small = facts.size_bytes < SMALL_BYTES
    cpus = resources.cpus or (1.0 if small else max(capacity.cpus, 1.0))
    return cpus, 1 if small else max(int(cpus), 1)


def _times(parallel: int) -> str:
    return "1 request" if parallel == 1 else f"{parallel} requests"


# --- when they do not --------------------------------------------------------------------------


def _take_on_trust(
    missing: list[str],
    facts: ModelFacts,
    capacity: Capacity,
    resources: ResourceWishes,
    options: EngineOptions,
) -> Sizing | Refusal:
    """Return what the user wishes, since nobody can add it up."""
    said = f"its files do not say {', '.join(missing)}"
    if resources.memory_bytes is None:
        return Refusal(
            message=f"{said}, so that its memory cannot be reckoned; give resources.memory, "
            "and engine.context if it should not be "
            f"{CONTEXT_WORTH_HAVING:,} tokens"
        )
    own = facts.context_length or CONTEXT_UNSAID
    context = options.context_tokens or min(own, CONTEXT_WORTH_HAVING)
    cpus, threads = _cores(facts, capacity, resources)
    return Sizing(
        engine=LLAMA_CPP,
        memory_bytes=resources.memory_bytes,
        cpus=cpus,
        threads=threads,
        context_tokens=context,
        parallel=options.parallel or PARALLEL[0],
        batch_tokens=batch_of(facts, context),
        checkpoints=CHECKPOINTS,
        embeddings=facts.embeds,
        prompt_cache_bytes=0,
        parts=(),
        notes=(f"{said}: resources.memory is taken on trust",),
    )
