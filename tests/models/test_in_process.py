"""Architectures given as Python objects: names by content, fresh weights, and clear words where that can't be."""

import functools
import importlib.util
import itertools

import pytest
import torch
from torch import nn

from securitynet.errors import ModelError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.architectures.in_process import register_factory, register_module, reinitialise

SOURCE = """
import torch
from torch import nn

WIDTH = 4

def scale():
    return 2

class Net(nn.Module):
    def __init__(self, classes, bias=True):
        super().__init__()
        self.fc = nn.Linear(WIDTH * scale(), classes, bias=bias)

    def forward(self, images):
        return self.fc(images.flatten(1))

def make(num_classes, channels=1):
    return Net(num_classes)

def closed(bias):
    def make(num_classes):
        return Net(num_classes, bias)
    return make
"""
COUNT = itertools.count()


def module(tmp_path, text=SOURCE):
    """The user's module, as another run of a script would import it."""
    path = tmp_path / f"user_{next(COUNT)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_equal_code_has_an_equal_name_and_it_builds_the_network(tmp_path):
    name = register_factory(module(tmp_path).make)
    assert name == register_factory(module(tmp_path).make)
    assert name.startswith("make@") and name in ARCHITECTURES and name not in list(ARCHITECTURES)
    assert ARCHITECTURES.get(name)(7, channels=1, image_size=2).fc.out_features == 7


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return Net(num_classes)", "return Net(num_classes, False)"),
        ("WIDTH = 4", "WIDTH = 8"),
        ("return 2", "return 4"),
        ("images.flatten(1)", "images.flatten(1).relu()"),
        ("channels=1", "channels=3"),
    ],
)
def test_other_code_has_another_name(tmp_path, old, new):
    assert register_factory(module(tmp_path).make) != register_factory(module(tmp_path, SOURCE.replace(old, new)).make)


def test_only_what_the_code_looks_up_counts(tmp_path):
    text = SOURCE.replace("images.flatten(1)", "images.unused.flatten(1)") + "\nunused = 1\n"
    name = register_factory(module(tmp_path, text).make)
    assert name == register_factory(module(tmp_path, text.replace("unused = 1", "unused = 2")).make)


def test_code_that_is_reached_through_a_module_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for width in (3, 4):
        helper = f"digest_helper_{width}"
        (tmp_path / f"{helper}.py").write_text(f"def width():\n    return {width}\n")
        text = f"import {helper} as helper\n" + SOURCE.replace("WIDTH * scale()", "helper.width()")
        names.append(register_factory(module(tmp_path, text).make))
    assert names[0] != names[1]


def test_closures_partials_and_lambdas_count(tmp_path):
    made = module(tmp_path)
    names = [register_factory(made.closed(bias)) for bias in (True, False, True)]
    assert names[0] == names[2] != names[1]
    partials = [register_factory(functools.partial(made.Net, bias=bias)) for bias in (True, False)]
    assert partials[0] != partials[1]
    widths = [register_factory(lambda num_classes, width=width: nn.Linear(width, num_classes)) for width in (2, 3)]
    assert widths[0] != widths[1]


def test_code_without_source_is_told_apart():
    scopes = [{"nn": nn}, {"nn": nn}, {"nn": nn}]
    for scope, width in zip(scopes, (2, 3, 2), strict=True):
        exec(f"def make(num_classes):\n    return nn.Linear({width}, num_classes)", scope)
    names = [register_factory(scope["make"]) for scope in scopes]
    assert names[0] == names[2] != names[1]


def test_an_object_of_another_process_is_said_to_be_one():
    with pytest.raises(ModelError, match=r"given as a Python object in another process.*python:FILE:FACTORY"):
        ARCHITECTURES.resolve("make@0123456789ab")


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def test_copies_of_a_network_start_from_fresh_weights_and_trained_ones_are_no_part_of_its_name():
    model = network()
    name = register_module(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(False).add_(1.0)
        model[2].running_mean.fill_(5.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert register_module(model) == name == register_factory(model)
    torch.manual_seed(0)
    one, two = (ARCHITECTURES.get(name)(3) for _ in range(2))
    torch.manual_seed(0)
    again = ARCHITECTURES.get(name)(3)
    assert torch.equal(one[1].weight, again[1].weight) and not torch.equal(one[1].weight, two[1].weight)
    assert not torch.equal(one[1].weight, model[1].weight) and float(one[2].running_mean.abs().max()) == 0
    assert all(parameter.requires_grad for parameter in one.parameters()) and one.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    wider = nn.Sequential(nn.Flatten(), nn.Linear(4, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
    assert register_module(wider) != name


class Scale(nn.Module):
    """Has a parameter that nothing can reset."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images * self.factor


class Half(nn.Linear):
    """Resets its weight and leaves another parameter."""

    def __init__(self):
        super().__init__(4, 3)
        self.extra = nn.Parameter(torch.ones(3))

    def reset_parameters(self):
        super().reset_parameters()


@pytest.mark.parametrize(("layer", "words"), [(Scale(), "Scale.*reset_parameters"), (Half(), "extra keeps its value")])
def test_parameters_that_no_layer_resets_are_refused(layer, words):
    with pytest.raises(ModelError, match=words):
        register_module(nn.Sequential(nn.Flatten(), layer))


def test_attention_of_torch_is_reset():
    attention = nn.MultiheadAttention(4, 2)
    before = attention.in_proj_weight.detach().clone()
    reinitialise(attention)
    assert not torch.equal(before, attention.in_proj_weight)


def test_what_makes_no_network_is_refused():
    with pytest.raises(ModelError, match="makes no network"):
        register_factory(3)
