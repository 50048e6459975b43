"""Traces: requests with their arrival times and lengths, generated or read from public files.

The generated ones have stated distributions and a seed, so anybody gets the same requests. Two
public formats can be read in their place: BurstGPT and the Azure LLM inference traces.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from bench.scaling.engine import Request

DURATION_S = 7200.0

BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
"""``BurstGPT_*.csv``: seconds, and lengths; more columns in any order are ignored."""
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""``AzureLLMInferenceTrace_*.csv`` of 2023 and 2024: a date with time, and lengths."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Lognormal numbers of tokens: heavy tails, cut where the context ends."""

    prompt_median: float
    prompt_sigma: float
    generated_median: float
    generated_sigma: float
    prompt_max: int = 4096
    """So short that an idle engine keeps the objective for every request: what is then counted are
    violations that scaling can avoid."""
    generated_max: int = 4096

    def draw(self, random: Random) -> tuple[int, int]:
        """Return the lengths of one request's prompt and answer."""
        prompt = random.lognormvariate(math.log(self.prompt_median), self.prompt_sigma)
        generated = random.lognormvariate(math.log(self.generated_median), self.generated_sigma)
        return (
            max(8, min(int(prompt), self.prompt_max)),
            max(2, min(int(generated), self.generated_max)),
        )


CHAT = Lengths(prompt_median=500, prompt_sigma=1.0, generated_median=120, generated_sigma=0.9)
"""Means about 750 and 180 tokens, between BurstGPT's and Azure's conversations."""
CODE = Lengths(prompt_median=1500, prompt_sigma=0.8, generated_median=25, generated_sigma=0.7)
"""Means about 2,000 and 32 tokens, as in Azure's code trace: reading dominates."""
REASONING = Lengths(prompt_median=250, prompt_sigma=0.8, generated_median=450, generated_sigma=1.1)
"""Means about 350 and 750 tokens: writing dominates, and a few streams are very long."""
SHORT = Lengths(
    prompt_median=120, prompt_sigma=0.7, generated_median=60, generated_sigma=0.8, prompt_max=700
)
"""Means about 150 and 80 tokens: what one asks of a small model on processors."""

Arrivals = Callable[[Random, float], Iterator[float]]
"""Arrival times up to a duration."""


def poisson(rate: float) -> Arrivals:
    """Independent arrivals at a constant rate."""

    def arrive(random: Random, duration_s: float) -> Iterator[float]:
        at = random.expovariate(rate)
        while at < duration_s:
            yield at
            at += random.expovariate(rate)

    return arrive


def modulated(rates: tuple[float, float], stays_s: tuple[float, float]) -> Arrivals:
    """Poisson at one of two rates; each state lasts an exponential time (MMPP-2).

    A rate of 0 makes an on-off source.
    """

    def arrive(random: Random, duration_s: float) -> Iterator[float]:
        state, at = 0, 0.0
        while at < duration_s:
            ends = at + random.expovariate(1 / stays_s[state])
            while rates[state]:
                at += random.expovariate(rates[state])
                if at >= min(ends, duration_s):
                    break
                yield at
            state, at = 1 - state, ends

    return arrive


def diurnal(mean: float, swing: float, period_s: float, shape: float) -> Arrivals:
    """A sine of rates, with Gamma gaps (``shape`` below 1 is burstier than Poisson).

    BurstGPT's authors fit Gamma gaps to theirs. A day is pressed into ``period_s``.
    """

    def arrive(random: Random, duration_s: float) -> Iterator[float]:
        at = 0.0
        while True:
            rate = mean * (1 + swing * math.sin(2 * math.pi * (at / period_s - 0.25)))
            at += random.gammavariate(shape, 1 / (shape * max(rate, mean * 0.02)))
            if at >= duration_s:
                return
            yield at

    return arrive


def generate(arrivals: Arrivals, lengths: Lengths, seed: int) -> list[Request]:
    """Return the requests of one trace, in order of arrival."""
    times, tokens = Random(f"arrivals {seed}"), Random(f"lengths {seed}")
    requests: list[Request] = []
    for at in arrivals(times, DURATION_S):
        prompt, generated = lengths.draw(tokens)
        requests.append(Request(at=at, prompt_tokens=prompt, generated_tokens=generated))
    return requests


def read(path: Path, duration_s: float = DURATION_S, rate: float | None = None) -> list[Request]:
    """Return the requests of a public trace, the first one at 0 and failed ones left out.

    ``rate`` stretches time so that so many arrive per second on average, as is usual with a trace
    of more users than one has machines for.
    """
    with path.open(newline="") as lines:
        rows = csv.DictReader(lines)
        columns = next(
            (known for known in (BURSTGPT, AZURE) if set(known) <= set(rows.fieldnames or ())), None
        )
        if columns is None:
            raise ValueError(f"{path} is neither BurstGPT nor Azure: it has {rows.fieldnames}")
        parse = _seconds if columns is AZURE else float
        found = sorted(
            (parse(row[columns[0]]), int(row[columns[1]]), int(row[columns[2]])) for row in rows
        )
    found = [each for each in found if each[1] > 0 and each[2] > 0]
    if not found:
        return []
    first, last = found[0][0], found[-1][0]
    pace = 1.0
    if rate is not None and last > first:
        pace = (len(found) - 1) / (last - first) / rate
    return [
        Request(at=(at - first) * pace, prompt_tokens=prompt, generated_tokens=generated)
        for at, prompt, generated in found
        if (at - first) * pace < duration_s
    ]


def _seconds(text: str) -> float:
    # Azure writes seven digits of a second, and in 2024 a zone; ``datetime`` takes six.
    whole, _, fraction = text.partition(".")
    fraction, plus, zone = fraction.partition("+")
    at = datetime.fromisoformat(f"{whole}{plus}{zone}")
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() + float(f"0.{fraction or 0}")
