"""What the tests with Ray and Spark share: tables to read, and a function that leaves notes and can be killed."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import torch
from pyarrow import parquet

from electra_fast import Embedder, load_embedder
from electra_fast.bundled import bundled

N_FILES, N_TEXTS = 4, 240
MODEL = bundled("discriminator")


def texts() -> list[str | None]:
    """Texts of many lengths, an empty one and a null among them."""
    draw = random.Random(0)
    words = "the president signed a bill into purple law and nobody laughed".split()
    return ["", None, *(" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(N_TEXTS - 2))]


def write_tables(directory: Path) -> Path:
    """Writes the texts to files with the columns row, text and words."""
    directory.mkdir()
    table = pyarrow.table({"row": range(N_TEXTS), "text": texts(), "words": [(text or "").split() for text in texts()]})
    size = N_TEXTS // N_FILES
    for number in range(N_FILES):
        parquet.write_table(table.slice(number * size, size), directory / f"part-{number}.parquet")
    return directory


@dataclass(frozen=True, kw_only=True)
class NotingEmbedder(Embedder):
    """Writes a file for each call, `process-call-threads`, and then takes a while."""

    notes: str

    def of_table(self, table):
        calls = vars(self).setdefault("calls", [])
        calls.append(len(calls))
        (Path(self.notes) / f"{os.getpid()}-{len(calls)}-{torch.get_num_threads()}").touch()
        time.sleep(0.5)
        return super().of_table(table)

    def _load(self):
        options = self._options()
        del options["notes"]
        return load_embedder(options.pop("model"), **options)


@contextmanager
def killed_in_its_second_call(notes: Path) -> Iterator[list[int]]:
    """Kills the first process that begins its second call; yields a list that gets its number."""
    killed: list[int] = []
    is_over = threading.Event()

    def watch():
        while not killed and not is_over.wait(0.02):
            for path in notes.glob("*-2-*"):
                killed.append(int(path.name.partition("-")[0]))
                os.kill(killed[0], signal.SIGKILL)
                break

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        is_over.set()
        watcher.join()
