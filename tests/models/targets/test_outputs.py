"""What networks return, brought into one row of class scores per image."""

import collections

import pytest
import torch
from torch import nn

import securitynet
from securitynet.errors import SecurityNetError, TargetError
from securitynet.models.loading.load import load_target
from securitynet.models.targets.outputs import AdaptedNetwork, adapt_outputs, expand_single, find_part

SHAPE = (3, 8, 8)


class Returns(nn.Module):
    """Three class scores, handed back in the form that a function makes of (scores, features)."""

    def __init__(self, form, width=3):
        super().__init__()
        self.body = nn.Linear(192, 5)
        self.head = nn.Linear(5, width)
        self.form = form

    def forward(self, images):
        features = self.body(images.flatten(1))
        return self.form(self.head(features), features)


class Output:
    def __init__(self, logits, hidden):
        self.logits, self.hidden = logits, hidden


Named = collections.namedtuple("Named", ["features", "logits"])

FORMS = {
    "tensor": lambda scores, features: scores,
    "map of 1x1": lambda scores, features: scores[:, :, None, None],
    "dict": lambda scores, features: {"features": features, "logits": scores},
    "dict without a usual name": lambda scores, features: {"a": features, "b": scores},
    "object": Output,
    "auxiliary": lambda scores, features: (scores, scores + 1),
    "features first": lambda scores, features: (features, scores),
    "named tuple": lambda scores, features: Named(features, scores),
    "list of one": lambda scores, features: [scores],
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_found(form):
    network = Returns(FORMS[form])
    expected = network.head(network.body(torch.ones(2, 192)))
    adapted, notes = adapt_outputs(network, SHAPE, classes=3, reference="net")
    if form in ("tensor", "auxiliary", "list of one"):
        assert adapted is network and len(notes) == (form == "auxiliary")
    else:
        assert torch.equal(adapted(torch.ones(2, *SHAPE)), expected)
        assert notes or form == "map of 1x1"


def test_outputs_of_one_shape_are_counted():
    network = Returns(lambda scores, features: [scores, scores + 1, scores + 2, features])
    adapted, notes = adapt_outputs(network, SHAPE, classes=3, reference="net")
    assert adapted is network
    assert len(notes) == 1 and "3 outputs of shape 3; the first is taken" in notes[0] and "python:" in notes[0]


@pytest.mark.parametrize("keepdim", [False, True])
def test_labels_are_told_from_scores(keepdim):
    network = Returns(lambda scores, features: scores.argmax(1, keepdim=keepdim))
    with pytest.raises(TargetError, match="labels of classes, not their scores") as error:
        load_target(network, input_size=8, normalize="none", device="cpu")
    assert "one_hot" in error.value.hint


def test_whole_numbers_for_each_class_are_scores():
    network = Returns(lambda scores, features: (100 * scores).round().int())
    target = load_target(network, input_size=8, normalize="none", device="cpu")
    assert target.raw_outputs(torch.ones(2, *SHAPE)).shape == (2, 3)


def test_a_second_argument_is_named():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 3)

        def forward(self, images, timestep):
            return self.head(images.flatten(1)) + timestep

    with pytest.raises(TargetError, match="needs more than images: its forward also takes 'timestep'") as error:
        load_target(Two(), input_size=8, normalize="none", device="cpu")
    assert "Wrap it" in error.value.hint


def test_what_is_not_plain_is_refused_and_says_what_to_return():
    with pytest.raises(TargetError, match=r"'a' of shape 2×5, 'b' of shape 2×7.*images × classes"):
        find_part({"a": torch.ones(2, 5), "b": torch.ones(2, 7)}, 3, "net")
    with pytest.raises(TargetError, match=r"returns str.*images × classes"):
        find_part("nothing", 3, "net")
    with pytest.raises(TargetError, match="not plain"):
        find_part((torch.ones(2, 5), torch.ones(2, 3), torch.ones(2, 3)), 3, "net")


@pytest.mark.parametrize("sigmoid", [nn.Sigmoid(), torch.sigmoid, torch.Tensor.sigmoid, nn.functional.sigmoid])
def test_logits_before_a_sigmoid_are_exact_even_where_it_saturates(sigmoid):
    network = Returns(lambda scores, features: sigmoid(scores))
    nn.init.constant_(network.head.bias, 40.0)  # the sigmoid of 40 is exactly 1 in float32
    plain = Returns(lambda scores, features: scores)
    plain.load_state_dict(network.state_dict())
    adapted, notes = adapt_outputs(network, SHAPE, classes=3, reference="net")
    images = torch.rand(4, *SHAPE, requires_grad=True)
    assert bool((network(images) == 1).all())
    assert torch.equal(adapted(images), plain(images))
    (gradient,) = torch.autograd.grad(adapted(images)[:, 0].sum(), images)
    (wanted,) = torch.autograd.grad(plain(images)[:, 0].sum(), images)
    assert torch.equal(gradient, wanted) and float(gradient.abs().sum()) > 0
    assert any("sigmoid" in note for note in notes)


def test_a_sigmoid_inside_the_network_is_left_alone():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Sigmoid(), nn.Linear(4, 3))
    assert adapt_outputs(network, SHAPE, classes=3, reference="net") == (network, [])


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_one_score_becomes_two_whose_posteriors_are_those_of_the_sigmoid(kind):
    z = torch.tensor([[-3.0], [0.0], [2.0]])
    scores = expand_single(z if kind == "logit" else z.sigmoid(), kind)
    posteriors = scores.softmax(1) if kind == "logit" else scores
    assert torch.allclose(posteriors[:, 1:], z.sigmoid(), atol=1e-7)
    assert torch.allclose(posteriors.sum(1), torch.ones(3))


def test_one_output_is_told_from_its_last_operation():
    logit, notes = adapt_outputs(Returns(lambda s, f: s, 1), SHAPE, classes=2, reference="net")
    assert isinstance(logit, AdaptedNetwork) and logit.single == "logit" and "one output for two classes" in notes[0]
    squeezed, _ = adapt_outputs(Returns(lambda s, f: s.sigmoid()[:, 0], 1), SHAPE, classes=2, reference="net")
    assert isinstance(squeezed, AdaptedNetwork) and squeezed.before_sigmoid and squeezed.single == "logit"
    by_hand, _ = adapt_outputs(Returns(lambda s, f: 1 / (1 + (-s).exp()), 1), SHAPE, classes=2, reference="net")
    assert isinstance(by_hand, AdaptedNetwork) and by_hand.single == "probability"
    images = torch.rand(5, *SHAPE)
    assert squeezed(images).shape == (5, 2) and torch.allclose(by_hand(images).sum(1), torch.ones(5))


def test_a_network_that_fails_on_the_probe_is_left_for_its_first_use():
    network = nn.Linear(7, 2)
    assert adapt_outputs(network, SHAPE, classes=2, reference="net") == (network, [])


FACTORY = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, {width})
    def forward(self, images):
        scores = self.head(self.body(images).relu().flatten(1))
        return {result}
def make():
    return Net()
"""


@pytest.mark.parametrize(
    ("width", "result", "said"),
    [
        (10, "{'logits': scores, 'hidden': images}", "logits"),
        (10, "scores.sigmoid()", "sigmoid"),
        (10, "(images.mean((2, 3)), scores)", "number 1"),
        (10, "scores[:, :, None, None]", ""),
    ],
)
def test_a_target_with_unusual_outputs_is_a_white_box_like_any_other(width, result, said, tmp_path, digits):
    (tmp_path / "net.py").write_text(FACTORY.replace("{width}", str(width)).replace("{result}", result))
    torch.manual_seed(0)
    target = securitynet.load_target(f"python:{tmp_path}/net.py:make", dataset=digits, normalize="none")
    assert said in " ".join(target.notes)
    images = digits.batch(digits.parts["test"][:4]).float() / 255
    images.requires_grad_(True)
    target.module(images).sum().backward()
    assert float(images.grad.abs().sum()) > 0
    assert target.num_classes == 10 and target.head == "logits"
    assert target.embeddings(images.detach()).shape == (4, 4 * 36)
    assert torch.allclose(target.module(images).detach(), target.logits(images.detach()), atol=1e-5)


def test_one_output_for_more_than_two_classes_is_refused(tmp_path, digits):
    (tmp_path / "net.py").write_text(FACTORY.replace("{width}", "1").replace("{result}", "scores"))
    with pytest.raises(SecurityNetError, match="2 classes"):
        securitynet.load_target(f"python:{tmp_path}/net.py:make", dataset=digits, normalize="none")
