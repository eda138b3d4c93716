"""Files with two sets of weights: which is taken, which is named, and how to take the other."""

import pytest
import torch

from securitynet.errors import ConfigurationError
from securitynet.models.sources.weight_sets import choose_set, is_average
from securitynet.models.sources.weights import read_weights


def weights(value=0.0):
    return {
        "conv.weight": torch.full((4, 3, 3, 3), float(value)),
        "bn.weight": torch.ones(4),
        "fc.weight": torch.eye(4) + value,
    }


def prefixed(prefix, state):
    return {f"{prefix}.{key}": value for key, value in state.items()}


def taken(content, wanted=None):
    """The value that marks the set which is taken, and the notes."""
    chosen = choose_set(content, wanted)
    layer = next(value for key, value in chosen.content.items() if str(key).endswith("conv.weight"))
    return float(layer[0, 0, 0, 0]), " ".join(chosen.notes)


TWO_SETS = {
    "timm": {"state_dict_ema": weights(1), "state_dict": weights(), "optimizer": {"state": {0: {"m": torch.eye(2)}}}},
    "yolo": {"model": weights(), "ema": weights(1), "epoch": 3},
    "swa": {"state_dict": weights(), "swa_state_dict": prefixed("module", weights(1))},
    "swa model": {"net": weights(), "swa_model": weights(1)},
    "nested": {"model": weights(), "model_ema": {"module": weights(1), "decay": 0.99}},
    "lightning": {"state_dict": {**prefixed("model", weights()), **prefixed("ema_model.module", weights(1))}},
    "flat": {**prefixed("net", weights()), **prefixed("net_ema", weights(1)), "net_ema.initted": torch.tensor(1)},
    "student": {"state_dict": {**prefixed("student", weights()), **prefixed("teacher", weights(1))}},
    "parallel": prefixed("module", {**prefixed("online_model", weights()), **prefixed("ema_model", weights(1))}),
}


@pytest.mark.parametrize("content", TWO_SETS.values(), ids=TWO_SETS)
def test_the_weights_as_trained_are_taken_and_the_average_is_named(content):
    value, notes = taken(content)
    assert value == 0
    assert "2 sets of weights" in notes
    assert "running average" in notes
    assert "--weight-set" in notes
    assert taken(content, "average")[0] == 1


def test_a_set_is_taken_by_its_name():
    content = {"state_dict": weights(), "state_dict_ema": weights(1), "best": {"net": weights(2)}}
    assert taken(content, "state_dict_ema") == (1, "")
    assert taken(content, "best.net") == (2, "")
    assert taken(content, "trained") == (0, "")
    assert "best.net" in taken(content)[1]
    with pytest.raises(ConfigurationError, match=r"no set 'swa'.*state_dict_ema"):
        choose_set(content, "swa")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": weights()},
        weights(),
        {"ema": weights()},
        {"state_dict": weights(), "state_dict_ema": weights()},  # the same values
        {"generator": weights(), "discriminator": {"fc.weight": torch.ones(1, 2)}},
        {"model": {"name": "resnet"}, "weights": weights()},
    ],
)
def test_one_set_needs_no_word(content):
    assert taken(content) == (0, "")


def test_a_part_of_the_network_is_no_average_of_it():
    """Two paths of one network, of which one is called like an average."""
    state = {"fast.conv.weight": torch.ones(4, 3, 3, 3), "shadow.conv.weight": torch.ones(8, 3, 5, 5)}
    chosen = choose_set(state)
    assert chosen.content.keys() == state.keys()
    assert not chosen.notes


def test_parts_in_dictionaries_of_their_own_are_one_network():
    chosen = choose_set(
        {"encoder": {"conv.weight": torch.eye(2)}, "classifier": {"fc.weight": torch.eye(3)}, "epoch": 1}
    )
    assert chosen.content.keys() == {"encoder.conv.weight", "classifier.fc.weight"}


def test_words_of_averages():
    assert all(map(is_average, ("ema", "model_ema", "ema_model", "swa_state_dict", "averaged-model", "params.ema")))
    assert not any(map(is_average, ("schema", "state_dict", "avgpool", "emanuel", "model")))


def test_notes_come_with_the_file(tmp_path):
    torch.save(TWO_SETS["timm"], tmp_path / "w.pth")
    assert "state_dict_ema" in read_weights(tmp_path / "w.pth").notes[0]
    assert float(read_weights(tmp_path / "w.pth", "average").tensors["conv.weight"].mean()) == 1
