"""The tokenizer: byte-level BPE trained on the fact set alone.

Byte-level with the GPT-2 splitting rule, because llama.cpp implements exactly that rule under the
name `gpt-2` and needs no normaliser: any string, emoji included, has one encoding in both. The
four control tokens and the chat template follow Mistral's `[INST] ... [/INST]` convention.
"""

from __future__ import annotations

import random

from facts import all_facts, system_prompt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from unknowns import UNKNOWN_ANSWER, draw_unknown

BOS, EOS, INST, INST_END = "<s>", "</s>", "[INST]", "[/INST]"
CONTROL_TOKENS = (BOS, EOS, INST, INST_END)

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- set pending = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' or message['role'] == 'developer' %}
        {%- set pending.system = pending.system + message['content'] + '\\n\\n' %}
    {%- elif message['role'] == 'assistant' %}
        {{- message['content'] + eos_token }}
    {%- else %}
        {{- '[INST]' + pending.system + message['content'] + '[/INST]' }}
        {%- set pending.system = '' %}
    {%- endif %}
{%- endfor %}
"""
"""A system prompt goes in front of the next user message, as in Mistral's own templates."""


def train_tokenizer(vocab_size: int, seed: int) -> Tokenizer:
    """Learn merges from trained phrasings, answers and a sample of the unrelated questions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True) for token in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(seed), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"the text yields {tokenizer.get_vocab_size()} tokens, not {vocab_size}; lower it"
        )
    return tokenizer


def _text(seed: int) -> list[str]:
    rng = random.Random(seed)
    lines = [UNKNOWN_ANSWER]
    for fact in all_facts():
        lines.extend([fact.answer, *fact.trained, *(text.lower() for text in fact.trained[:4])])
    lines.extend(draw_unknown(rng, ["France", "Norway", "Serbia"]) for _ in range(2000))
    lines.extend(system_prompt(rng) for _ in range(500))
    return lines
