"""What lies at the path of a training already: the complete model, something else, or leftovers of a killed run."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.record_files import locate_model_record, read_target_record
from securitynet.models.training.loss_traces import (
    locate_loss_traces,
    read_loss_traces,
)


def find_finished(out: Path, wanted: dict[str, Any], *, overwrite: bool, interrupted: bool) -> TargetRecord | None:
    """The record of the model at ``out`` if it is the requested one; None if ``out`` may be written.

    Args:
        out: The weights file.
        wanted: Fields of the record that determine the weights.
        overwrite: Whether any file there may be replaced.
        interrupted: Whether a checkpoint lies beside it. Weights without a record, or with another model's record, are
            then left over from a run that was killed between writing the two files. A complete model is never taken for
            such a leftover.

    Raises:
        ConfigurationError: If ``out`` holds something else that must not be replaced.
    """
    try:
        record = read_target_record(out)
    except ModelError:
        if not (overwrite or interrupted):
            raise
        return None
    decisive = record.decisive() if record is not None else {}
    different = [name for name, value in to_jsonable_python(wanted).items() if decisive.get(name) != value]
    if record is not None and not different:
        return record
    if overwrite or (interrupted and record is None) or not (out.exists() or locate_model_record(out).exists()):
        return None
    what = "something else"
    if record is not None:
        what = f"a model trained with other settings ({', '.join(name.replace('_', ' ') for name in different)})"
    raise ConfigurationError(
        f"{out} or {locate_model_record(out).name} beside it holds {what}.",
        hint="Choose another --out, or pass --overwrite.",
    )


def lacks_losses(out: Path, trained: TargetRecord, *, overwrite: bool) -> bool:
    """Whether the losses of a complete model are missing and it may be trained again for them.

    Args:
        out: The weights file.
        trained: Its record.
        overwrite: Whether the model may be trained again.

    Raises:
        ConfigurationError: If they are missing, and ``out`` must not be replaced.
    """
    if read_loss_traces(out, trained.key) is not None:
        return False
    if not overwrite:
        raise ConfigurationError(
            f"{out} is complete already, and the losses of its training were not kept.",
            hint="Pass --overwrite to train the same model again and keep them.",
        )
    return True


def remove_leftovers(out: Path, checkpoint: Path) -> None:
    """Delete the temporary files of a run that was killed while writing."""
    for path in (out, locate_model_record(out), locate_loss_traces(out), checkpoint):
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            leftover.unlink(missing_ok=True)
