"""`securitynet train`: train a target, and write its model record beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.options import add_config_options
from securitynet.models.training.config import TrainConfig

if TYPE_CHECKING:
    from securitynet.models.store.model_record import TargetRecord
    from securitynet.models.training.fit import History
    from securitynet.models.training.poisoned_dataset import BackdoorRecord
    from securitynet.models.training.training_defense import DefenseRecord


@add_config_options(TrainConfig, positional=("architecture",))
def train(
    config: TrainConfig,
    db: Annotated[
        str | None,
        typer.Option("--db", help="The catalog's database for catalog:ENTRY: a URL or a SQLite file.", metavar="URL"),
    ] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="Python file with defenses, datasets or architectures of your own.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the model record as JSON to stdout.")] = False,
) -> None:
    """Train a target on the members of a split; the default recipe is ML-Doctor's.

    Writes NAME.safetensors and NAME.json. A run that was killed continues where it stopped and gives the same weights.

    Example: securitynet train simple-cnn --dataset digits --epochs 60 --out model.safetensors

    A good model in little time: securitynet train airbench --dataset cifar10 --recipe fast --out model.safetensors
    """
    from securitynet.assessments.prepare_training import prepare_training
    from securitynet.catalog.location import using
    from securitynet.memory import keep_freed_memory
    from securitynet.models.store.train_target import train_model
    from securitynet.plugins import load_plugin

    keep_freed_memory()
    for file in plugin or ():
        load_plugin(file)
    requested = config
    config, defense, backdoor = prepare_training(config)
    if advised := [
        f"{name.replace('_', ' ')} {value}"
        for name, value in config.chosen_recipe
        if value != getattr(requested.chosen_recipe, name)
    ]:
        _note(f"{config.defense} changes the defaults of the recipe: {', '.join(advised)}.")
    with using(db), _epochs_bar() as progress:
        path, trained = train_model(config, defense=defense, backdoor=backdoor, progress=progress, note=_note)
    if json:
        console.print_json({"weights": str(path), **trained.document()})
    else:
        show_training(path, trained, config)


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


def describe_defense(defense: DefenseRecord) -> list[str]:
    """The effect of the training defense, in a few lines."""
    lines = [f"Defense: {defense.name}"]
    if defense.set_aside:
        lines[0] += f"; {defense.set_aside} training records were set aside for it"
    if (privacy := defense.privacy) is not None:
        lines.append(
            f"Privacy: epsilon {privacy.epsilon:.3f} at delta {privacy.delta:g} ({privacy.accountant} accountant; "
            f"noise multiplier {privacy.noise_multiplier:.3f}, clipping bound {privacy.clipping_bound:g}, "
            f"{privacy.steps} steps at sampling rate {privacy.sample_rate:.4f})"
        )
    if (teacher := defense.teacher) is not None:
        lines.append(
            f"Teacher: {teacher.architecture} ({teacher.weights:,} weights against {teacher.student_weights:,}), "
            f"train accuracy {teacher.train_accuracy:.4f}, test accuracy {teacher.test_accuracy:.4f}; "
            f"the student agrees with it on {teacher.agreement:.4f} of {teacher.records} non-members"
        )
    return [*lines, *defense.notes]


def describe_backdoor(backdoor: BackdoorRecord) -> str:
    """The backdoor and its success rate, in a line."""
    goals = {"all-to-all": "the next class", "several": "several classes", "all-to-one": f"class {backdoor.target}"}
    goal = goals[backdoor.mapping]
    works = (
        ""
        if backdoor.success is None
        else (f"; the trigger sends {backdoor.success:.1%} of {backdoor.tried} non-members there")
    )
    if backdoor.took is False:
        from securitynet.models.training.poisoned_dataset import TOOK  # imports torch

        works += f". It did not take (below {TOOK:.0%}), and detectors are not judged by it"
    return f"Backdoor: {backdoor.name}, to {goal}, in {backdoor.poisoned} training records{works}"


def show_training(path: Path, trained: TargetRecord, config: TrainConfig) -> None:
    """Print a summary of the trained model on stdout."""
    from securitynet.assessments.audit_config import AuditConfig
    from securitynet.reports.settings import write_command_line

    stopped = " (stopped early)" if trained.history.stopped_early else ""
    console.stdout.print(
        f"{trained.architecture} on {trained.dataset.reference}, {trained.epochs_run} epochs{stopped}: "
        f"train accuracy {trained.train_accuracy:.4f}, test accuracy {trained.test_accuracy:.4f}, "
        f"overfitting {trained.overfitting:+.4f}",
        markup=False,
    )
    if trained.defense is not None:
        for line in describe_defense(trained.defense):
            console.stdout.print(line, markup=False, soft_wrap=True)
    if trained.backdoor is not None:
        console.stdout.print(describe_backdoor(trained.backdoor), markup=False, soft_wrap=True)
    if trained.canaries is not None:
        included = sum(trained.canaries.included)
        known = () if ":" in config.architecture else ("architecture",)  # by its name, from the record
        command = write_command_line("audit", str(path), AuditConfig, config.model_dump(mode="json"), {"out", *known})
        console.stdout.print(
            f"Canaries: {len(trained.canaries.records)} ({trained.canaries.kind}), {included} of them trained on; "
            f"see `{command}`",
            markup=False,
            soft_wrap=True,
        )
    console.stdout.print(f"Weights: {path}", markup=False, soft_wrap=True)
    console.stdout.print(f"Record:  {path.with_suffix('.json')}", markup=False, soft_wrap=True)
    console.stdout.print(f"Assess:  {write_next_command(path, config)}", markup=False, soft_wrap=True)


def write_next_command(path: Path, config: TrainConfig) -> str:
    """The command that assesses the trained model on the data that it was trained with."""
    from securitynet.assessments.config import AssessConfig
    from securitynet.datasets.options import ImageOptions
    from securitynet.reports.settings import write_command_line

    network = config.architecture if ":" in config.architecture else f"arch:{config.architecture}"
    names = ("dataset", "data_root", "channels", "image_size", "limit", *ImageOptions.model_fields)
    given = {name: getattr(config, name) for name in names if name in AssessConfig.model_fields}
    given["data_root"] = None if config.data_root is None else str(config.data_root)
    return write_command_line("assess", network, AssessConfig, {"weights": str(path), **given})
