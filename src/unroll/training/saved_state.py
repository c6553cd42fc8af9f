"""The whole state of a training on disk: saved between two steps, read by ``resume=``.

Each is a folder ``checkpoints/state-STEP`` with ``state.safetensors`` (the tensors, and the rest of
the state as JSON in its header, so that reading it executes no code) and the best checkpoint of
that moment. A folder is written aside, flushed to disk and renamed: a reader finds all of it or
none. A checksum tells a damaged one; the one before it is used in its place.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unroll.errors import Refused
from unroll.tracking.journal import flush_to_disk

FILE = "state.safetensors"
PREFIX = "state-"
HEADER = "unroll"
VERSION = 2
OUTLINE = "outline"
"""Name of the tensor that holds the outline as UTF-8: a header may have 100 MB, and the curves of a
long training have more. Version 1 kept it in the header."""

State = dict[str, Any]


class Saved(NamedTuple):
    """A state that was read."""

    state: State
    step: int
    folder: Path


class StateWriter:
    """Saves the states of one training, in a thread of its own.

    Args:
        folder: of the checkpoints of the run.
        best: name of the best checkpoint in it.
        kept: how many states are kept.
    """

    def __init__(self, folder: Path, best: str, kept: int) -> None:
        self.folder, self.best, self.kept = folder, best, kept
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Copy ``state`` and write it in the background.

        Raises:
            OSError: this state or an earlier one cannot be written.
        """
        self.wait()
        tensors: dict[str, Tensor] = {}
        outline = json.dumps(_outline(state, tensors))
        aside = self.folder / f".{_name(step)}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        if (self.folder / self.best).is_file():  # later ones replace the name, not this file
            _link(self.folder / self.best, aside / self.best)
        self._thread = threading.Thread(target=self._write, args=(aside, tensors, outline))
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last state is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
        error, self._error, self._thread = self._error, None, None
        if error is not None:
            raise error

    def _write(self, aside: Path, tensors: dict[str, Tensor], outline: str) -> None:
        try:
            header = {"version": VERSION, "checksum": _checksum(tensors, outline)}
            text = torch.frombuffer(bytearray(outline.encode()), dtype=torch.uint8)
            save_file({**tensors, OUTLINE: text}, aside / FILE, {HEADER: json.dumps(header)})
            for path in aside.iterdir():
                flush_to_disk(path)
            flush_to_disk(aside)
            place = self.folder / aside.name[1:]
            shutil.rmtree(place, ignore_errors=True)  # of a run that went on from before this step
            os.replace(aside, place)
            flush_to_disk(self.folder)
            for path in _folders(self.folder)[: -self.kept]:
                shutil.rmtree(path, ignore_errors=True)
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            self._error = error


def newest(folder: Path) -> tuple[Saved | None, list[str]]:
    """The newest whole state of a run, None if there is none, and a line for each damaged one that
    was passed over."""
    problems: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return Saved(read(path), int(path.name[len(PREFIX) :]), path), problems
        except Refused as error:
            problems.append(f"{error}: the state before it is used")
    return None, problems


def last(folder: Path) -> Path | None:
    """The folder of the newest state of a run, damaged or not; None if there is none."""
    found = _folders(folder)
    return found[-1] if found else None


def go_back(saved: Saved | None, folder: Path, best: str) -> None:
    """Make the best checkpoint of the run that of ``saved`` again, and remove later states, and
    those that a process was writing when it was killed."""
    for left in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    if saved is None or not (saved.folder / best).is_file():
        (folder / best).unlink(missing_ok=True)
    else:
        _link(saved.folder / best, folder / f".{best}")
        os.replace(folder / f".{best}", folder / best)
    for path in _folders(folder):
        if saved is None or path.name > saved.folder.name:
            shutil.rmtree(path, ignore_errors=True)


def read(path: Path) -> State:
    """The state in a folder that ``StateWriter`` wrote.

    Raises:
        Refused: it is damaged, or was written by a later version.
    """
    file = path / FILE
    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[HEADER])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        version = header["version"]
        outline = header["outline"] if version == 1 else _text(tensors.pop(OUTLINE))
        fits = header["checksum"] == _checksum(tensors, outline)
        state: State = _filled(json.loads(outline), tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"{file} is damaged ({error})") from error
    if version > VERSION:
        raise Refused(f"{file} was written by a later version of Unroll")
    if not fits:
        raise Refused(f"{file} is damaged (its checksum does not fit)")
    return state


def _text(encoded: Tensor) -> str:
    return bytes(encoded.numpy()).decode()


def _name(step: int) -> str:
    return f"{PREFIX}{step:09d}"


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit())


def _outline(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON can hold it; its tensors are copied into ``tensors``."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _outline(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_outline(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_outline(item, tensors) for item in value]
    return value


def _filled(outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that ``_outline`` described."""
    if isinstance(outline, list):
        return [_filled(item, tensors) for item in outline]
    if not isinstance(outline, dict):
        return outline
    ((kind, content),) = outline.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _filled(item, tensors) for key, item in content}
    return tuple(_filled(item, tensors) for item in content)


def _checksum(tensors: Mapping[str, Tensor], outline: str) -> int:
    found = zlib.crc32(outline.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(content, found)
    return found


def _link(source: Path, place: Path) -> None:
    """A second name for a file that nobody changes, or a copy where the file system has none."""
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
