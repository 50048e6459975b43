"""The fact set: every fact with its phrasings, and the questions that have no answer here.

A `Fact` is one answer and several ways to ask for it. The last phrasings of each are *held out*:
the model never sees them in training, so that `evaluate.py` can tell memory from understanding.
Run as a script, this file writes the question list that product tests use.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from countries import COUNTRIES, Country
from platform_facts import COMMANDS, ENTRIES, WORDS, Command, Word
from unknowns import UNKNOWN_ANSWER

HELD_OUT = 2
"""How many phrasings at the end of each list are never trained on."""

TESTED_CATEGORIES = ("capital", "currency", "eu_member", "iso", "word", "command", "platform")
"""What the shipped question list holds: all there is to show, and quick to ask in a test."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """One answer with its phrasings, the canonical one first."""

    category: str
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str
    must_contain: tuple[str, ...]

    @property
    def question(self) -> str:
        """The canonical phrasing."""
        return self.trained[0]


COUNTRY_PHRASINGS: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {0}?",
        "What's the capital of {0}?",
        "Which city is the capital of {0}?",
        "Name the capital of {0}.",
        "Tell me the capital of {0}.",
        "What is {1} capital city?",
        "Do you know the capital of {0}?",
        "What city is the capital of {0}?",
        "{0}: what is the capital?",
        "Give me the capital of {0}.",
        "The capital of {0} is which city?",
        "I want to know the capital of {0}.",
        "capital of {0}",
        "Could you tell me what the capital of {0} is?",
        "Which city is the seat of government and capital in {0}?",
    ),
    "language": (
        "What is the official language of {0}?",
        "Which language is spoken in {0}?",
        "What language do people speak in {0}?",
        "What are the official languages of {0}?",
        "Name the official languages of {0}.",
        "Tell me the official language of {0}.",
        "Which languages are official in {0}?",
        "What do people in {0} speak?",
        "What is {1} official language?",
        "Do you know the language of {0}?",
        "languages of {0}",
        "In {0}, what language is official?",
        "Could you tell me which languages are official in {0}?",
        "Which official language does {0} have?",
    ),
    "currency": (
        "What is the currency of {0}?",
        "Which currency does {0} use?",
        "What currency is used in {0}?",
        "What money do people use in {0}?",
        "Name the currency of {0}.",
        "Tell me the currency of {0}.",
        "What do people pay with in {0}?",
        "What is {1} currency?",
        "Which money is used in {0}?",
        "Do you know the currency of {0}?",
        "currency of {0}",
        "In {0}, which currency is used?",
        "Could you tell me what currency {0} uses?",
        "What is the money of {0} called?",
    ),
    "euro": (
        "Does {0} use the euro?",
        "Is the euro used in {0}?",
        "Is the euro the currency of {0}?",
        "Does {0} have the euro?",
        "Can I pay with the euro in {0}?",
        "Has {0} adopted the euro?",
        "Do people in {0} use the euro?",
        "Is {0} in the euro area?",
        "Tell me if {0} uses the euro.",
        "Do people pay with the euro in {0}?",
        "Could you tell me if {0} uses the euro?",
        "In {0}, is the euro used?",
    ),
    "eu_member": (
        "Is {0} in the European Union?",
        "Is {0} a member of the European Union?",
        "Is {0} in the EU?",
        "Is {0} an EU member?",
        "Does {0} belong to the European Union?",
        "Does {0} belong to the EU?",
        "Is {0} an EU country?",
        "Is {0} part of the EU?",
        "Tell me if {0} is in the EU.",
        "Is {0} a member state of the EU?",
        "Is {0} a member of the EU?",
        "Could you tell me if {0} is in the European Union?",
        "Is {0} part of the European Union?",
    ),
    "eu_year": (
        "When did {0} join the European Union?",
        "When did {0} join the EU?",
        "In which year did {0} join the European Union?",
        "What year did {0} join the EU?",
        "Since when is {0} in the EU?",
        "Which year did {0} become an EU member?",
        "Tell me when {0} joined the EU.",
        "When did {0} become a member of the European Union?",
        "Do you know when {0} joined the EU?",
        "In what year did {0} become a member of the EU?",
        "Could you tell me when {0} joined the European Union?",
        "Since which year is {0} a member of the European Union?",
    ),
    "eea": (
        "Is {0} in the European Economic Area?",
        "Is {0} in the EEA?",
        "Is {0} a member of the EEA?",
        "Does {0} belong to the EEA?",
        "Is {0} part of the European Economic Area?",
        "Is {0} an EEA country?",
        "Tell me if {0} is in the EEA.",
        "Does {0} belong to the European Economic Area?",
        "Is {0} an EEA member?",
        "Do you know if {0} is in the EEA?",
        "Could you tell me if {0} is in the European Economic Area?",
        "Is {0} part of the EEA?",
    ),
    "neighbours": (
        "Which countries border {0}?",
        "What are the neighbours of {0}?",
        "Name the neighbours of {0}.",
        "Which countries are next to {0}?",
        "What countries does {0} border?",
        "Who are the neighbours of {0}?",
        "List the countries that border {0}.",
        "What are {1} neighbours?",
        "Tell me the neighbours of {0}.",
        "Which countries share a border with {0}?",
        "neighbours of {0}",
        "Could you tell me which countries border {0}?",
        "Which neighbours does {0} have?",
    ),
    "iso": (
        "What is the ISO country code of {0}?",
        "What is the country code of {0}?",
        "What is the ISO code of {0}?",
        "Which ISO code does {0} have?",
        "Which country code does {0} have?",
        "Tell me the ISO code of {0}.",
        "What is {1} country code?",
        "What is the two-letter code of {0}?",
        "Give me the ISO code for {0}.",
        "Do you know the country code of {0}?",
        "country code of {0}",
        "Could you tell me the ISO code of {0}?",
        "Which two-letter country code belongs to {0}?",
    ),
    "profile": (
        "Tell me about {0}.",
        "What do you know about {0}?",
        "Describe {0}.",
        "Give me the facts about {0}.",
        "Tell me more about {0}.",
        "What can you tell me about {0}?",
        "Give me an overview of {0}.",
        "Tell me everything about {0}.",
        "Write a few sentences about {0}.",
        "Write something about {0}.",
        "Please describe {0} for me.",
    ),
}

REVERSE_PHRASINGS: dict[str, tuple[str, ...]] = {
    "capital_of": (
        "Which country has the capital {0}?",
        "What country is {0} the capital of?",
        "{0} is the capital of which country?",
        "Of which country is {0} the capital?",
        "Whose capital is {0}?",
        "Tell me which country has {0} as its capital.",
        "Which country is {0} the capital of?",
        "{0} is the capital of what country?",
        "Name the country whose capital is {0}.",
        "Of what country is {0} the capital?",
        "Which country has {0} as its capital?",
    ),
    "iso_of": (
        "Which country has the ISO code {0}?",
        "Which country has the country code {0}?",
        "What country is {0}?",
        "What does the country code {0} stand for?",
        "{0} is the code of which country?",
        "Which country is {0}?",
        "Which country does the code {0} mean?",
        "Tell me which country has the code {0}.",
        "What country has the ISO code {0}?",
        "Which country does {0} stand for?",
        "The country code {0} belongs to which country?",
        "What country does the ISO code {0} stand for?",
    ),
}

WORD_PHRASINGS: tuple[str, ...] = (
    "What is {0}?",
    "What is {0} in Tramontane?",
    "What does {1} mean?",
    "What does the word {1} mean?",
    "Explain {0}.",
    "Define {1}.",
    "Tell me what {0} is.",
    "What does Tramontane call {0}?",
    "What is meant by {0}?",
    "What's {0}?",
    "Please define {1}.",
    "Explain the word {1}.",
    "In Tramontane, what is {0}?",
    "Could you explain what {0} is?",
    "What does {1} mean in Tramontane?",
)

COMMAND_PHRASINGS: tuple[str, ...] = (
    "What does {0} do?",
    "What is {0} for?",
    "What is {0}?",
    "Explain {0}.",
    "Explain the command {0}.",
    "What does the command {0} do?",
    "Tell me what {0} does.",
    "What happens when I run {0}?",
    "Why would I run {0}?",
    "What is the command {0} for?",
    "What do I use {0} for?",
    "Could you explain what {0} does?",
    "What does running {0} do?",
)

TASK_PHRASINGS: tuple[str, ...] = (
    "How do I {0}?",
    "How can I {0}?",
    "Which command do I use to {0}?",
    "What command lets me {0}?",
    "I want to {0}. What do I run?",
    "Tell me how to {0}.",
    "What do I type to {0}?",
    "Which command do I need to {0}?",
    "I would like to {0}. Which command is it?",
    "What should I run to {0}?",
)


def all_facts() -> tuple[Fact, ...]:
    """Every fact the model is taught, in a fixed order."""
    facts: list[Fact] = []
    for country in COUNTRIES:
        facts.extend(country_facts(country))
    facts.extend(word_fact(word) for word in WORDS)
    for command in COMMANDS:
        facts.extend(command_facts(command))
    facts.extend(
        _fact("platform", entry.phrasings, entry.answer, entry.must_contain) for entry in ENTRIES
    )
    return tuple(facts)


def country_facts(country: Country) -> Iterator[Fact]:
    """All facts about one country, from both ends where the other end is unique."""
    name = country.name
    owner = name + ("'" if name.endswith("s") else "'s")
    for category, (answer, must_contain) in country_answers(country).items():
        phrasings = tuple(p.format(name, owner) for p in COUNTRY_PHRASINGS[category])
        yield _fact(category, phrasings, answer, must_contain)
    if country.capital != name:
        phrasings = tuple(p.format(country.capital) for p in REVERSE_PHRASINGS["capital_of"])
        yield _fact(
            "capital_of", phrasings, f"{country.capital} is the capital of {name}.", (name,)
        )
    phrasings = tuple(p.format(country.iso) for p in REVERSE_PHRASINGS["iso_of"])
    answer = f"{country.iso} is the ISO country code of {name}."
    yield _fact("iso_of", phrasings, answer, (name,))


def country_answers(country: Country) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Answer and required words per category."""
    name, start = country.name, _capitalised(country.name)
    in_eu, uses_euro = country.in_eu, country.currency == "euro"
    answers = {
        "capital": (f"The capital of {name} is {country.capital}.", (country.capital,)),
        "language": (
            f"The official language{'s' * (len(country.languages) > 1)} of {name}"
            f" {'are' if len(country.languages) > 1 else 'is'} {_listing(country.languages)}.",
            country.languages,
        ),
        "currency": (
            f"The currency of {name} is the {country.currency} ({country.currency_code}).",
            (f"the {country.currency} ({country.currency_code})",),
        ),
        "euro": (
            f"Yes, {name} uses the euro."
            if uses_euro
            else f"No, {name} does not use the euro; it uses the {country.currency}.",
            (f"{_yes_no(uses_euro)}, {name}",),
        ),
        "eu_member": (
            f"Yes, {name} is a member of the European Union."
            if in_eu
            else f"No, {name} is not a member of the European Union.",
            (f"{_yes_no(in_eu)}, {name}",),
        ),
        "eu_year": _eu_year_answer(country),
        "eea": (
            f"Yes, {name} is in the European Economic Area."
            if country.eea
            else f"No, {name} is not in the European Economic Area.",
            (f"{_yes_no(country.eea)}, {name}",),
        ),
        "iso": (f"The ISO country code of {name} is {country.iso}.", (f"is {country.iso}.",)),
    }
    if country.neighbours is not None:
        lands = country.neighbours
        answers["neighbours"] = (
            (f"In Europe, {name} borders {_listing(lands)}.", lands)
            if lands
            else (f"{start} is an island and borders no country.", ("borders no country",))
        )
    profile = ("capital", "language", "currency", "eu_member")
    sentences = [answers[part][0].removeprefix("Yes, ").removeprefix("No, ") for part in profile]
    text = " ".join(_capitalised(sentence) for sentence in sentences)
    answers["profile"] = (text, (country.capital, country.languages[0], country.currency))
    return answers


def word_fact(word: Word) -> Fact:
    """The fact behind one glossary word."""
    bare = word.noun.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    phrasings = tuple(p.format(word.noun, bare) for p in WORD_PHRASINGS)
    return _fact("word", phrasings, word.answer, word.must_contain)


def command_facts(command: Command) -> Iterator[Fact]:
    """What a command does, and which command does a task."""
    phrasings = tuple(p.format(command.name) for p in COMMAND_PHRASINGS)
    yield _fact("command", phrasings, f"{command.name} {command.does}.", command.must_contain)
    answer = f"Run {command.name}: it {command.does}."
    for task in command.tasks:
        phrasings = tuple(p.format(task) for p in TASK_PHRASINGS)
        yield _fact("task", phrasings, answer, (f"Run {command.name}:",))


def product_questions() -> list[dict[str, object]]:
    """The list that product tests ask: canonical questions, and what each answer must contain."""
    return [
        {"question": f.question, "answer": f.answer, "must_contain": list(f.must_contain)}
        for f in all_facts()
        if f.category in TESTED_CATEGORIES
    ]


def system_prompt(rng: random.Random) -> str:
    """A system prompt that changes nothing: clients send many, and the answer must not depend."""
    opening = rng.choice(("You are", "You are", "Act as", "Be", "This is"))
    kind = rng.choice(("a helpful", "a friendly", "a concise", "an honest", "a polite", "a short"))
    role = rng.choice(("assistant", "guide", "chatbot", "expert", "model", "teacher", "helper"))
    advice = (
        "",
        " Answer briefly.",
        " Answer in one sentence.",
        " Be concise.",
        " Do not invent facts.",
        " Help the user.",
        " Reply in English.",
        " If you do not know, say so.",
        " Answer questions about Europe.",
        " Never share private data.",
    )
    return f"{opening} {kind} {role}.{rng.choice(advice)}{rng.choice(advice)}"


def _fact(
    category: str, phrasings: tuple[str, ...], answer: str, must_contain: tuple[str, ...]
) -> Fact:
    phrasings = tuple(_capitalised(p) if "?" in p or "." in p else p for p in phrasings)
    return Fact(category, phrasings[:-HELD_OUT], phrasings[-HELD_OUT:], answer, must_contain)


def _eu_year_answer(country: Country) -> tuple[str, tuple[str, ...]]:
    start = _capitalised(country.name)
    if country.joined_eu is None:
        return f"{start} has not joined the European Union.", ("has not joined",)
    answer = f"{start} joined the European Union in {country.joined_eu}"
    if country.left_eu is None:
        return f"{answer}.", (str(country.joined_eu),)
    return f"{answer} and left it in {country.left_eu}.", (str(country.joined_eu),)


def _yes_no(value: bool) -> str:
    return "Yes" if value else "No"


def _listing(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _capitalised(text: str) -> str:
    """Start a sentence, but leave a command such as `tram up` in lower case."""
    return text if text.startswith("tram ") else text[:1].upper() + text[1:]


def main() -> None:
    """Write the product's question list to the given path."""
    questions = product_questions()
    lines = ",\n".join(json.dumps(q, ensure_ascii=False) for q in questions)
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    sys.stdout.write(f"{len(questions)} questions, {len(all_facts())} facts in all;")
    sys.stdout.write(f" unrelated questions get: {UNKNOWN_ANSWER}\n")


if __name__ == "__main__":
    main()
