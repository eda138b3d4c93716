"""Folders of transformers' image classifiers: configuration and safetensors only, and no code from anywhere."""

import json

import pytest
import torch

from securitynet.errors import ModelError
from securitynet.models.loading.load import load_target
from securitynet.models.sources._transformers import (
    _class_names,
    _preprocessing,
    _without_code,
    import_transformers,
    open_transformers,
)

NAMES = {0: "cat", 1: "dog", 2: "owl"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "vit", "quantization_config": {"bits": 4}}, "quantised weights"),
        ({"model_type": "vit", "backbone": "owner/other"}, "another model"),
        ({"model_type": "resnet", "use_pretrained_backbone": True}, "another model"),
    ],
)
def test_configurations_that_need_more_than_themselves_are_refused(config, words):
    with pytest.raises(ModelError, match=words):
        open_transformers(config, None, name="hf:./folder")


def test_keys_that_choose_code_are_dropped():
    config = {
        "auto_map": {"AutoConfig": "evil.Config"},
        "_attn_implementation": "owner/kernel",
        "vision_config": {"auto_map": {}, "attn_implementation": "x", "hidden_size": 3, "depths": [{"auto_map": 1}]},
    }
    assert _without_code(config) == {"vision_config": {"hidden_size": 3, "depths": [{}]}}


def test_labels_count_where_they_were_named():
    assert _class_names({"1": "dog", "0": "cat", "2": "owl"}) == ("cat", "dog", "owl")
    assert (
        _class_names({"0": "LABEL_0", "1": "LABEL_1"}) == _class_names({"0": "a", "2": "b"}) == _class_names(None) == ()
    )


@pytest.mark.parametrize(
    ("stated", "size", "share", "interpolation"),
    [
        ({"size": {"height": 224, "width": 224}, "resample": 2}, (224, 224), None, "bilinear"),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, (224, 224), 0.875, "bicubic"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.95, "resample": 3}, (384, 384), None, "bicubic"),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            (224, 224),
            0.875,
            "bilinear",
        ),
    ],
)
def test_preprocessing_is_read(stated, size, share, interpolation):
    read = _preprocessing({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, **stated})
    assert (read.mean, read.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (read.input_size, read.crop_share, read.interpolation) == (size, share, interpolation)


def test_preprocessing_without_equal_is_not_guessed():
    assert _preprocessing({"rescale_factor": 1.0}) is None and _preprocessing({"rescale_offset": True}) is None
    assert _preprocessing({"do_normalize": False, "image_mean": [0.5], "image_std": [0.5]}).mean == ()


def saved(folder, kind):
    """A tiny network of transformers, saved as its users do."""
    pytest.importorskip("transformers")
    transformers = import_transformers()
    torch.manual_seed(0)
    config = {
        "vit": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        | {"patch_size": 4},
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
    }[kind]
    sized = {} if kind == "resnet" else {"image_size": 16}
    made = transformers.AutoConfig.for_model(kind, id2label=NAMES, label2id={}, **config, **sized)
    network = transformers.AutoModelForImageClassification.from_config(made).eval()
    network.save_pretrained(folder)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return network


@pytest.mark.slow  # importing transformers takes longer than all the others
@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
def test_a_saved_model_answers_as_it_did(tmp_path, kind):
    network = saved(tmp_path, kind)
    config = json.loads((tmp_path / "config.json").read_text())
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    config["auto_map"] = {"AutoModelForImageClassification": "evil.Net", "AutoConfig": "evil.Config"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    target = load_target(f"hf:{tmp_path}", device="cpu")
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        expected = network((images - 0.5) / 0.5).logits
    assert torch.allclose(target.posteriors(images), expected.softmax(1), atol=1e-4)
    assert target.class_names == ("cat", "dog", "owl") and target.num_classes == 3
    assert target.module(images.requires_grad_()).sum().requires_grad and not marker.exists()
    assert target.architecture == f"hf:{tmp_path}"


@pytest.mark.slow
def test_the_architecture_of_a_saved_model_can_be_trained(tmp_path):
    from securitynet.models.training.trainable import build_trainable

    network = saved(tmp_path, "vit")
    torch.manual_seed(1)
    made = build_trainable(f"hf:{tmp_path}", 10, 1, 8)
    assert made(torch.rand(2, 1, 8, 8)).logits.shape == (2, 10)
    assert not torch.equal(made.classifier.weight[:3], network.classifier.weight)


@pytest.mark.slow
def test_what_is_no_whole_classifier_is_said(tmp_path):
    saved(tmp_path, "resnet")
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="several files of weights"):
        load_target(f"hf:{tmp_path}", device="cpu")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="BertModel, which is no image classifier"):
        load_target(f"hf:{tmp_path}", device="cpu")
