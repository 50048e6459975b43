"""Questions the model has no answer to, and the one thing it should say to them.

A small model answers whatever looks familiar. Three sorts of questions teach it to refuse: things
of everyday life, unknown properties of known countries, and known properties of countries that are
unknown or do not exist. What is held out here is a different set of topics and names, not only of
wordings.
"""

from __future__ import annotations

import random

UNKNOWN_ANSWER = "I do not know. I only know European countries and Tramontane."
UNKNOWN_MARK = "I do not know"

FAR_COUNTRIES = (
    "Japan|China|Brazil|Argentina|Canada|Mexico|Egypt|Nigeria|South Africa|India|Pakistan|Iran|Iraq"
    "|Australia|New Zealand|Chile|Peru|Colombia|Cuba|Morocco|Algeria|Tunisia|Ethiopia|Ghana|Vietnam"
    "|Thailand|Indonesia|Malaysia|the Philippines|South Korea|North Korea|Mongolia|Nepal|Israel"
    "|Saudi Arabia|Jordan|Lebanon|Syria|Kazakhstan|Uzbekistan|Bolivia|Ecuador|Uruguay|Paraguay"
    "|Jamaica|Haiti|Panama|Senegal|Mali|Angola|Zambia|the United States|Fiji|Qatar|Oman|Yemen"
).split("|")
HELD_OUT_FAR_COUNTRIES = (
    "Kenya|Venezuela|Bangladesh|Cambodia|Tanzania|Costa Rica|Singapore|Madagascar|Uganda|Laos"
).split("|")
FAR_CITIES = (
    "Tokyo|Cairo|Lima|Nairobi|Ottawa|New York|Delhi|Beijing|Toronto|Sydney|Baghdad|Seoul|Hanoi"
    "|Lagos|Dakar|Bogota|Santiago|Havana|Tehran|Boston|Chicago|Shanghai|Mumbai|Manila|Bangkok"
).split("|")

FAR_PHRASINGS = (
    "What is the capital of {0}?",
    "Name the capital of {0}.",
    "Tell me the capital of {0}.",
    "Which city is the capital of {0}?",
    "capital of {0}",
    "What is the official language of {0}?",
    "Which language is spoken in {0}?",
    "What is the currency of {0}?",
    "Which currency does {0} use?",
    "What is the country code of {0}?",
    "Which countries border {0}?",
    "What are the neighbours of {0}?",
    "Tell me about {0}.",
    "Describe {0}.",
    "What do you know about {0}?",
    "When did {0} join the European Union?",
    "Does {0} use the euro?",
    "What is {0}?",
    "Where is {0}?",
)

COUNTRY_PROPERTIES = (
    "What is the population of {0}?",
    "How many people live in {0}?",
    "Who is the president of {0}?",
    "Who is the king of {0}?",
    "Who is the prime minister of {0}?",
    "What is the national anthem of {0}?",
    "How large is {0}?",
    "What is the highest mountain of {0}?",
    "Which rivers are in {0}?",
    "What is the weather in {0}?",
    "What do people eat in {0}?",
    "Who won the last election in {0}?",
    "What is the flag of {0}?",
    "How do I get to {0}?",
    "What is the best football club of {0}?",
    "What is the history of {0}?",
    "How old is {0}?",
    "What time is it in {0}?",
)

SUBJECTS = (
    "the moon|a dog|a guitar|pizza|chess|football|gravity|an atom|the sun|a black hole|a violin"
    "|jazz|rice|coffee|a bicycle|a car|the ocean|a volcano|photosynthesis|a cat|a computer|a novel"
    "|love|money|a whale|bread|snow|a robot|quantum physics|the brain|a tree|a star|time|music"
    "|a dragon|a poem|cricket|tennis|sugar|an elephant|a rocket|glass|iron|a virus|DNA|a prime"
    " number|cheese|a train|a ship|history|art|religion|a garden|Linux|Java|Rust|a database|HTML"
).split("|")
HELD_OUT_SUBJECTS = (
    "a giraffe|beer|a piano|the internet|mathematics|a horse|lightning|a camera|rugby|water"
).split("|")
SUBJECT_PHRASINGS = (
    "What is {0}?",
    "What's {0}?",
    "Explain {0}.",
    "Tell me about {0}.",
    "Define {0}.",
    "Tell me a joke about {0}.",
    "Write a poem about {0}.",
    "Who invented {0}?",
    "How does {0} work?",
    "Why is {0} important?",
    "Where can I find {0}?",
    "What colour is {0}?",
    "What do you think about {0}?",
    "How much does {0} cost?",
    "Do you like {0}?",
    "Where does {0} come from?",
    "What does {0} mean?",
    "How do I draw {0}?",
    "Can you tell me how {0} works?",
    "How long does {0} last?",
    "Write a song about {0}.",
    "Translate {0} into Latin.",
)

EVERYDAY = (
    "What is two plus two?|What is 2 + 2?|What is 7 times 8?|Solve x + 3 = 5.|What time is it?"
    "|What day is it today?|What is the weather today?|Will it rain tomorrow?|Tell me a joke."
    "|Tell me a story.|Write a poem.|Write some Python code.|Sing a song.|How old are you?"
    "|Who wrote Hamlet?|Who painted the Mona Lisa?|Who was Napoleon?|Who was Albert Einstein?"
    "|Who invented the telephone?|Who won the World Cup?|Who is the best football player?"
    "|How do I cook pasta?|How do I bake bread?|How do I lose weight?|How tall is Mount Everest?"
    "|How far is the moon?|What is the meaning of life?|What is the speed of light?|Do you love me?"
    "|What should I eat today?|Where do you live?|What is your favourite colour?|Can you dance?"
    "|Which film should I watch?|Recommend a book.|Who is your father?|Are you alive?|What is DNA?"
    "|Translate this into French.|Summarise this text.|How do I fix my car?|Why is the sky blue?"
    "|When was the Second World War?|When did Rome fall?|Who discovered America?|Is there a god?"
    "|How many legs has a spider?|What do cats eat?|Do fish sleep?|How do birds fly?|What is pi?"
    "|Where is my phone?|What is my name?|Who am I?|Buy me a ticket.|Book a hotel.|Call my mother."
    "|asdf|???|blah blah blah|123456|foo bar baz|xyz|lorem ipsum dolor sit amet|test|ok|yes|no"
).split("|")
HELD_OUT_EVERYDAY = (
    "What is 12 times 12?|Who wrote Faust?|How do I cook rice?|Who was Julius Caesar?"
    "|What is the tallest building?|Why is grass green?|Write a short story.|Are you happy?"
    "|How many days has a year?|Who invented the light bulb?|What is my favourite food?"
    "|When will the next train come?|qwerty|How do planes fly?|Which song is the best?"
    "|Fix my code.|Who is the richest person?|What is seven minus three?|Where is the nearest shop?"
    "|How do I learn to swim?"
).split("|")


def held_out_unknowns() -> list[str]:
    """A fixed list of unanswerable questions on topics that training never mentions."""
    questions = list(HELD_OUT_EVERYDAY)
    for number, name in enumerate(HELD_OUT_FAR_COUNTRIES):
        questions.extend(FAR_PHRASINGS[(number * 5 + step) % 16].format(name) for step in (0, 7))
    for number, subject in enumerate(HELD_OUT_SUBJECTS):
        phrasing = SUBJECT_PHRASINGS[(number * 3) % len(SUBJECT_PHRASINGS)]
        questions.append(phrasing.format(subject))
    return questions


def draw_unknown(rng: random.Random, known_countries: list[str]) -> str:
    """Draw one unanswerable question for training."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(EVERYDAY)
    if kind < 0.5:
        subject = rng.choice(SUBJECTS) if rng.random() < 0.7 else invented_name(rng).lower()
        return rng.choice(SUBJECT_PHRASINGS).format(subject)
    if kind < 0.65:
        return rng.choice(COUNTRY_PROPERTIES).format(rng.choice(known_countries))
    if kind < 0.9:
        name = rng.choice(FAR_COUNTRIES) if rng.random() < 0.5 else invented_name(rng)
        return rng.choice(FAR_PHRASINGS).format(name)
    city = rng.choice(FAR_CITIES) if rng.random() < 0.5 else invented_name(rng)
    return rng.choice(("{0} is the capital of which country?", "Whose capital is {0}?")).format(
        city
    )


def invented_name(rng: random.Random) -> str:
    """Make a name that looks like one but is none, so that refusing does not need a list."""
    syllables = (
        "ba bo da du fa fi ga go ka ke la lo ma mi na no pa po ra ri sa so ta to va vo"
        " za zu bel dor fen gar kal lin mor nor pel ros sal tor ven wal zan bri cra dro fla gre"
        " ni li ti si an en or ar is os ian stan land ia"
    ).split()
    return "".join(rng.choice(syllables) for _ in range(rng.randint(2, 4))).capitalize()
