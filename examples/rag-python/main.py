"""Answers questions from a few documents: finds the passages that fit, and has a model read them.

There is no address and no key in here. ``tramontane.yaml`` names the model, so the platform sets
``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``, which OpenAI's client reads by itself.
"""

import asyncio
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from openai import APIError, AsyncOpenAI

CHAT_MODEL = os.environ.get("CHAT_MODEL", "assistant")
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL", CHAT_MODEL)
DOCUMENTS = Path(__file__).parent / "documents"
PASSAGES_PER_ANSWER = 3

app = FastAPI(title="Answers from documents")
client = AsyncOpenAI()


@dataclass(frozen=True)
class Passage:
    """A piece of a document: here, a line."""

    document: str
    text: str


class Index:
    """All passages with their vectors, which are made when they are first needed."""

    def __init__(self) -> None:
        self._entries: list[tuple[Passage, list[float]]] = []
        self._making = asyncio.Lock()

    async def search(self, question: str) -> list[tuple[float, Passage]]:
        """Return the passages that are closest to the question, the closest first."""
        async with self._making:
            if not self._entries:
                passages = read_passages(DOCUMENTS)
                vectors = await embed([each.text for each in passages])
                self._entries = list(zip(passages, vectors, strict=True))
        (wanted,) = await embed([question])
        scored = [(cosine(wanted, vector), passage) for passage, vector in self._entries]
        scored.sort(key=lambda each: each[0], reverse=True)
        return scored[:PASSAGES_PER_ANSWER]


index = Index()


def read_passages(directory: Path) -> list[Passage]:
    """Return every line of every text file that has something on it."""
    return [
        Passage(file.name, line.strip())
        for file in sorted(directory.glob("*.txt"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


async def embed(texts: list[str]) -> list[list[float]]:
    """Return a vector for each text."""
    answer = await client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
    return [each.embedding for each in answer.data]


def cosine(a: list[float], b: list[float]) -> float:
    """Return how alike two vectors are: 1 is the same direction, 0 none in common."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@app.exception_handler(APIError)
async def explain(_: Request, error: APIError) -> JSONResponse:
    """Say what the model said, such as that there is none of this name."""
    return JSONResponse({"error": error.message}, status_code=502)


@app.get("/")
async def greet() -> dict[str, object]:
    """Say what there is to ask about."""
    documents = sorted(each.name for each in DOCUMENTS.glob("*.txt"))
    return {"message": "Hello, ask me with /ask?question=…", "documents": documents}


@app.get("/ask")
async def ask(
    question: Annotated[str, Query(min_length=1, max_length=500)],
) -> dict[str, object]:
    """Answer from the documents, and say which passages were read."""
    found = await index.search(question)
    context = "\n".join(passage.text for _, passage in found)
    completion = await client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[
            {"role": "system", "content": f"Answer from these passages only:\n{context}"},
            {"role": "user", "content": question},
        ],
        temperature=0,
    )
    return {
        "answer": completion.choices[0].message.content,
        "passages": [
            {"document": passage.document, "text": passage.text, "score": round(score, 3)}
            for score, passage in found
        ],
    }


@app.get("/healthz")
async def health() -> dict[str, str]:
    """Tell that the app is there; it asks no model, so that none is woken for it."""
    return {"status": "ok"}
