"""Models of libraries that are not supported, with advice on how to convert them."""

from __future__ import annotations

from pathlib import Path

from securitynet.errors import ModelError

_RECORD = (
    "Or record its outputs where it runs: numpy.savez('recorded.npz', posteriors=model.predict_proba(x), labels=y, "
    "members=is_member), and assess outputs:recorded.npz."
)
_SKLEARN = ("sklearn", "joblib")


def explain_foreign(path: Path) -> ModelError | None:
    """The refusal for a model of TensorFlow, scikit-learn, XGBoost or JAX; None if it is not recognised as one."""
    if path.is_dir():
        names = {file.name for file in path.iterdir()}
        if "saved_model.pb" in names:
            return _refuse(
                path, "a TensorFlow SavedModel", "python -m tf2onnx.convert --saved-model FOLDER --output m.onnx"
            )
        if names & {"_METADATA", "checkpoint"} and "_CHECKPOINT_METADATA" in names:
            return _refuse(path, "a checkpoint of JAX (Orbax)", "jax2onnx.to_onnx(apply, [shape])")
        return None
    with path.open("rb") as stream:
        head = stream.read(4096)
    suffix = path.suffix.lower()
    if suffix == ".msgpack":
        return _refuse(path, "a checkpoint of JAX (Flax)", "jax2onnx.to_onnx(apply, [shape])")
    if suffix == ".ubj" or b"gradient_booster" in head or b"learner" in head[:64]:
        return _refuse(path, "an XGBoost model", "onnxmltools.convert_xgboost(model, initial_types=...)")
    if suffix in (".joblib", ".pkl", ".pickle") or any(name.encode() in head for name in _SKLEARN):
        return _refuse(path, "a pickle (scikit-learn?), which is not read", "skl2onnx.to_onnx(model, x[:1])")
    return None


def _refuse(path: Path, what: str, command: str) -> ModelError:
    return ModelError(f"{path} is {what}.", hint=f"Export it to ONNX where it was made: {command}. {_RECORD}")
