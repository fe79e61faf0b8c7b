"""The training loop, once for all frameworks: epochs, rates, validation, history, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lanline.errors import UserError
from lanline.networks.heads import exported_values
from lanline.networks.initial import initial_weights
from lanline.networks.specification import NetworkSpec, Standardisation
from lanline.training.backend import Backend, block_batches, start_backend, unflatten
from lanline.training.checkpoint import read_checkpoint, write_checkpoint
from lanline.training.job import Job, Metrics, Trained
from lanline.training.losses import loss_and_error
from lanline.training.reader import Piece, Reader, lowest_label, pieces_of, read_piece, training_rows
from lanline.training.schedule import Schedule

SAMPLE_PIECES = 50  # whose means and scales the inputs are standardised with
VALIDATION_ROWS = 100_000  # in memory at once
PARITY_ROWS = 1_000
SHOW_SECONDS = 0.5  # between lines about progress
ADVICE = "lower training.learning_rate or set training.gradient_clip"


@dataclass
class Progress:
    """Where a training is; all of it goes into the checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    history: list[Metrics] = field(default_factory=list)
    best_loss: float = math.inf
    waited: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0


def train(
    job: Job,
    checkpoint: Path | None,
    on_epoch: Callable[[Metrics, int], None],
    say: Callable[[str], None],
    note: Callable[[str], None] | None = None,
    show: Callable[[str], None] | None = None,
) -> Trained:
    """Train one network.

    Args:
        job: what to train, on what, and how.
        checkpoint: file to write the state to and to resume from; None for no checkpoints.
        on_epoch: is given each epoch's metrics and its number, from 1; after an interruption those before it again.
        say: is given a line for what is unusual.
        note: is given a line for each epoch; default: ``say``.
        show: is given lines about the progress inside an epoch, twice a second.

    Raises:
        UserError: a file cannot be read, the framework or device is not available, or the loss became NaN or infinite.
    """
    started = time.perf_counter()
    spec = job.spec
    pieces, validation = pieces_of(job.training_files, spec), pieces_of(job.validation_files, spec, VALIDATION_ROWS)
    for files, found in ((job.training_files, pieces), (job.validation_files, validation)):
        if not found:
            raise UserError(f"there are no rows in {', '.join(map(str, files))}")
    batch_size = min(job.settings.batch_size, sum(map(len, pieces)))  # one that is larger than the data is all of them
    settings = job.settings.model_copy(update={"batch_size": batch_size})
    some = np.concatenate([read_piece(piece, spec) for piece in pieces[:: -(-len(pieces) // SAMPLE_PIECES)]])
    floor = lowest_label(spec, settings.label_floor, some)
    prepared = training_rows(some, spec, floor)
    standardisation = Standardisation.of(prepared[:, : len(spec.features)])
    reader = Reader(
        pieces,
        spec,
        standardisation,
        batch_size,
        block_batches=block_batches(settings),
        buffer_rows=int(settings.buffer_gb * 1e9 / prepared[0].nbytes),
        seed=job.seed,
        label_floor=floor,
    )
    backend = start_backend(job.framework, spec, settings, initial_weights(spec, job.seed), job.threads)
    loop = TrainingLoop(job, backend, reader, validation, standardisation, Listeners(on_epoch, say, note or say, show))
    if checkpoint is not None:
        loop.checkpoints_to(checkpoint)
    start_up = time.perf_counter() - started
    loop.epochs()
    flat, kept = loop.result()
    backend.restore({**backend.state(), "parameters": flat}, loop.progress.step)
    timings = {
        "start_up": start_up,
        "training": sum(metrics["seconds"] for metrics in loop.progress.history),
        "validation": loop.progress.validation_seconds,
    }
    return Trained(
        weights=standardisation.fold(unflatten(spec, flat)),
        forward=lambda x: _exported(spec, backend, standardisation, x),
        sample=_sample(spec, validation[0]),
        history=loop.progress.history,
        kept=kept,
        timings={**timings, "total": sum(timings.values())},
        resumed=loop.resumed,
    )


def _exported(spec: NetworkSpec, backend: Backend, standardisation: Standardisation, x: np.ndarray) -> np.ndarray:
    """Values (n,) that the exported network must give for its raw inputs (n, D)."""
    features, leading = spec.prepare(x[:, : len(spec.inputs)])
    outputs = backend.predict(standardisation.apply(features))
    return exported_values(spec, outputs + leading if spec.structure else outputs, x[:, -1])


def _sample(spec: NetworkSpec, piece: Piece) -> np.ndarray:
    """Some inputs (n, D) as the exported network takes them."""
    rows = read_piece(piece, spec)[:PARITY_ROWS, : len(spec.inputs)]
    if spec.exported_inputs == spec.inputs:
        return rows
    return np.column_stack([rows, np.resize(np.array(spec.choices, rows.dtype), len(rows))])


@dataclass(frozen=True)
class Listeners:
    """Who is told of a training's progress: see `train`."""

    on_epoch: Callable[[Metrics, int], None]
    say: Callable[[str], None]
    note: Callable[[str], None]
    show: Callable[[str], None] | None


class TrainingLoop:
    """The state of one training in progress."""

    def __init__(
        self,
        job: Job,
        backend: Backend,
        reader: Reader,
        validation: Sequence[Piece],
        standardisation: Standardisation,
        listeners: Listeners,
    ) -> None:
        self.progress = Progress()
        self.resumed = False
        self._job, self._settings, self._backend, self._reader = job, job.settings, backend, reader
        self._validation, self._standardisation = validation, standardisation
        self._tell = listeners
        self._n_steps = job.settings.epochs * reader.n_batches
        self._schedule = Schedule(job.settings, self._n_steps)
        self._best: np.ndarray | None = None
        self._checkpoint: Path | None = None
        self._key = ""  # of the training, as its code and libraries were when it started
        self._saved = self._shown = self._began = time.perf_counter()

    # --- the loop ---
    def epochs(self) -> None:
        while self.progress.epoch < self._settings.epochs and not self._stopped_early():
            self._train_epoch()
            self._end_epoch()

    def _train_epoch(self) -> None:
        progress = self.progress
        self._began = time.perf_counter()
        step, running = progress.step, None
        for rows, index in self._reader.blocks(progress.epoch, progress.batch):
            rates = self._schedule.rates(step, len(index))
            begun = self._backend.run_block(rows, index, rates), index, rates
            step += len(index)
            # A block's losses are looked at while the next one runs: the device need not wait for the loop.
            if running:
                self._end_block(*running)
            running = begun
            if time.perf_counter() - self._saved > 60 * self._settings.checkpoint_minutes:
                self._end_block(*running)
                running = None
                if progress.batch < self._reader.n_batches:
                    self._save()
        if running:
            self._end_block(*running)

    def _end_block(self, losses_of: Callable[[], np.ndarray], index: np.ndarray, rates: np.ndarray) -> None:
        progress, losses = self.progress, losses_of()
        if not np.isfinite(losses).all():
            step = progress.step + 1 + int(np.argmin(np.isfinite(losses)))
            raise UserError(f"the loss became NaN or infinite in epoch {progress.epoch + 1}, step {step}: {ADVICE}")
        progress.loss_sum += float(losses.sum(dtype=np.float64)) * index.shape[1]
        progress.batch += len(index)
        progress.step += len(index)
        now = time.perf_counter()
        progress.seconds += now - self._began
        self._began = now
        if self._tell.show and now - self._shown > SHOW_SECONDS:
            self._shown = now
            self._tell.show(self._how_far(rates))

    def _end_epoch(self) -> None:
        progress = self.progress
        began = time.perf_counter()
        validation = self._validate()
        if not math.isfinite(validation["validation_loss"]):
            raise UserError(f"the validation loss is NaN or infinite after epoch {progress.epoch + 1}: {ADVICE}")
        progress.validation_seconds += time.perf_counter() - began
        metrics = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / self._reader.n_rows,
            **validation,
            "learning_rate": float(self._schedule.rates(progress.step - 1, 1)[0]),
            "seconds": round(progress.seconds, 3),
            "rows_per_second": round(self._reader.n_rows / progress.seconds),
        }
        self._schedule.end_epoch(validation["validation_loss"])
        if validation["validation_loss"] < progress.best_loss:
            progress.best_loss, progress.waited = validation["validation_loss"], 0
            self._best = self._backend.state()["parameters"]
        else:
            progress.waited += 1
        progress.history.append(metrics)
        progress.epoch, progress.batch, progress.loss_sum, progress.seconds = progress.epoch + 1, 0, 0.0, 0.0
        self._save()
        self._tell.on_epoch(metrics, progress.epoch)
        self._tell.note(
            f"epoch {progress.epoch}/{self._settings.epochs}  loss {metrics['train_loss']:.4g}  "
            f"validation loss {metrics['validation_loss']:.4g}  MAE {metrics['validation_mae']:.4g}  "
            f"{metrics['rows_per_second']:,} rows/s  {metrics['seconds']:.1f} s"
        )

    def _stopped_early(self) -> bool:
        patience = self._settings.early_stopping
        stopped = patience is not None and self.progress.waited >= patience
        if stopped:
            self._tell.say(f"stopped after epoch {self.progress.epoch}: no lower validation loss for {patience} epochs")
        return stopped

    def _validate(self) -> Metrics:
        """Mean loss and mean absolute error over all validation rows, piece by piece."""
        loss = error = 0.0
        n = 0
        for piece in self._validation:
            spec = self._job.spec
            rows = training_rows(read_piece(piece, spec, self._reader.floor), spec, self._reader.floor)
            n_features = len(spec.features)
            outputs = self._backend.predict(self._standardisation.apply(rows[:, :n_features]))
            losses, errors = loss_and_error(spec, self._settings, outputs, rows[:, n_features:])
            loss += float(losses.sum(dtype=np.float64))
            error += float(errors.sum(dtype=np.float64))
            n += len(piece)
        return {"validation_loss": loss / n, "validation_mae": error / n}

    def result(self) -> tuple[np.ndarray, Metrics]:
        """Parameters and metrics of the epoch that the settings ask for: the last or the best."""
        history = self.progress.history
        if self._settings.keep == "best":
            assert self._best is not None, "an epoch has ended"
            return self._best, min(history, key=lambda metrics: metrics["validation_loss"])
        return self._backend.state()["parameters"], history[-1]

    # --- checkpoints ---
    def checkpoints_to(self, path: Path) -> None:
        """Write checkpoints to ``path``, and resume from an existing one if it is of this training."""
        self._checkpoint, self._key = path, self._job.key()
        found = read_checkpoint(path, self._key)
        if found is None:
            if path.exists():
                other = "of other settings, data, code, libraries or number of threads"
                self._tell.say(f"{path} is a checkpoint {other}: starting from scratch; it will be overwritten")
            return
        arrays, saved = found
        self.resumed = True
        self._schedule.restore(saved.pop("schedule"))
        self.progress = Progress(**saved)
        self._best = arrays.pop("best", None)
        self._backend.restore(arrays, self.progress.step)
        for number, metrics in enumerate(self.progress.history, start=1):
            self._tell.on_epoch(metrics, number)  # it may not have been told of the last one, or be another run's
        done = self.progress.epoch == self._settings.epochs
        where = "all epochs are done" if done else f"epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
        self._tell.say(f"resuming from {path}: {where}")

    def _save(self) -> None:
        self._saved = time.perf_counter()
        if self._checkpoint is None:
            return
        arrays = self._backend.state() | ({} if self._best is None else {"best": self._best})
        progress: dict[str, Any] = {**asdict(self.progress), "schedule": self._schedule.state()}
        write_checkpoint(self._checkpoint, self._key, arrays, progress)

    # --- what the person who waits sees ---
    def _how_far(self, rates: np.ndarray) -> str:
        """One line; its loss is the mean over the epoch so far, which ends as the epoch's own."""
        progress, reader = self.progress, self._reader
        rows = min(progress.batch * reader.batch_size, reader.n_rows)
        speed = rows / progress.seconds
        left = (self._n_steps - progress.step) * reader.batch_size / speed
        return (
            f"epoch {progress.epoch + 1}/{self._settings.epochs}  {progress.batch / reader.n_batches:4.0%}  "
            f"left {int(left) // 60}:{int(left) % 60:02d}  "
            f"loss {progress.loss_sum / rows:.4g}  rate {rates[-1]:.2g}  {speed:,.0f} rows/s"
        )
