"""Text that is small, the same every time, and has something to learn in it."""

import random

WORDS = [
    *("a", "the", "and", "of", "to", "in", "is", "that", "for", "with", "file", "module", "function", "returns"),
    *(
        "value",
        "object",
        "list",
        "number",
        "string",
        "type",
        "class",
        "method",
        "argument",
        "default",
        "error",
        "raised",
    ),
    *("when", "called", "first", "last", "given", "name", "path", "reads", "writes", "opens", "closes"),
]


def sentence(chance: random.Random) -> str:
    words = [chance.choice(WORDS) for _ in range(chance.randint(6, 14))]
    return " ".join(words).capitalize() + "."


def documents(n: int = 60, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(sentence(chance) for _ in range(8)) + "\n" for _ in range(n)]


def text(n: int = 60, seed: int = 0) -> str:
    return "\n".join(documents(n, seed))
