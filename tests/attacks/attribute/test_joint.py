"""A joint attribute has the values of several together, as ML-Doctor's Male × Young on CelebA."""

import numpy as np
import pytest

from securitynet.attacks.attribute.base import choose_attributes, join_attributes
from securitynet.datasets.base import Attribute
from securitynet.datasets.loading import load
from securitynet.errors import UnknownName

MALE = Attribute(np.array([0, 0, 1, 1, -1, 1]), ("female", "male"))
YOUNG = Attribute(np.array([0, 1, 0, 1, 1, -1]), ("old", "young"))


def test_values_are_the_combinations_and_gaps_stay_gaps() -> None:
    joint = join_attributes([MALE, YOUNG])
    assert joint.names == ("female old", "female young", "male old", "male young")
    assert joint.values.tolist() == [0, 1, 2, 3, -1, -1]


def test_digits_have_slant_thickness_and_both() -> None:
    digits = load("digits")
    both = choose_attributes(digits, ["slant*stroke-thickness", "slant"])
    joint, slant = both["slant*stroke-thickness"], both["slant"]
    thick = digits.attributes["stroke-thickness"].values
    assert len(joint.names) == 4 and np.array_equal(joint.values, 2 * slant.values + thick)
    with pytest.raises(UnknownName):
        choose_attributes(digits, ["slant*age"])
