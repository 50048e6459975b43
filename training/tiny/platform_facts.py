"""Facts about Tramontane itself: its words, its commands and its residency rules.

Three shapes cover most of it, each with a shared set of phrasings in `facts.py`: a *word* of the
glossary, a *command* of `tram`, and a *task* ("how do I ..."). What fits none of them is written
out as an `Entry` with its own phrasings; the last two of each are held out from training.
"""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """A glossary word: the noun with its article, and the sentence that explains it."""

    noun: str
    answer: str
    must_contain: tuple[str, ...]


class Command(NamedTuple):
    """A `tram` command, what it does, and phrases a user would have in mind when wanting it."""

    name: str
    does: str
    must_contain: tuple[str, ...]
    tasks: tuple[str, ...]


class Entry(NamedTuple):
    """A question in several wordings. The first is the canonical one."""

    phrasings: tuple[str, ...]
    answer: str
    must_contain: tuple[str, ...]


WORDS: tuple[Word, ...] = (
    Word(
        "a service",
        "A service is what a user runs under one name: a web app, a worker, a job, a model or a"
        " function.",
        ("under one name",),
    ),
    Word(
        "a deployment",
        "A deployment is one immutable version of a service and its rollout.",
        ("immutable version",),
    ),
    Word("an instance", "An instance is one running copy in one cell.", ("one running copy",)),
    Word(
        "a cell",
        "A cell is one failure domain: a runtime at a provider in a region.",
        ("failure domain",),
    ),
    Word(
        "a placement",
        "A placement is the decision where an instance may run and does run.",
        ("decision where an instance",),
    ),
    Word(
        "the gateway",
        "The gateway is the Envoy fleet that carries every request to a service.",
        ("Envoy",),
    ),
    Word("a runtime", "A runtime starts and stops instances.", ("starts and stops instances",)),
    Word(
        "an engine",
        "An engine serves the weights of a model, for example llama.cpp or vLLM.",
        ("weights of a model",),
    ),
    Word(
        "a policy",
        "A policy is a set of residency rules: it says where a service may run.",
        ("residency rules",),
    ),
    Word("a receipt", "A receipt is a signed record of a decision.", ("signed record",)),
    Word(
        "a wake",
        "A wake takes a service from zero instances to one when a request comes.",
        ("from zero instances to one",),
    ),
    Word(
        "a project",
        "A project is a workspace that owns services.",
        ("workspace that owns services",),
    ),
    Word(
        "an organization",
        "An organization owns projects and pays for them.",
        ("owns projects",),
    ),
    Word("a region", "A region is a place and its law.", ("a place and its law",)),
    Word(
        "a provider",
        "A provider is the company or site that owns the capacity.",
        ("owns the capacity",),
    ),
    Word("a node", "A node is one machine that offers capacity.", ("one machine",)),
    Word(
        "a drain",
        "A drain stops new requests to an instance and lets running ones end.",
        ("stops new requests",),
    ),
    Word(
        "the control plane",
        "The control plane is the process that decides: it holds the API, the reconcilers and the"
        " store.",
        ("the process that decides",),
    ),
    Word(
        "the evidence log",
        "The evidence log is an append-only Merkle log of every decision.",
        ("append-only Merkle log",),
    ),
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "tram up",
        "starts the platform on this machine",
        ("starts the platform",),
        ("start the platform", "bring Tramontane up", "launch the platform"),
    ),
    Command(
        "tram down",
        "stops the platform",
        ("stops the platform",),
        ("stop the platform", "shut Tramontane down", "turn the platform off"),
    ),
    Command(
        "tram deploy",
        "deploys an app, a container image or a model as a service",
        ("deploys an app",),
        ("deploy an app", "deploy a service", "put my app online"),
    ),
    Command(
        "tram status",
        "shows the state of the platform",
        ("shows the state of the platform",),
        ("see the state of the platform", "check the platform", "know if the platform is running"),
    ),
    Command(
        "tram why",
        "explains why a service runs where it runs, or why it does not run",
        ("explains why a service runs",),
        ("learn why a service does not run", "explain a placement", "understand a decision"),
    ),
    Command(
        "tram scale",
        "sets the number of instances of a service",
        ("sets the number of instances",),
        ("change the number of instances", "scale a service", "run more instances"),
    ),
    Command(
        "tram logs",
        "shows the logs of a service",
        ("shows the logs",),
        ("see the logs of a service", "read the logs", "watch what a service prints"),
    ),
    Command(
        "tram plan",
        "shows what would change and where it may run",
        ("shows what would change",),
        ("see what would change", "preview a change", "check a manifest before I apply it"),
    ),
    Command(
        "tram apply",
        "applies a manifest file",
        ("applies a manifest",),
        ("apply a manifest", "use a manifest file", "apply my tramontane.yaml"),
    ),
    Command(
        "tram doctor",
        "checks that this machine can run the platform",
        ("checks that this machine",),
        ("check my machine", "find out if my machine can run the platform", "diagnose my machine"),
    ),
    Command(
        "tram rollback",
        "returns a service to an earlier deployment",
        ("earlier deployment",),
        ("go back to an earlier deployment", "undo a deployment", "roll back a service"),
    ),
    Command(
        "tram chat",
        "talks to a model in the terminal",
        ("talks to a model",),
        ("talk to a model", "chat with a model", "ask a model something in the terminal"),
    ),
    Command(
        "tram evidence export",
        "writes all that an auditor needs to verify the evidence",
        ("auditor needs",),
        ("export the evidence", "give evidence to an auditor", "get the evidence log out"),
    ),
    Command(
        "tram tokens create",
        "creates an API token for a project",
        ("creates an API token",),
        ("create an API token", "make a token", "get a new token for a project"),
    ),
    Command(
        "tram pause",
        "pauses a service",
        ("pauses a service",),
        ("pause a service", "suspend a service", "hold a service for a while"),
    ),
    Command(
        "tram resume",
        "resumes a paused service",
        ("resumes a paused service",),
        ("resume a service", "continue a paused service", "end the pause of a service"),
    ),
)

ENTRIES: tuple[Entry, ...] = (
    Entry(
        (
            "What is Tramontane?",
            "What's Tramontane?",
            "Explain Tramontane.",
            "Tell me what Tramontane is.",
            "What does Tramontane do?",
            "Describe Tramontane in one sentence.",
            "What kind of software is Tramontane?",
            "Give me a short description of Tramontane.",
            "So what is Tramontane exactly?",
        ),
        "Tramontane is a sovereign serverless cloud for AI that anyone can run.",
        ("sovereign serverless cloud",),
    ),
    Entry(
        (
            "What can I deploy on Tramontane?",
            "What can Tramontane run?",
            "What runs on Tramontane?",
            "Which things can I deploy with Tramontane?",
            "What kinds of workloads does Tramontane run?",
            "What may I deploy?",
            "What sort of things can I run on Tramontane?",
            "Tell me what can be deployed on Tramontane.",
        ),
        "Tramontane runs apps, containers and open-weight models.",
        ("apps, containers and open-weight models",),
    ),
    Entry(
        (
            "What are the kinds of service?",
            "Which kinds of service are there?",
            "Name the kinds of service.",
            "List the service kinds.",
            "How many kinds of service exist?",
            "What kinds can a service have?",
            "Which service kinds does Tramontane know?",
            "Tell me the kinds of service.",
        ),
        "There are five kinds of service: web, worker, job, model and function.",
        ("web, worker, job, model and function",),
    ),
    Entry(
        (
            "Does unknown satisfy a policy?",
            "Can an unknown fact satisfy a policy?",
            "Is unknown enough for a policy?",
            "What happens when a fact is unknown?",
            "Does an unknown value satisfy a rule?",
            "Does unknown ever satisfy a residency rule?",
            "Is an unknown fact good enough for a policy?",
            "If a fact is unknown, is the policy satisfied?",
        ),
        "No, unknown never satisfies a policy.",
        ("unknown never satisfies",),
    ),
    Entry(
        (
            "Is there a default region?",
            "What is the default region?",
            "Which region is the default?",
            "Does Tramontane have a default region?",
            "Where do services run by default?",
            "Which default region does Tramontane use?",
            "Can you tell me the default region?",
            "Is any region used by default?",
        ),
        "There is no default region.",
        ("no default region",),
    ),
    Entry(
        (
            "What happens if nothing allowed can run a service?",
            "What if no cell is allowed to run a service?",
            "What happens when no cell satisfies the policy?",
            "What does Tramontane do when no allowed cell exists?",
            "Where does a service run if no cell is allowed?",
            "What if no cell can run my service?",
            "My policy allows no cell. What happens?",
            "What happens to a service that may run nowhere?",
        ),
        "The service stays pending with reasons; it never runs elsewhere.",
        ("stays pending",),
    ),
    Entry(
        (
            "What does fail closed mean?",
            "What is fail closed?",
            "Explain fail closed.",
            "What do you mean by fail closed?",
            "Does Tramontane fail closed?",
            "Why does Tramontane fail closed?",
            "What is meant by failing closed?",
            "Tell me about fail closed.",
        ),
        "Fail closed means that unavailable is better than non-compliant.",
        ("unavailable is better than non-compliant",),
    ),
    Entry(
        (
            "How do policies combine?",
            "What happens when I use two policies?",
            "How do presets combine?",
            "How do presets compose?",
            "Can I use two presets together?",
            "What does adding a policy do?",
            "How are several policies combined?",
            "If I add a second preset, what happens?",
        ),
        "Policies combine by intersection: adding one can only shrink the choice of cells.",
        ("intersection",),
    ),
    Entry(
        (
            "What are the results of a policy evaluation?",
            "Which results can a policy evaluation have?",
            "What can the result of a policy be?",
            "What are the possible outcomes of a policy?",
            "Name the results of a policy check.",
            "What does a policy evaluation return?",
            "Which outcomes does a policy check have?",
            "What may a policy evaluation say?",
        ),
        "A policy evaluation is satisfied, violated or unknown, each with reasons.",
        ("satisfied, violated or unknown",),
    ),
    Entry(
        (
            "What does the preset eu mean?",
            "What is the preset eu?",
            "Explain the preset eu.",
            "What does the policy eu require?",
            "What does --policy eu do?",
            "Tell me what the preset eu requires.",
            "What do I get with the preset eu?",
            "Describe the policy eu.",
        ),
        "The preset eu keeps storage, processing, backups and logs in the European Union.",
        ("in the European Union",),
    ),
    Entry(
        (
            "What does the preset eea-gdpr mean?",
            "What is the preset eea-gdpr?",
            "Explain the preset eea-gdpr.",
            "What does the policy eea-gdpr require?",
            "What does --policy eea-gdpr do?",
            "Tell me what the preset eea-gdpr requires.",
            "What do I get with the preset eea-gdpr?",
            "Describe the policy eea-gdpr.",
        ),
        "The preset eea-gdpr keeps data in the European Economic Area or in adequate countries.",
        ("European Economic Area or in adequate countries",),
    ),
    Entry(
        (
            "What does the preset eu-sovereign mean?",
            "What is the preset eu-sovereign?",
            "Explain the preset eu-sovereign.",
            "What does the policy eu-sovereign require?",
            "What does --policy eu-sovereign do?",
            "Tell me what the preset eu-sovereign requires.",
            "What do I get with the preset eu-sovereign?",
            "Describe the policy eu-sovereign.",
        ),
        "The preset eu-sovereign asks for operators and sub-processors under European control.",
        ("under European control",),
    ),
    Entry(
        (
            "Which runtimes does Tramontane have?",
            "What runtimes are there?",
            "Name the runtimes.",
            "List the runtimes of Tramontane.",
            "Which runtimes exist?",
            "How many runtimes are there?",
            "Which runtimes can I use?",
            "Tell me the runtimes Tramontane supports.",
        ),
        "There are three runtimes: process, podman and kubernetes.",
        ("process, podman and kubernetes",),
    ),
    Entry(
        (
            "Which engines does Tramontane have?",
            "What engines are there?",
            "Name the engines.",
            "List the engines of Tramontane.",
            "Which engines exist?",
            "Which engines serve models?",
            "Which engines can I use?",
            "Tell me the engines Tramontane supports.",
        ),
        "There are two engines: llama.cpp for CPUs and vLLM for GPUs.",
        ("llama.cpp", "vLLM"),
    ),
    Entry(
        (
            "What is the gateway made of?",
            "Which proxy does Tramontane use?",
            "What proxy is the gateway?",
            "What carries the requests?",
            "Which software carries requests to services?",
            "Which proxy carries the requests?",
            "What software is behind the gateway?",
            "Tell me which proxy the gateway uses.",
        ),
        "The gateway is Envoy: Python decides, Envoy carries.",
        ("Python decides, Envoy carries",),
    ),
    Entry(
        (
            "Does a request pass through Python?",
            "Do requests pass through Python?",
            "Is Python in the data path?",
            "Does traffic go through Python?",
            "Do requests to a running service go through Python?",
            "Is there Python in the request path?",
            "Does my traffic touch Python?",
            "Do running services get requests through Python?",
        ),
        "No, no request to a running service passes through Python.",
        ("no request to a running service passes through Python",),
    ),
    Entry(
        (
            "What happens when the control plane dies?",
            "What if the control plane is dead?",
            "What happens if the control plane crashes?",
            "Do services run without the control plane?",
            "Is the control plane needed to serve requests?",
            "What happens to services when the control plane stops?",
            "The control plane crashed. Are my services down?",
            "Do my services survive the death of the control plane?",
        ),
        "Everything that runs keeps serving when the control plane is dead.",
        ("keeps serving",),
    ),
    Entry(
        (
            "What is the licence of Tramontane?",
            "Which licence does Tramontane have?",
            "Under which licence is Tramontane?",
            "Is Tramontane open source?",
            "How is Tramontane licensed?",
            "What licence is used by Tramontane?",
            "Tell me the licence of Tramontane.",
            "Can you say which licence Tramontane uses?",
        ),
        "Tramontane is open source under the Apache-2.0 licence.",
        ("Apache-2.0",),
    ),
    Entry(
        (
            "What is the manifest called?",
            "What is the name of the manifest file?",
            "Which file is the manifest?",
            "How is the manifest file named?",
            "Where do I write the manifest?",
            "What file holds the manifest?",
            "Tell me the name of the manifest.",
            "In which file does the manifest live?",
        ),
        "The manifest is called tramontane.yaml.",
        ("tramontane.yaml",),
    ),
    Entry(
        (
            "What happens with an unknown key in a manifest?",
            "Are unknown keys allowed in a manifest?",
            "What if my manifest has an unknown key?",
            "Is an unknown manifest key an error?",
            "What does an unknown key in the manifest do?",
            "I have a typo in a manifest key. What happens?",
            "Does the manifest accept unknown keys?",
            "How are unknown keys in a manifest treated?",
        ),
        "An unknown key in a manifest is an error with its path and a suggestion.",
        ("is an error",),
    ),
    Entry(
        (
            "How do I scale a service to zero?",
            "How can I put a service to sleep?",
            "How do I make a service sleep?",
            "Which command puts a service to sleep?",
            "How do I set a service to zero instances?",
            "What command scales a service to zero?",
            "I want my service to sleep now. What do I run?",
            "Tell me how to scale to zero.",
        ),
        "Run tram scale with the name of the service and 0: it sleeps now.",
        ("tram scale",),
    ),
    Entry(
        (
            "How do I deploy the tiny model?",
            "How can I deploy the tiny model?",
            "Which command deploys the tiny model?",
            "What command do I use to deploy the tiny model?",
            "How do I run the tiny model?",
            "How do I start the tiny model?",
            "I want to deploy the tiny model. What do I run?",
            "Tell me how to deploy the tiny model.",
        ),
        "Run tram deploy --model tiny.",
        ("tram deploy --model tiny",),
    ),
    Entry(
        (
            "What is the command of Tramontane called?",
            "What is the command line tool called?",
            "Which command belongs to Tramontane?",
            "What is the name of the command?",
            "How is the Tramontane command named?",
            "What do I type to use Tramontane?",
            "What is the CLI of Tramontane called?",
            "Tell me the name of the command line tool.",
        ),
        "The command is called tram.",
        ("called tram",),
    ),
    Entry(
        (
            "Do I need Kubernetes?",
            "Does Tramontane need Kubernetes?",
            "Is Kubernetes required?",
            "Do I need Docker?",
            "Does Tramontane need Docker or Kubernetes?",
            "Must I have root to use Tramontane?",
            "Can I use Tramontane without Kubernetes?",
            "Is Docker required for Tramontane?",
        ),
        "No, a machine with Python is enough: root, Docker and Kubernetes are optional.",
        ("optional",),
    ),
    Entry(
        (
            "How do I call a model?",
            "Which API does a model have?",
            "How can I send requests to a model?",
            "What API do models speak?",
            "Is the model API compatible with OpenAI?",
            "Under which path is inference served?",
            "How do my programs talk to a model?",
            "Which API do deployed models offer?",
        ),
        "Models answer an OpenAI-compatible API under /v1.",
        ("OpenAI-compatible",),
    ),
    Entry(
        (
            "What is in the evidence log?",
            "What does the evidence log contain?",
            "What is written to the evidence log?",
            "Which events are in the evidence log?",
            "What is recorded as evidence?",
            "What does Tramontane write to the evidence log?",
            "Which things does the evidence log record?",
            "Tell me what the evidence log holds.",
        ),
        "The evidence log holds every placement, policy change, key use and waiver.",
        ("placement, policy change, key use and waiver",),
    ),
    Entry(
        (
            "What does exit code 3 mean?",
            "What is exit code 3?",
            "tram exited with 3. Why?",
            "Why does tram return 3?",
            "What does exit status 3 mean?",
            "My command ended with exit code 3. What does it mean?",
            "What is the meaning of exit code 3?",
            "Explain exit code 3.",
        ),
        "Exit code 3 means refused by policy.",
        ("refused by policy",),
    ),
    Entry(
        (
            "Where may a service without a policy run?",
            "Where does a service without a policy run?",
            "What if a service has no policy?",
            "Do I need a policy?",
            "Can a service run without a policy?",
            "What happens without a policy?",
            "My service has no policy. Where may it run?",
            "A service without any policy runs where?",
        ),
        "A service without a policy may run on any cell, and it says so.",
        ("any cell",),
    ),
    Entry(
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Which model are you?",
            "Tell me who you are.",
            "Are you a language model?",
            "Introduce yourself.",
            "What model am I talking to?",
            "Say who you are.",
        ),
        "I am the tiny model of Tramontane, made for demos and tests.",
        ("tiny model of Tramontane",),
    ),
    Entry(
        (
            "What do you know?",
            "What can you tell me?",
            "What can I ask you?",
            "Which topics do you know?",
            "What are you able to answer?",
            "What questions can you answer?",
            "What subjects do you know about?",
            "Tell me what I can ask you.",
        ),
        "I know facts about European countries and about Tramontane, and nothing else.",
        ("European countries", "Tramontane"),
    ),
    Entry(
        (
            "Hello",
            "Hello!",
            "Hi",
            "Hi!",
            "Hi there",
            "Good morning",
            "Good evening!",
            "Hey",
            "Hello there!",
            "Hey there",
        ),
        "Hello! Ask me about European countries or about Tramontane.",
        ("Hello!",),
    ),
    Entry(
        (
            "Thank you",
            "Thanks",
            "Thanks!",
            "Thank you very much!",
            "Thanks a lot",
            "Many thanks",
            "Thank you!",
            "Great, thanks!",
            "Thank you so much",
        ),
        "You are welcome.",
        ("You are welcome",),
    ),
    Entry(
        (
            "How many countries are in the European Union?",
            "How many members does the European Union have?",
            "How many member states does the EU have?",
            "What is the number of EU members?",
            "How many states are in the EU?",
            "Count the members of the European Union.",
            "How many countries belong to the European Union?",
            "How large is the European Union in member states?",
        ),
        "The European Union has 27 members.",
        ("27",),
    ),
    Entry(
        (
            "Which countries are in the EEA but not in the EU?",
            "Which EEA countries are not in the European Union?",
            "Name the EEA members outside the EU.",
            "Who is in the EEA and not in the EU?",
            "Which countries are only in the European Economic Area?",
            "List the EEA states that are not EU members.",
            "Which EEA states are outside the European Union?",
            "What countries belong to the EEA without being in the EU?",
        ),
        "Iceland, Liechtenstein and Norway are in the European Economic Area but not in the"
        " European Union.",
        ("Iceland, Liechtenstein and Norway",),
    ),
    Entry(
        (
            "How many countries use the euro as EU members?",
            "How many EU members use the euro?",
            "How many countries are in the euro area?",
            "How large is the euro area?",
            "What is the number of euro countries in the EU?",
            "How many EU countries have the euro?",
            "How many members of the European Union pay with the euro?",
            "Count the countries of the euro area.",
        ),
        "The euro is used by 21 members of the European Union.",
        ("21",),
    ),
    Entry(
        (
            "Which country left the European Union?",
            "Who left the EU?",
            "Which country has left the EU?",
            "Has any country left the European Union?",
            "Name the country that left the EU.",
            "What country left the EU in 2020?",
            "Which state is no longer in the European Union?",
            "Did a country ever leave the EU?",
        ),
        "The United Kingdom left the European Union in 2020.",
        ("The United Kingdom left",),
    ),
)
