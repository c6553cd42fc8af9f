"""The data sets that a run reads, as MLflow's column Dataset shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LONGEST_DIGEST = 36


@dataclass(frozen=True)
class DataInput:
    """A data set that a run reads, as MLflow's column Dataset shows it."""

    name: str
    digest: str
    """The corpus fingerprint."""
    path: str | None
    """null: it is generated, or comes with a package."""
    splits: Mapping[str, Mapping[str, int]]
    """Documents and tokens of each split."""


def log_inputs(client: MlflowClient, run_id: str, inputs: Sequence[DataInput]) -> None:
    """Name the data sets that a run reads."""
    if not inputs:
        return
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    context = InputTag("mlflow.data.context", "training")
    listed = [DatasetInput(_dataset(item), [context]) for item in inputs]
    try:
        client.log_inputs(run_id, listed)
    except MlflowException:  # another process may have entered the same data set meanwhile
        client.log_inputs(run_id, listed)


def _dataset(item: DataInput) -> Any:
    from mlflow.entities import Dataset

    column = {"name": "text", "type": "string", "required": True}
    sizes = {
        "num_rows": sum(split["documents"] for split in item.splits.values()),
        "num_elements": sum(split["tokens"] for split in item.splits.values()),
    }
    source = {"tags": {"data": item.name}} if item.path is None else {"uri": item.path}
    return Dataset(
        name=item.name,
        digest=item.digest[:LONGEST_DIGEST],
        source_type="code" if item.path is None else "local",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_colspec": [column]}),
        profile=json.dumps(sizes | {"splits": item.splits}),
    )
