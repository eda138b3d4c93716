"""Models that the adversary has already, in place of models that would be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from securitynet.errors import ConfigurationError
from securitynet.files import expand_home, file_checksum
from securitynet.methods.data import TrialData
from securitynet.models.loading.load import load_target
from securitynet.models.targets.target import Target
from securitynet.records import Record


class GivenModel(Record):
    """A model that the adversary has already: a public one, or one that was stolen.

    Attributes:
        model: Reference, such as ``arch:resnet18``; a text in place of this record is taken for it, and
            ``REFERENCE=FILE`` for a reference with a file of weights.
        weights: File of weights; the library's own if None.
        checksum: SHA-256 of that file, filled in: the trial is about these weights and no others.
        normalize: As for a target.
        input_size: As for a target.
        head: As for a target.
    """

    model: str
    weights: Path | None = None
    checksum: str | None = None
    normalize: str | None = None
    input_size: int | None = Field(default=None, ge=1)
    head: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if isinstance(values, str):
            model, equals, file = values.rpartition("=")
            # Addresses may hold this character too.
            values = {"model": model, "weights": file} if equals and "://" not in values else {"model": values}
        if isinstance(values, dict) and values.get("weights") is not None:
            path = expand_home(values["weights"])
            if not path.is_file():
                raise ConfigurationError(f"There is no file {path} with weights of {values.get('model', 'a model')}.")
            checksum = file_checksum(path)
            if values.get("checksum") not in (None, checksum):
                raise ConfigurationError(f"The weights in {path} are not those of the stated checksum.")
            return {**values, "weights": path, "checksum": checksum}
        return values

    def load(self, data: TrialData, device: str) -> Target:
        """The model, with all the access that it gives.

        Raises:
            ModelError: If it cannot be found or read.
            TargetError: If it has other classes than the dataset.
        """
        return load_target(
            self.model,
            weights=self.weights,
            dataset=data.dataset,
            normalize=self.normalize,
            input_size=self.input_size,
            head=self.head,
            device=device,
        )
