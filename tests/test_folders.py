"""A file is replaced whole or not at all."""

from pathlib import Path

import pytest

from unroll.folders import write_atomically


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    write_atomically(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "first"


def test_a_full_disk_leaves_the_old_text_and_no_part_of_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "first")

    def full(self: Path, text: str, **keywords: object) -> None:
        self.write_bytes(text[:3].encode())
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "second")
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [
        ("result.json", b"first")
    ]
