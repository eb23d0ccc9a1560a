"""What suggestions are made of: a run's network, the images of its data, and what is known of these."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from csl.data.dataset import BadImage, ImageDataset
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform
from csl.errors import InputError
from csl.inference.sources import annotations_for, as_trained, checkpoint_path, columns_of, load_predictor
from csl.labels import UNANNOTATED, Annotations
from csl.machine.draws import generator
from csl.models.heads import MLDecoderHead
from csl.predict import Predictor
from csl.predict.features import with_features
from csl.predict.scoring import autocast_dtype
from csl.runs.folder import RunFolder
from csl.suggest.earlier import held_out, trained_on
from csl.suggest.options import SuggestOptions

Say = Callable[[str], None]

SAMPLE_IMAGES, SAMPLE_ENTRIES = 20_000, 1 << 26
"""Most images, and most of their entries (image, class), that heads on frozen features are trained on."""


@dataclass(frozen=True)
class Seen:
    """What the network makes of one batch.

    Attributes:
        rows: int64 [B] of the annotations, those that could be read, in order.
        known: int8 [B, C] in {1, 0, -1}, what is known of them.
        logits: float32 [B, C] of the network.
        features: float32 [B, F], what its head takes in, averaged over the places of the image; with `--from_runs` the mean
            logits [B, C] of the runs that were not trained on the image.
    """

    rows: np.ndarray
    known: Tensor
    logits: Tensor
    features: Tensor


@dataclass
class Material:
    """What suggestions are made of.

    Attributes:
        run: the folder of the run.
        predictor: its network.
        annotations: N images of a split, their known labels [N, C] and classes.
        options: the flags.
        say: prints one line.
        columns: of the network's classes, that of each class of the annotations.
        earlier: the same of earlier runs (`--from_runs`), on the same images.
        trained: bool [R, N], whether each of these was trained on each image.
        bad: the images that could not be read, of the last time that `batches` was gone through.
    """

    run: RunFolder
    predictor: Predictor
    annotations: Annotations
    options: SuggestOptions
    say: Say
    columns: list[int] | slice
    earlier: tuple["Material", ...] = ()
    trained: np.ndarray | None = None
    bad: tuple[BadImage, ...] = ()
    _kept: list[Seen] | None = None

    @classmethod
    def gather(cls, options: SuggestOptions, say: Say) -> "Material":
        """Load the network and read the annotations that the options name.

        Raises:
            InputError: no such run or data, other classes than the network's, or an exported network, which has no features.
        """
        path = checkpoint_path(options.model_path)
        predictor = load_predictor(options, path, say, looks_inside="csl suggest")
        annotations, _ = annotations_for(
            options, options.split, predictor.config, predictor.classes, predictor.groups, path
        )
        for note in annotations.notes:
            say(f"{options.split}: {note}")
        run = RunFolder(path.parent)
        if options.split == "train" and options.data is None and (predictor.config or {}).get("simulate_partial_type"):
            annotations = as_trained(annotations, run)
            say(f"train: labels that the run has hidden are unknown, as {run.partial_labels} has them")
        say(f"{options.split}: {annotations.described()}")
        material = cls(run, predictor, annotations, options, say, columns_of(predictor, annotations, say))
        return material._beside(options.from_runs) if options.from_runs else material

    def _beside(self, folders):
        """The material with earlier runs in the place of folds of its own features."""
        options, say, earlier, trained = self.options, self.say, [], []
        for folder in folders:
            path = checkpoint_path(folder)
            predictor = load_predictor(options, path, say, looks_inside="csl suggest")
            columns = columns_of(predictor, self.annotations, say)
            earlier.append(replace(self, run=RunFolder(path.parent), predictor=predictor, columns=columns))
            trained.append(trained_on(self.annotations, earlier[-1].run, predictor))
        rows, line = held_out(self.annotations, np.array(trained), folders)
        say(line)
        annotations = self.annotations.select(rows)
        earlier = tuple(replace(one, annotations=annotations) for one in earlier)
        return replace(self, annotations=annotations, earlier=earlier, trained=np.array(trained)[:, rows])

    def batches(self, progress: str | None = None) -> Iterator[Seen]:
        """What the network makes of the images, batch by batch: memory does not grow with N, and of few images, whose batches
        are kept, the network runs once.
        """
        return self._scored(None, progress) if self._kept is None else iter(self._kept)

    def _scored(self, rows, progress):
        """`Seen` of the images, or of those of these rows [n], rising."""
        runs = [one._by_network(rows, None) for one in self.earlier]
        for seen, *others in zip(self._by_network(rows, progress), *runs, strict=True):
            if others:
                weight = torch.from_numpy(~self.trained[:, seen.rows]).float()[..., None]  # [R, B, 1]
                z = torch.stack([other.logits for other in others])  # [R, B, C]
                seen = replace(seen, features=(weight * z).sum(0) / weight.sum(0))
            yield seen

    def _by_network(self, rows, progress):
        """The same by the network alone."""
        part = self.annotations if rows is None else self.annotations.select(rows)
        predictor, options = self.predictor, self.options
        transform = EvalTransform(predictor.image_size, predictor.background)
        dataset = ImageDataset(part, transform, cache=open_cache(options.cache, part.images, transform, self.say))
        workers = default_workers() if options.workers is None else options.workers
        loader = create_loader(dataset, options.batch_size, workers if len(part) > options.batch_size else 0)
        dtype, bad = autocast_dtype(predictor.amp, predictor.device), []
        seen = with_features(predictor.model, _last_layer(predictor), loader, predictor.device, dtype, progress, bad)
        for batch, logits, taken in seen:
            features = taken.float()  # [B, F], or [B, F, H, W] of ML-Decoder and of a convolution
            features = features.flatten(2).mean(2) if features.dim() > 2 else features  # [B, F]
            places, logits = batch.indices.numpy(), logits[:, self.columns].float()
            yield Seen(places if rows is None else rows[places], batch.targets.cpu(), logits.cpu(), features.cpu())
        self.bad = tuple(bad)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, F] of the images of these rows [n], in any order and with repeats; 0 of one that cannot be read now."""
        distinct, places = np.unique(rows, return_inverse=True)
        found: np.ndarray | None = None
        for seen in self._kept or self._scored(distinct, "features"):
            mine = np.isin(seen.rows, distinct)
            if found is None:
                found = np.zeros((len(distinct), seen.features.shape[1]), np.float32)
            found[np.searchsorted(distinct, seen.rows[mine])] = seen.features.numpy()[mine]
        return found[places]

    def sample(self) -> tuple[np.ndarray, Tensor, Tensor]:
        """Images to train heads on: all of them, or `SAMPLE_IMAGES` drawn by the seed, those without a known label left out.

        Returns:
            int64 [n] their rows, rising; float32 [n, F] their features; int8 [n, C] what is known of them.

        Raises:
            InputError: no label is known, or no image can be read.
        """
        labels, source = self.annotations.labels, self.annotations.source
        rows = np.flatnonzero(np.diff(labels.indptr)) if labels.fill == UNANNOTATED else np.arange(len(labels))
        if not len(rows):
            raise InputError(f"{source}: no label of the {self.options.split} split is known, expected some")
        most = min(SAMPLE_IMAGES, max(1, SAMPLE_ENTRIES // len(self.annotations.classes)))
        if len(labels) <= most:
            seen = self._kept = list(self.batches("scoring"))
        else:
            if len(rows) > most:
                rows = np.sort(generator("held out", self.options.seed, 1).choice(rows, most, replace=False))
            seen = list(self._scored(rows, "features"))
        if not seen:
            raise InputError(f"{source}: none of {len(rows):,} images can be read; {self.bad[0].reason}")
        read = np.concatenate([one.rows for one in seen])
        chosen = np.isin(read, rows)
        return (
            read[chosen],
            torch.cat([one.features for one in seen])[chosen],
            torch.cat([one.known for one in seen])[chosen],
        )


def _last_layer(predictor) -> nn.Module:
    """The layer whose input are the features: ML-Decoder's head, else the last linear or convolutional one."""
    modules = list(predictor.model.modules())
    heads = [m for m in modules if isinstance(m, MLDecoderHead)] or [m for m in modules if hasattr(m, "exclusive")]
    if len(heads) != 1:
        raise InputError(
            f"the network ends in {len(heads)} layers for its classes, expected one; an exported network has no features, "
            "expected the checkpoint"
        )
    return heads[0]
