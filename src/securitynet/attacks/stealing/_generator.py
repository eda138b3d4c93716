"""Generated queries: a generator searches for inputs on which two students of the target disagree.

After Beetham et al., "Dual student networks for data-free model stealing" (2023). Where two students of the same
target disagree, at least one of them is wrong, so their disagreement replaces the gradient that a black-box target
does not give. Every query therefore also trains the students, whereas estimating the gradient by finite differences
(Truong et al., 2021) spends most queries on the generator alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from securitynet.attacks.stealing._interface import complete_posteriors
from securitynet.devices import resolve_device, use_deterministic_kernels
from securitynet.models.targets.query_count import compute_image_keys
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState
from securitynet.models.training.trainable import build_trainable
from securitynet.randomness import derive_seed, isolate_random_state, make_generator
from securitynet.records import Queries

_LATENT = 64
_WIDTH = 64


@dataclass(frozen=True)
class GeneratorSettings:
    """Settings of the search for images.

    Attributes:
        queries: Number of images to generate and query.
        batch: Images per round.
        student: Architecture of the two students.
        student_steps: Steps of the students per round; half of each batch is new images, half earlier ones.
        generator_steps: Steps of the generator per round.
        balance: Weight of the entropy of the mean posterior, which keeps the generator from collapsing to one class.
        learning_rate: Learning rate of Adam, for all three networks.
    """

    queries: int
    batch: int
    student: str
    student_steps: int
    generator_steps: int
    balance: float
    learning_rate: float


class QueryGenerator(nn.Module):
    """The generator: maps latent vectors to images in [0, 1].

    Args:
        shape: Shape (C, H, W) of the images.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.rows, self.columns = math.ceil(shape[1] / 4), math.ceil(shape[2] / 4)
        self.start = nn.Linear(_LATENT, _WIDTH * self.rows * self.columns)
        self.grow = nn.Sequential(
            nn.BatchNorm2d(_WIDTH),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.BatchNorm2d(_WIDTH),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(_WIDTH, _WIDTH // 2, 3, padding=1),
            nn.BatchNorm2d(_WIDTH // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(_WIDTH // 2, shape[0], 3, padding=1),
            nn.BatchNorm2d(shape[0]),
            nn.Sigmoid(),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Return images, N×C×H×W in [0, 1], for latent vectors, N×64."""
        maps = self.start(latent).view(-1, _WIDTH, self.rows, self.columns)
        images: torch.Tensor = self.grow(maps)
        return images[..., : self.shape[1], : self.shape[2]]


@dataclass(eq=False)
class QueriedImages:
    """The images generated so far, and the target's outputs for them.

    Attributes:
        images: N×C×H×W uint8, all different.
        outputs: Posteriors, N×K float32, or classes, N int64.
        classes: Number of classes, K.
    """

    images: torch.Tensor
    outputs: torch.Tensor
    classes: int


class Searcher:
    """Generates images, queries the target with them and trains on the outputs, round by round.

    Args:
        target: The target behind the declared interface.
        shape: Shape (C, H, W) of the target's images.
        search: Settings of the search.
        seed: Seed of all randomness.
        device: Device on which the three networks are trained.
        folder: Folder of the checkpoint; None stores none.
        fingerprint: Digest of everything that determines the search.
        query_counts: List to which the query counts are appended.
        progress: Called with the number of images queried so far and the total.
    """

    def __init__(
        self,
        target: Target,
        shape: tuple[int, int, int],
        search: GeneratorSettings,
        seed: int,
        device: str,
        folder: Path | None,
        fingerprint: str,
        query_counts: list[Queries],
        progress: Progress | None,
    ) -> None:
        self.target = target
        self.shape = shape
        self.search = search
        self.seed = seed
        self.device = resolve_device(device)
        self.file = None if folder is None else CheckpointFile(folder / "checkpoint", lambda _note: None)
        self.fingerprint = fingerprint
        self.query_counts = query_counts
        self.progress = progress
        self.round = 0
        self.seen: set[bytes] = set()

    def run(self) -> QueriedImages:
        """Search until all queries are spent; an interrupted search resumes from its last checkpoint."""
        with (
            isolate_random_state(),
            torch.inference_mode(False),
            torch.enable_grad(),
            use_deterministic_kernels(self.device),
        ):
            torch.manual_seed(derive_seed(self.seed, "generator"))
            self.generator = QueryGenerator(self.shape).to(self.device)
            queried = self._restored() or self._begin()
            while len(queried.images) < self.search.queries:
                self._learn(queried)
                self._query_next(queried)
                self.round += 1
                done = len(queried.images) >= self.search.queries
                if self.file and (done or self.file.due()):
                    self.file.write(self._state(queried))
            return queried

    def _begin(self) -> QueriedImages:
        """Query the first batch, which reveals the number of classes."""
        shape = torch.empty((0, *self.shape), dtype=torch.uint8)
        images = self._fresh(min(self.search.batch, self.search.queries), shape)
        outputs = self._query(images)
        queried = QueriedImages(images, outputs, self.target.num_classes or outputs.shape[1])
        self._make_students(queried.classes)
        return queried

    def _make_students(self, classes: int) -> None:
        channels, *sides = self.shape
        torch.manual_seed(derive_seed(self.seed, "students"))
        made = [build_trainable(self.search.student, classes, channels, max(sides)) for _ in range(2)]
        self.students = nn.ModuleList(made).to(self.device)
        rate = self.search.learning_rate
        self.learn = torch.optim.Adam(self.students.parameters(), rate)
        self.seek = torch.optim.Adam(self.generator.parameters(), rate, betas=(0.5, 0.999))

    def _learn(self, queried: QueriedImages) -> None:
        """Train the students on new and earlier outputs, then the generator on their disagreement."""
        torch.manual_seed(derive_seed(self.seed, "dropout", self.round))
        draws = make_generator(self.seed, "replay", self.round)
        size = self.search.batch
        self.students.train()
        self.students.requires_grad_(True)
        newest = torch.arange(max(0, len(queried.images) - size), len(queried.images))
        for _ in range(self.search.student_steps):
            earlier = torch.randint(0, len(queried.images), (len(newest),), generator=draws)
            rows = torch.cat([newest, earlier])
            inputs = _scaled(queried.images[rows].to(self.device).float() / 255)
            outputs = queried.outputs[rows].to(self.device)
            loss = torch.stack([functional.cross_entropy(student(inputs), outputs) for student in self.students]).sum()
            self.learn.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.learn.step()
        self.students.eval()
        self.students.requires_grad_(False)
        self.generator.train()
        for _ in range(self.search.generator_steps):
            latent = torch.randn(size, _LATENT, generator=draws).to(self.device)
            inputs = _scaled(self.generator(latent))
            one, two = (student(inputs).softmax(dim=1) for student in self.students)
            mean = ((one + two) / 2).mean(dim=0)
            entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
            loss = -(one - two).abs().sum(dim=1).mean() - self.search.balance * entropy
            self.seek.zero_grad(set_to_none=True)
            loss.backward()
            self.seek.step()

    def _query_next(self, queried: QueriedImages) -> None:
        images = self._fresh(min(self.search.batch, self.search.queries - len(queried.images)), queried.images)
        queried.outputs = torch.cat([queried.outputs, self._query(images)])
        queried.images = torch.cat([queried.images, images])
        if self.progress:
            self.progress(len(queried.images), self.search.queries)

    def _fresh(self, count: int, earlier: torch.Tensor) -> torch.Tensor:
        """Generate new images, uint8; an image that was queried before is replaced by random pixels."""
        draws = make_generator(self.seed, "latent", len(earlier))
        latent = torch.randn(self.search.batch, _LATENT, generator=draws).to(self.device)
        with torch.no_grad():
            # Batch statistics, as in training, because the generator changes faster than running means follow. Always a
            # whole batch, so that the images of a smaller budget are a prefix of those of a larger one.
            made: torch.Tensor = self.generator.train()(latent)
            images = (made[:count] * 255).round().to(torch.uint8).cpu()
        for row, key in enumerate(compute_image_keys(images)):
            while key in self.seen:
                images[row] = torch.randint(0, 256, images.shape[1:], generator=draws).to(torch.uint8)
                (key,) = compute_image_keys(images[row : row + 1])
            self.seen.add(key)
        return images

    def _query(self, images: torch.Tensor) -> torch.Tensor:
        parts = []
        for part in torch.split(images, self.target.batch_size):
            if self.target.head == "labels":
                parts.append(self.target.labels(part))
            else:
                parts.append(torch.from_numpy(complete_posteriors(self.target.posteriors(part).numpy())))
        self.query_counts.append(Queries(total=len(images), unique=len(images)))
        return torch.cat(parts)

    def _state(self, queried: QueriedImages) -> TrainingState:
        module = {
            **{f"generator.{name}": value for name, value in self.generator.state_dict().items()},
            **{f"students.{name}": value for name, value in self.students.state_dict().items()},
        }
        optimizers = {"learn": self.learn.state_dict(), "seek": self.seek.state_dict()}
        history = json.dumps({"classes": queried.classes})
        state = {"images": queried.images, "answers": queried.outputs}
        return TrainingState(self.fingerprint, self.round, module, optimizers, history, state)

    def _restored(self) -> QueriedImages | None:
        state = self.file.read(self.fingerprint) if self.file else None
        if state is None or state.best is None:
            return None
        images: torch.Tensor = state.best["images"]
        queried = QueriedImages(images, state.best["answers"], int(json.loads(state.history)["classes"]))
        self._make_students(queried.classes)
        for name, network in (("generator", self.generator), ("students", self.students)):
            start = f"{name}."
            values = {key.removeprefix(start): value for key, value in state.module.items() if key.startswith(start)}
            network.load_state_dict(values)
        self.learn.load_state_dict(state.optimizer["learn"])
        self.seek.load_state_dict(state.optimizer["seek"])
        self.round = state.epochs_done
        self.seen.update(compute_image_keys(queried.images))
        self.query_counts.append(Queries(total=len(queried.images), unique=len(queried.images)))
        return queried


def _scaled(images: torch.Tensor) -> torch.Tensor:
    """Scale images from [0, 1] to about mean 0 and standard deviation 1, and stretch them to squares."""
    side = max(images.shape[-2:])
    if images.shape[-2:] != (side, side):
        images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return (images - 0.5) * 4
