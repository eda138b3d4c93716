"""What imports torchvision goes through the cure: tried in processes of their own, where nothing imported it before."""

import subprocess
import sys

import pytest

MODELS = [
    "timm:resnet10t.c3_in1k",
    pytest.param("torchvision:squeezenet1_1@IMAGENET1K_V1", marks=pytest.mark.slow),
    pytest.param("pytorchcv:resnet20_cifar10", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("reference", MODELS)
def test_a_reference_is_opened_in_a_fresh_process(reference):
    code = (
        "import sys\n"
        "from securitynet.models.sources.references import parse_reference\n"
        "from securitynet.models.sources import open_source\n"
        "from securitynet.models.sources.base import Shape\n"
        "source = open_source(parse_reference(sys.argv[1]))\n"
        "print(source.architecture)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, reference], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip()
