"""NetworkThreads: the same outputs, one thread each, nothing shared but weights."""

import os
import threading

import pytest
import torch
from torch import nn

from securitynet.models.targets.threads import (
    NetworkThreads,
    compute_equal_size,
    leave_cores_to_threads,
    share_thread_pool,
)


class Remembering(nn.Module):
    """Keeps something in an attribute between two of its steps, as some public networks do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 5)

    def forward(self, x):
        self.kept = self.first(x)
        torch.linalg.svd(torch.ones(40, 40) + torch.eye(40))  # leaves time for another thread
        return self.second(self.kept.relu())


def test_outputs_are_in_order_and_nothing_is_mixed_up():
    network = Remembering().requires_grad_(False)
    inputs = torch.randn(200, 8)
    alone = NetworkThreads(network, 1).map(lambda module, part: module(part), inputs, 7)
    torch.testing.assert_close(alone, network(inputs))
    threads = NetworkThreads(network, 3)
    for _ in range(5):
        together = threads.map(lambda module, part: module(part), inputs, 7)
        assert torch.equal(together, alone), "the number of threads changes nothing, not even rounding"


def test_one_thread_of_a_process_of_one_is_the_callers():
    used = []

    def call(module, part):
        used.append((threading.get_ident(), torch.is_inference_mode_enabled()))
        return module(part)

    with torch.inference_mode():
        NetworkThreads(nn.Linear(3, 2).requires_grad_(False), 1).map(call, torch.zeros(8, 3), 4)
    assert used == 2 * [(threading.get_ident(), False)], "and in the mode that a thread of its own would be in"


def test_weights_are_shared_between_threads():
    network = Remembering().requires_grad_(False)
    threads = NetworkThreads(network, 2)
    network.second.bias.fill_(1e6)
    assert (threads.map(lambda module, part: module(part), torch.zeros(4, 8), 1) > 1e5).all()


def test_threads_use_one_core_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    pool = share_thread_pool(3)
    assert set(pool.map(lambda _: torch.get_num_threads(), range(12))) == {1}
    assert torch.get_num_threads() == before


def test_errors_come_through_and_threads_go_on():
    threads = NetworkThreads(nn.Linear(3, 2).requires_grad_(False), 2)
    with pytest.raises(RuntimeError):
        threads.map(lambda module, part: module(part), torch.zeros(8, 4), 1)
    assert threads.map(lambda module, part: module(part), torch.zeros(8, 3), 1).shape == (8, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_threads_of_its_own():
    threads = NetworkThreads(nn.Linear(3, 2).requires_grad_(False), 2)
    call = lambda: threads.map(lambda module, part: module(part), torch.zeros(8, 3), 1)  # noqa: E731
    call()
    child = os.fork()
    if child == 0:
        os._exit(0 if call().shape == (8, 2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(("count", "most", "size"), [(0, 8, 1), (1, 8, 1), (16, 8, 8), (17, 8, 5), (80, 64, 40)])
def test_an_even_number_of_equal_parts(count, most, size):
    assert compute_equal_size(count, most) == size
    parts = -(-count // size)
    assert size <= most and (parts % 2 == 0 or parts == 1)


def test_cores_are_left_to_threads_and_come_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with leave_cores_to_threads(torch.device("cpu")):
            assert torch.get_num_threads() == 1
            with leave_cores_to_threads(torch.device("cpu")):
                assert NetworkThreads(nn.Linear(2, 2)).count == 2, "threads made in here are as many as elsewhere"
            assert NetworkThreads(nn.Linear(2, 2)).count == 2
        with leave_cores_to_threads(torch.device("cuda")):
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), leave_cores_to_threads(torch.device("cpu")):
            raise KeyError
        assert torch.get_num_threads() == 2
        assert NetworkThreads(nn.Linear(2, 2)).count == 2
    finally:
        torch.set_num_threads(before)
