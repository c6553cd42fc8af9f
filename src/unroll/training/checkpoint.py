"""A model in one file: weights as safetensors; config, vocabulary and tokenizer in the header.

Reading a checkpoint executes no code. Checkpoints of earlier versions stay readable.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unroll.errors import Refused, require
from unroll.training.upgrade import FORMAT, upgrade

HEADER = "unroll"
LARGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself


@dataclass(frozen=True)
class Checkpoint:
    """The header of a checkpoint, and the path to its weights."""

    path: Path
    run_id: str
    config: dict[str, Any]
    """With the keys of this version."""
    vocabulary: str
    """JSON of the token list."""
    tokenizer: str
    """JSON of the tokenizer's learned state."""
    step: int

    def load(self, model: torch.nn.Module) -> None:
        """Copy the weights into ``model``.

        Raises:
            Refused: the file is damaged, or its tensors have other names or shapes.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            model.load_state_dict(weights)
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, error) from error
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            raise Refused(f"checkpoint {self.path} does not fit the model: {lines[-1]}") from error


def save(
    path: Path,
    model: torch.nn.Module,
    *,
    run_id: str,
    config: dict[str, Any],
    vocabulary: str,
    tokenizer: str,
    step: int,
) -> None:
    """Write a checkpoint beside ``path`` and rename it into place: a reader always finds a
    complete file, the old one or the new one."""
    header = {"format": FORMAT, "run_id": run_id, "config": config, "step": step}
    header |= {"vocabulary": vocabulary, "tokenizer": tokenizer}
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(
            {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()},
            writing,
            metadata={HEADER: json.dumps(header, ensure_ascii=False)},
        )
        os.replace(writing, path)
    finally:
        writing.unlink(missing_ok=True)


def read(path: Path) -> Checkpoint:
    """Read the header of a checkpoint; ``Checkpoint.load`` reads the weights.

    Raises:
        Refused: the file does not exist, is damaged, is not a checkpoint of Unroll, or was
            written by a later version.
    """
    require(path.is_file(), f"checkpoint {path} does not exist")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            require(len(start) == 8, f"checkpoint {path} is damaged: the file is cut off")
            (length,) = struct.unpack("<Q", start)
            require(
                length <= LARGEST_HEADER, f"checkpoint {path} is damaged: its header is invalid"
            )
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        require(HEADER in metadata, f"{path} is not a checkpoint of Unroll")
        fields = json.loads(metadata[HEADER])
        version = fields.get("format", 1)
        require(
            version <= FORMAT,
            f"checkpoint {path} has format {version}, and this version of Unroll reads up to "
            f"format {FORMAT}: update Unroll",
        )
        config = upgrade(fields["config"], version)
        return Checkpoint(
            path=path,
            run_id=fields["run_id"],
            config=config,
            vocabulary=fields["vocabulary"],
            tokenizer=fields["tokenizer"],
            step=fields["step"],
        )
    except Refused:
        raise
    except (
        SafetensorError,
        OSError,
        struct.error,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> Refused:
    return Refused(f"checkpoint {path} is damaged or not a checkpoint: {error}")
