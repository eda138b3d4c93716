"""Time shadow models: in parallel, one after another, bare training loops, a second use, and all with vmap.

On a CPU the store trains a model on each thread. With vmap, convolutions with a set of weights for each model become
grouped ones, which CPU kernels are slow at. It would also need networks without batch norm, and would not be the one
trainer, whose runs go on where they were stopped.

Usage: python benchmarks/shadows.py [--count N] [--epochs N] [--architecture A] [--dataset D] [--size N] [--threads N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from securitynet.datasets import load, splits
from securitynet.models.architectures.factory import build
from securitynet.models.shadows import ShadowPlan, obtain_shadow_outputs
from securitynet.models.shadows.outputs import plan_specs
from securitynet.models.shadows.plan import resolve_training
from securitynet.models.store.parallel import obtain_models
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = load(arguments.dataset, size=arguments.size)
    parts = splits.four_way(dataset)
    plan = ShadowPlan(count=arguments.count, architecture=arguments.architecture, recipe={"epochs": arguments.epochs})
    pool = plan.records(parts)
    half = len(pool) // 2
    images, labels = dataset.batch(pool).float() / 255, torch.from_numpy(dataset.labels[pool])

    def network() -> torch.nn.Module:
        return build(arguments.architecture, dataset.num_classes, *dataset.image_shape[:2])

    target = Target(ModuleBackend(network(), reference="arch:none", checksum="benchmark", example_shape=None))
    rows = [torch.randperm(len(pool))[:half] for _ in range(arguments.count)]

    def bare_loops() -> None:
        for chosen in rows:
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)
            for _ in range(arguments.epochs):
                for batch in torch.split(chosen[torch.randperm(half)], 64):
                    optimizer.zero_grad()
                    functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                    optimizer.step()

    def all_with_vmap() -> None:
        models = [network() for _ in rows]
        weights, buffers = stack_module_state(models)
        if buffers:
            raise NotImplementedError("This architecture holds buffers (batch norm), which vmap cannot update.")
        template = models[0]

        def loss(values, inputs, classes):
            return functional.cross_entropy(functional_call(template, values, (inputs,)), classes)

        gradients = vmap(grad(loss))
        optimizer = torch.optim.SGD(list(weights.values()), lr=1e-2, momentum=0.9, weight_decay=5e-4)
        for _ in range(arguments.epochs):
            orders = torch.stack([chosen[torch.randperm(half)] for chosen in rows])
            for batch in torch.split(orders, 64, dim=1):
                found = gradients(
                    {name: value.detach() for name, value in weights.items()}, images[batch], labels[batch]
                )
                for name, value in weights.items():
                    value.grad = found[name]
                optimizer.step()

    with tempfile.TemporaryDirectory() as folder:

        def store() -> None:
            obtain_shadow_outputs(target, dataset, parts, pool, plan, cache=Path(folder), device="cpu")

        def one_after_another() -> None:
            training = resolve_training(plan, target, None, None)
            obtain_models(plan_specs(dataset, parts, plan, training, 1), kind="shadows", device="cpu", threads=1)

        network()(images[:64]).sum().backward()  # the first use of torch is slower
        times: dict[str, float] = {}
        for name, run in (
            ("bare loops", bare_loops),
            ("store, one after another", one_after_another),
            ("store, in parallel, with outputs", store),
            ("store, second use", store),
            ("all at once with vmap", all_with_vmap),
        ):
            start = time.perf_counter()
            try:
                run()
            except NotImplementedError as error:
                print(error)
                continue
            times[name] = time.perf_counter() - start
    shape = "×".join(map(str, dataset.image_shape))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {arguments.count} shadow models "
        f"({arguments.architecture}), {half} records of {shape} each, {arguments.epochs} epochs"
    )
    for name, seconds in times.items():
        print(f"{name:34} {seconds:7.2f} s  ratio {seconds / times['bare loops']:.2f}")


if __name__ == "__main__":
    main()
