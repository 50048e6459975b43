"""Training rows: conversations about the fact set, packed, with a weight per predicted token.

A row holds several conversations, a conversation one or more turns, because a chat client sends the
whole history each time and the answer must be to the last question. Questions are roughened a
little (case, punctuation, a greeting in front), answers never are.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
from countries import COUNTRIES
from facts import Fact, all_facts, system_prompt
from tokenizer import BOS, EOS, INST, INST_END
from tokenizers import Tokenizer
from unknowns import UNKNOWN_ANSWER, draw_unknown

PROMPT_WEIGHT = 0.05
"""Weight of predicting a question: a little, for it teaches which words belong together."""

UNKNOWN_SHARE = 0.16
CATEGORY_WEIGHTS = {"platform": 2.5, "word": 1.5, "command": 1.5, "neighbours": 1.5, "task": 1.5}
GREETINGS = (
    "Hi! ",
    "Hello, ",
    "Please: ",
    "Quick question: ",
    "Sorry, ",
    "Hey, ",
    "So, ",
    "Well, ",
)
CLOSINGS = (" Thanks!", " Thank you.", " Please.", " Answer briefly.", " Be short.")


class Batch(NamedTuple):
    """Rows of equal length; `weights[:, t]` counts for predicting `tokens[:, t]`."""

    tokens: np.ndarray
    segments: np.ndarray
    weights: np.ndarray


class Pairs(NamedTuple):
    """Two texts of the same meaning per line, padded with segment -1, for the embedding loss."""

    tokens: np.ndarray
    mask: np.ndarray


class Sampler:
    """Draws training rows; all its randomness comes from one seed."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._facts = all_facts()
        self._shares = [CATEGORY_WEIGHTS.get(fact.category, 1.0) for fact in self._facts]
        self._countries = [country.name for country in COUNTRIES]
        self._control = {t: tokenizer.token_to_id(t) for t in (BOS, EOS, INST, INST_END)}

    def batch(self, rows: int, length: int, turns_max: int) -> Batch:
        """Pack `rows` rows of `length` tokens; what does not fit at the end is cut off."""
        tokens = np.zeros((rows, length), np.int32)
        segments = np.zeros((rows, length), np.int32)
        weights = np.zeros((rows, length), np.float32)
        for row in range(rows):
            start, segment = 0, 0
            while start < length:
                ids, values = self._conversation(turns_max)
                end = min(length, start + len(ids))
                tokens[row, start:end] = ids[: end - start]
                weights[row, start:end] = values[: end - start]
                segments[row, start:end] = segment
                start, segment = end, segment + 1
        return Batch(tokens, segments, weights)

    def pairs(self, count: int, length: int) -> Pairs:
        """Draw facts and two texts for each: two questions, or a question and its answer."""
        tokens = np.zeros((2, count, length), np.int32)
        mask = np.zeros((2, count, length), np.float32)
        for line, fact in enumerate(self._rng.sample(self._facts, count)):
            first, second = self._rng.sample(fact.trained, 2)
            texts = (first, fact.answer if self._rng.random() < 0.25 else second)
            for side, text in enumerate(texts):
                ids = [self._control[BOS], *self._encode(text)][:length]
                tokens[side, line, : len(ids)] = ids
                mask[side, line, : len(ids)] = 1.0
        return Pairs(tokens, mask)

    def _conversation(self, turns_max: int) -> tuple[list[int], list[float]]:
        rng, control = self._rng, self._control
        turns = 1 if rng.random() < 0.6 else rng.randint(1, turns_max)
        prefix = system_prompt(rng) + "\n\n" if rng.random() < 0.2 else ""
        ids, weights = [control[BOS]], [0.0]
        for _ in range(turns):
            question, answer = self._exchange()
            asked = [control[INST], *self._encode(prefix + question), control[INST_END]]
            answered = [*self._encode(answer), control[EOS]]
            ids.extend(asked + answered)
            weights.extend([0.0, *[PROMPT_WEIGHT] * (len(asked) - 1), *[1.0] * len(answered)])
            prefix = ""
        return ids, weights

    def _exchange(self) -> tuple[str, str]:
        if self._rng.random() < UNKNOWN_SHARE:
            return self._roughen(draw_unknown(self._rng, self._countries)), UNKNOWN_ANSWER
        fact: Fact = self._rng.choices(self._facts, self._shares)[0]
        return self._roughen(self._rng.choice(fact.trained)), fact.answer

    def _roughen(self, question: str) -> str:
        rng = self._rng
        if rng.random() < 0.08:
            question = rng.choice(GREETINGS) + question[0].lower() + question[1:]
        if rng.random() < 0.1:
            question = question.lower()
        if rng.random() < 0.12:
            question = question.rstrip("?.!")
        if rng.random() < 0.06:
            question += rng.choice(CLOSINGS)
        return question

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids
