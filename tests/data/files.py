"""Files written for a test, and the documents that a corpus reads."""

from __future__ import annotations

from pathlib import Path


def documents(corpus) -> dict[str, list[str]]:
    return {split: list(table["text"]) for split, table in corpus.read().items()}


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
