"""Ask the served model everything: `python evaluate.py MODEL.gguf [--facts FACTS.json]`.

The model answers through llama.cpp's HTTP server, several requests at a time, at temperature 0, as
a user would meet it. Exit code 1 if fewer than 95 % of the fact set are answered rightly. Held-out
phrasings, unrelated questions, long histories and embeddings are reported, not required.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from facts import Fact, all_facts
from server import SLOTS, TinyServer
from unknowns import UNKNOWN_MARK, held_out_unknowns

REQUIRED = 0.95
SYSTEM_PROMPT = "You are a careful assistant who works for a public authority in Europe."

Messages = list[dict[str, str]]


class Result(NamedTuple):
    """One question asked: whether the answer was right, word for word, and ended by itself."""

    right: bool
    exact: bool
    ended: bool
    question: str
    answer: str


class Probe(NamedTuple):
    """Messages to send and what the answer must be."""

    messages: Messages
    answer: str
    must_contain: tuple[str, ...]


def main() -> None:
    """Run all checks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--facts", type=Path, help="also ask this shipped question list")
    parser.add_argument("--show-wrong", type=int, default=0, metavar="N", help="per table row")
    arguments = parser.parse_args()
    facts = all_facts()
    with TinyServer(arguments.model, embeddings=True) as server:
        trained = [(fact, text) for fact in facts for text in (fact.trained[0], fact.trained[-1])]
        held_out = [(fact, text) for fact in facts for text in fact.held_out]
        share = report_facts(server, "trained", trained, arguments.show_wrong)
        report_facts(server, "held out", held_out, arguments.show_wrong)
        report(server, "unrelated, held out", unknown_probes(), arguments.show_wrong)
        report(server, "unseen system prompt", system_probes(facts), arguments.show_wrong)
        report(server, "after 12 other turns", history_probes(facts), arguments.show_wrong)
        if arguments.facts:
            shipped = list(shipped_probes(arguments.facts))
            share = min(share, report(server, arguments.facts.name, shipped, arguments.show_wrong))
        report_embeddings(server, facts)
    if share < REQUIRED:
        raise SystemExit(f"{share:.1%} of the fact set answered rightly, {REQUIRED:.0%} required")


def report_facts(
    server: TinyServer, label: str, asked: list[tuple[Fact, str]], show_wrong: int
) -> float:
    """Print one line per category and one for all; return the share of right answers."""
    by_category: dict[str, list[Probe]] = {}
    for fact, text in asked:
        by_category.setdefault(fact.category, []).append(_probe(fact, [_user(text)]))
    for category, probes in by_category.items():
        report(server, f"{label}: {category}", probes, show_wrong)
    everything = [probe for probes in by_category.values() for probe in probes]
    return report(server, f"{label}: ALL", everything, 0)


def report(server: TinyServer, label: str, probes: list[Probe], show_wrong: int) -> float:
    """Ask all probes, print one line, return the share of right answers."""
    with ThreadPoolExecutor(SLOTS) as threads:
        results = list(threads.map(lambda probe: ask(server, probe), probes))
    right, exact, ended = (
        sum(getattr(result, name) for result in results) for name in ("right", "exact", "ended")
    )
    total = len(results)
    say(
        f"{label:26} {right:5d} of {total:5d} right ({right / total:6.1%}),"
        f" {exact / total:6.1%} word for word, {ended / total:6.1%} ended by themselves"
    )
    wrong = [result for result in results if not result.right]
    for result in wrong[:show_wrong]:
        say(f"    {result.question!r} -> {result.answer!r}")
    return right / total


def ask(server: TinyServer, probe: Probe) -> Result:
    """Ask once over /v1/chat/completions."""
    body = {"messages": probe.messages, "temperature": 0, "max_tokens": 128}
    choice: dict[str, Any] = server.post("/v1/chat/completions", body)["choices"][0]
    answer = choice["message"]["content"]
    return Result(
        right=all(part in answer for part in probe.must_contain),
        exact=answer == probe.answer,
        ended=choice["finish_reason"] == "stop",
        question=probe.messages[-1]["content"],
        answer=answer,
    )


def unknown_probes() -> list[Probe]:
    """Questions whose only right answer is to refuse."""
    return [Probe([_user(text)], "", (UNKNOWN_MARK,)) for text in held_out_unknowns()]


def system_probes(facts: Iterable[Fact]) -> list[Probe]:
    """Canonical questions under a system prompt never seen in training."""
    system = {"role": "system", "content": SYSTEM_PROMPT}
    return [_probe(fact, [system, _user(fact.question)]) for fact in _sample(facts, 100)]


def history_probes(facts: Iterable[Fact]) -> list[Probe]:
    """Canonical questions at the end of a conversation about other things."""
    rng, pool = random.Random(3), tuple(facts)
    probes: list[Probe] = []
    for fact in _sample(facts, 100):
        messages: Messages = []
        for other in rng.sample(pool, 12):
            messages.extend([_user(other.question), {"role": "assistant", "content": other.answer}])
        probes.append(_probe(fact, [*messages, _user(fact.question)]))
    return probes


def shipped_probes(path: Path) -> Iterable[Probe]:
    """The question list that product tests ask."""
    for entry in json.loads(path.read_text(encoding="utf-8")):
        yield Probe([_user(entry["question"])], entry["answer"], tuple(entry["must_contain"]))


def report_embeddings(server: TinyServer, facts: tuple[Fact, ...]) -> None:
    """Compare each canonical question with held-out phrasings of its own and of other facts."""
    sample = _sample(facts, 200)
    asked = embed(server, [fact.question for fact in sample])
    reworded = embed(server, [fact.held_out[0] for fact in sample])
    scores = asked @ reworded.T
    own = np.diag(scores)[:, None]
    others = ~np.eye(len(sample), dtype=bool)
    closer = (own > scores)[others].mean()
    first = (scores.argmax(1) == np.arange(len(sample))).mean()
    say(f"embeddings, {len(sample)} questions against a held-out phrasing of each:")
    say(
        f"    its own is closer than another's in {closer:.1%} of pairs, the closest of all in"
        f" {first:.1%}"
    )
    say(f"    mean cosine {own.mean():.2f} with its own, {scores[others].mean():.2f} with others'")


def embed(server: TinyServer, texts: list[str]) -> np.ndarray:
    """Fetch unit vectors, one per text."""
    data = server.post("/v1/embeddings", {"input": texts})["data"]
    return np.array([entry["embedding"] for entry in data])


def say(line: str) -> None:
    """Print at once, so that a long run shows progress through a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _sample(facts: Iterable[Fact], count: int) -> list[Fact]:
    return random.Random(2).sample(list(facts), count)


def _probe(fact: Fact, messages: Messages) -> Probe:
    return Probe(messages, fact.answer, fact.must_contain)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


if __name__ == "__main__":
    main()
