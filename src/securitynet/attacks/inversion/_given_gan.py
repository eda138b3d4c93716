"""A GAN that the adversary has already, trained on public images, in place of one trained on shadow data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from securitynet.errors import ConfigurationError
from securitynet.files import expand_home, file_checksum
from securitynet.models.gan.store import RECORD
from securitynet.models.store.cached_model import WEIGHTS
from securitynet.records import Record


class GivenGAN(Record):
    """The folder of a trained GAN, as `securitynet.models.gan.obtain_gan` writes it.

    Attributes:
        folder: The folder, with ``gan.json`` and the weights; a text in place of this record is taken for it.
        checksum: SHA-256 of the weights, filled in: the trial is about these weights and no others.
    """

    folder: Path
    checksum: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if isinstance(values, str | Path):
            values = {"folder": values}
        if isinstance(values, dict) and values.get("folder") is not None:
            folder = expand_home(values["folder"])
            for name in (RECORD, WEIGHTS):
                if not (folder / name).is_file():
                    raise ConfigurationError(
                        f"{folder} is not the folder of a GAN: it has no file {name}.",
                        hint="Give a folder that securitynet.models.gan.obtain_gan wrote, such as one in gans/ of the "
                        "cache folder.",
                    )
            checksum = file_checksum(folder / WEIGHTS)
            if values.get("checksum") not in (None, checksum):
                raise ConfigurationError(f"The weights in {folder} are not those of the stated checksum.")
            return {**values, "folder": folder, "checksum": checksum}
        return values
