"""DCGANs: shapes of all sizes, a training that survives interruption bit for bit, and a store that trains once."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import start_script
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError, DatasetError, ModelError
from securitynet.models.gan import GANTraining, obtain_gan
from securitynet.models.gan.networks import Discriminator, GANGenerator, choose_layout

TINY = GANTraining(steps=6, width=4, batch_size=16, previews=2)
RECORDS = np.arange(0, 200, 2, dtype=np.int64)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr("securitynet.models.training.checkpoints._SHARE_OF_TIME", float("inf"))


def weights(gan):
    networks = gan.generator, gan.discriminator
    return {f"{n}.{k}": v.numpy().tobytes() for n, m in enumerate(networks) for k, v in m.state_dict().items()}


def colour(side, count=32):
    images = torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageDataset("noise", images, np.arange(count, dtype=np.int64) % 2, ("a", "b"), {})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 29, 30, 32, 48, 64, 100])
def test_any_size_comes_out_and_goes_in(channels, size):
    doublings, side = choose_layout(size)
    assert 4 <= side <= 8 and side * 2**doublings >= size
    made = GANGenerator(100, channels, size, 4)
    images = made(torch.randn(3, 100))
    assert images.shape == (3, channels, size, size)
    assert float(images.detach().min()) >= 0 and float(images.detach().max()) <= 1
    assert Discriminator(channels, size, 4)(images).shape == (3,)


def test_gradients_reach_the_noise_through_both_networks():
    made, judge = GANGenerator(10, 1, 30, 4).folded(), Discriminator(1, 30, 4).eval()
    noise = torch.randn(2, 10, requires_grad=True)
    judge(made(noise)).sum().backward()
    assert (noise.grad.abs().sum(dim=1) > 0).all()


def test_folding_changes_nothing():
    made = GANGenerator(20, 3, 32, 8)
    made.train()
    with torch.no_grad():
        for _ in range(5):
            made(torch.randn(16, 20))
        noise = torch.randn(4, 20)
        expected = made.eval()(noise)
        torch.testing.assert_close(made.folded()(noise), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels, size, words", [(4, 32, "channels"), (3, 7, "too small")])
def test_what_cannot_be_built_is_said(channels, size, words):
    with pytest.raises(ModelError, match=words):
        GANGenerator(100, channels, size, 8)
    with pytest.raises(ModelError, match=words):
        Discriminator(channels, size, 8)


def test_errors_before_any_training(digits):
    with pytest.raises(ConfigurationError, match="too few"):
        obtain_gan(digits, RECORDS[:10], TINY)
    with pytest.raises(ModelError, match="too small"):
        obtain_gan(dataclasses.replace(digits, images=digits.images[..., :6]), RECORDS, TINY)
    with pytest.raises((ConfigurationError, DatasetError), match="no images"):
        obtain_gan(dataclasses.replace(digits, images=None), RECORDS, TINY)


def test_the_same_whatever_was_drawn_before_and_other_with_another_seed(digits):
    first = obtain_gan(digits, RECORDS, TINY, device="cpu")
    before = torch.random.get_rng_state()
    torch.manual_seed(5)
    assert weights(obtain_gan(digits, RECORDS, TINY, device="cpu")) == weights(first)
    torch.random.set_rng_state(before)
    obtain_gan(digits, RECORDS, TINY, device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())
    assert weights(obtain_gan(digits, RECORDS, TINY, seed=1, device="cpu")) != weights(first)


def test_interrupted_after_any_step_the_weights_are_the_same(digits, tmp_path, every_step):
    expected = weights(obtain_gan(digits, RECORDS, TINY, device="cpu"))

    class Interrupted(Exception):
        pass

    for stop in range(1, TINY.steps + 1):

        def stop_there(done, _total, stop=stop):
            if done == stop:
                raise Interrupted

        cache, told = tmp_path / str(stop), []
        with pytest.raises(Interrupted):
            obtain_gan(digits, RECORDS, TINY, cache=cache, device="cpu", progress=stop_there)
        again = obtain_gan(
            digits, RECORDS, TINY, cache=cache, device="cpu", progress=lambda done, _total, told=told: told.append(done)
        )
        assert weights(again) == expected
        assert told == list(range(stop + 1, TINY.steps + 1)), "no step is done twice"


KILLED = """
import sys
from pathlib import Path
import numpy as np
import torch
import securitynet.datasets
import securitynet.models.training.checkpoints as checkpoints
from securitynet.models.gan import GANTraining, obtain_gan

torch.set_num_threads(1)
checkpoints._SHARE_OF_TIME = float("inf")
training = GANTraining(steps=100000, width=4, batch_size=16, previews=0)
digits = securitynet.datasets.load("digits")
obtain_gan(digits, np.arange(0, 200, 2), training, cache=Path(sys.argv[1]), device="cpu",
           progress=lambda done, total: print(done, flush=True))
"""


def test_killed_in_the_middle_it_goes_on_with_the_same_numbers(digits, tmp_path, every_step):
    with start_script(KILLED, tmp_path) as process:
        for _ in range(3):
            assert process.stdout.readline()
        time.sleep(0.05)
        process.kill()
    (folder,) = (tmp_path / "gans").iterdir()
    assert not (folder / "gan.json").exists()
    # Nobody waits for 100,000 steps: the rest of this run, and the whole of the other, end a few steps later.
    from securitynet.models.training.checkpoints import CheckpointFile

    done = CheckpointFile(folder / "checkpoint", print).read(folder.name).epochs_done
    assert done >= 3
    resumed, whole = (_weights_after(digits, cache, done + 4) for cache in (tmp_path, tmp_path / "other"))
    assert resumed == whole


def _weights_after(digits, cache, stop):
    """The checkpoint after so many steps of the training that the killed process was asked for."""
    from securitynet.models.training.checkpoints import CheckpointFile

    class Enough(Exception):
        pass

    def until(done, _total):
        if done == stop:
            raise Enough

    training = GANTraining(steps=100000, width=4, batch_size=16, previews=0)
    with pytest.raises(Enough):
        obtain_gan(digits, RECORDS, training, cache=cache, device="cpu", progress=until)
    folder = next(path for path in (cache / "gans").iterdir())
    state = CheckpointFile(folder / "checkpoint", print).read(folder.name)
    assert state.epochs_done == stop
    return {f"{n}.{k}": v.numpy().tobytes() for n, module in state.module.items() for k, v in module.items()}


def test_a_stored_gan_is_not_trained_again_and_a_damaged_one_is(digits, tmp_path):
    steps = []
    options = {"cache": tmp_path, "device": "cpu", "progress": lambda done, _total: steps.append(done)}
    first = obtain_gan(digits, RECORDS, TINY, **options)
    assert len(steps) == TINY.steps
    again = obtain_gan(digits, RECORDS, TINY.model_copy(update={"previews": 0}), **options)
    assert len(steps) == TINY.steps, "grids on the way decide nothing"
    assert weights(again) == weights(first) and again.history == first.history
    stored = tmp_path / "gans" / first.key / "weights.safetensors"
    stored.write_bytes(stored.read_bytes()[:-8])
    assert weights(obtain_gan(digits, RECORDS, TINY, **options)) == weights(first)
    assert len(steps) == 2 * TINY.steps


def test_other_data_settings_and_seeds_have_other_places(digits, tmp_path):
    found = {
        obtain_gan(digits, RECORDS, TINY, cache=tmp_path, device="cpu").key,
        obtain_gan(digits, RECORDS + 1, TINY, cache=tmp_path, device="cpu").key,
        obtain_gan(digits, RECORDS, TINY, seed=1, cache=tmp_path, device="cpu").key,
        obtain_gan(digits, RECORDS, TINY.model_copy(update={"steps": 5}), cache=tmp_path, device="cpu").key,
        obtain_gan(colour(8, 200), RECORDS, TINY, cache=tmp_path, device="cpu").key,
    }
    assert len(found) == 5


def test_sample_grids_along_the_way(tmp_path):
    gan = obtain_gan(colour(30), np.arange(32), TINY, cache=tmp_path, device="cpu")
    assert [path.name for path in sorted(gan.previews.iterdir())] == ["step-000003.png", "step-000006.png"]
    with Image.open(gan.previews / "step-000006.png") as grid:
        assert grid.size == (8 * 31 - 1, 8 * 31 - 1) and grid.mode == "RGB"


def test_fewer_images_than_a_batch_and_single_ones_left_over():
    for count in (16, 17, 33):
        gan = obtain_gan(colour(8, count), np.arange(count), TINY, device="cpu")
        for network in (gan.generator, gan.discriminator):
            assert all(value.isfinite().all() for value in network.state_dict().values())
        made = gan.generator(torch.randn(3, 100, generator=torch.Generator().manual_seed(0)))
        assert made.shape == (3, 3, 8, 8) and made.min() >= 0 and made.max() <= 1


@pytest.mark.slow
def test_it_learns_what_the_images_look_like(digits):
    """Random images of an untrained generator are far from the digits' mean and spread; those of a trained one near."""
    records = np.arange(600)
    real = digits.batch(records).float() / 255
    apart = []
    for steps in (1, 300):
        gan = obtain_gan(digits, records, GANTraining(steps=steps, width=16, previews=0), device="cpu")
        with torch.no_grad():
            made = gan.generator(torch.randn(500, 100, generator=torch.Generator().manual_seed(0)))
        mean = (made.mean(dim=0) - real.mean(dim=0)).square().mean()
        apart.append(float(mean + (made.std(dim=0) - real.std(dim=0)).square().mean()))
    assert apart[1] < 0.04 < 0.1 < apart[0]
