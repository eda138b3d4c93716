"""`securitynet train`: train a target, and keep its recipe and split beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.options import configured
from securitynet.models.train_config import TrainConfig

if TYPE_CHECKING:
    from securitynet.models.trained import TrainedModel
    from securitynet.models.training import History


@configured(TrainConfig, positional=("architecture",))
def train(
    config: TrainConfig,
    json: Annotated[bool, typer.Option("--json", help="Print the facts about the model as JSON to stdout.")] = False,
) -> None:
    """Train a target on the members of a split; the default recipe is ML-Doctor's.

    Writes NAME.safetensors and NAME.json. A run that was killed goes on where it stopped and gives the same weights.

    Example: securitynet train simple-cnn --dataset digits --epochs 60 --out model.safetensors
    """
    from securitynet.defenses import DEFENSES

    if config.defense is not None:
        DEFENSES.resolve(config.defense)
    from securitynet.models.artefacts import train_model

    with _epochs_bar() as progress:
        path, trained = train_model(config, progress=progress, note=_note)
    if json:
        console.print_json({"weights": str(path), **trained.facts()})
    else:
        show(path, trained)


@contextmanager
def _epochs_bar() -> Iterator[Callable[[int, int, History], None]]:
    """A progress display on stderr: epochs, training accuracy, time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("epochs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=console.stderr, transient=True) as display:
        task = display.add_task("", total=None)

        def update(done: int, total: int, history: History) -> None:
            words = f"train accuracy {history.train_accuracy[-1]:.3f}"
            display.update(task, completed=done, total=total, description=words)

        yield update


def _note(text: str) -> None:
    console.stderr.print(text, markup=False)


def show(path: Path, trained: TrainedModel) -> None:
    """Print what was trained, in a few lines on stdout."""
    stopped = " (stopped early)" if trained.history.stopped_early else ""
    console.stdout.print(
        f"{trained.architecture} on {trained.dataset.reference}, {trained.epochs_run} epochs{stopped}: "
        f"train accuracy {trained.train_accuracy:.4f}, test accuracy {trained.test_accuracy:.4f}, "
        f"overfitting {trained.overfitting:+.4f}",
        markup=False,
    )
    console.stdout.print(f"Weights: {path}", markup=False, soft_wrap=True)
    console.stdout.print(f"Facts:   {path.with_suffix('.json')}", markup=False, soft_wrap=True)
