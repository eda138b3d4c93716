"""An HDF5 file that reads from another file is refused before Keras opens it."""

import json
import zipfile

import numpy as np
import pytest

from securitynet.errors import UnsafeFile
from securitynet.models.sources import keras

h5py = pytest.importorskip("h5py")


def external_link(file, secret):
    file["layer/kernel"] = h5py.ExternalLink(secret.name, "/values")


def external_storage(file, secret):
    file.create_dataset("kernel", (3,), "f8", external=[(str(secret), 0, 24)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "values", (3,))
    file.create_virtual_dataset("kernel", layout)


def plain(file, _secret):
    file["values"] = np.arange(3.0)
    file["layer/kernel"] = h5py.SoftLink("/values")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("write", [external_link, external_storage, virtual, plain])
def test_files_that_refer_to_others_are_refused(tmp_path, write, packed):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["values"] = np.arange(3.0)
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential"})
        write(file, secret)
    if packed:
        content = path.read_bytes()
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps({"class_name": "Sequential"}))
            archive.writestr("model.weights.h5", content)
    if write is plain:
        assert keras.read_keras_config(path, "keras:model") == {"class_name": "Sequential"}
    else:
        with pytest.raises(UnsafeFile, match="refers to another file"):
            keras.read_keras_config(path, "keras:model")
