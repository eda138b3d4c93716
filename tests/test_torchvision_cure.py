"""What imports torchvision goes through the cure: tried in processes of their own, where nothing imported it before."""

import pytest

from command_line import start_script

MODELS = [
    "timm:resnet10t.c3_in1k",
    pytest.param("torchvision:squeezenet1_1@IMAGENET1K_V1", marks=pytest.mark.slow),
    pytest.param("pytorchcv:resnet20_cifar10", marks=pytest.mark.slow),
]
OPEN = """
import sys
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources import open_source
assert not {"torchvision", "timm", "pytorchcv"} & set(sys.modules)
source = open_source(parse_reference(sys.argv[1]))
assert "torchvision" in sys.modules
print(source.architecture)
"""


@pytest.mark.parametrize("reference", MODELS)
def test_a_reference_is_opened_where_torchvision_was_never_imported(reference):
    with start_script(OPEN, reference) as process:
        assert process.stdout.read().strip()
        assert process.wait() == 0
