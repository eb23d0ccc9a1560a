"""The settings of validate.py and infer.py. They import no PyTorch, so that --help is quick."""

from dataclasses import dataclass

from csl.labels.options import DataOptions
from csl.ranges import DEFAULT_BATCH_SIZE


@dataclass(kw_only=True)
class NetworkOptions:
    """Which network runs, and how.

    Attributes:
        model_path: a checkpoint, an exported file, the folder of a run or the name of published weights; None for the
            best checkpoint of the run in `path_dest`, else of the last run (`csl.inference.sources.checkpoint_path`).
        weights_key: which of the state dicts in the file (`csl.checkpoint.read`); None to look for it.
        model_name: the network's name, needed for a foreign file of a timm network.
        num_classes: the number of classes that the file is expected to have.
        image_size: side or (H, W) in pixels; None for the size that the network was trained with.
        background: the colour that transparent images are laid over, or "none" (`csl.data.images.load_pixels`); None for that
            of the training.
        device: "cuda", "cuda:1", "cpu"; None for a GPU if there is one.
        amp: "auto", "bf16", "fp16" or "off" (`csl.predict.scoring.autocast_dtype`).
        abn: None to fold InPlace-ABN into the convolutions, or the backend that runs its layers.
        compile: compile the network when it first runs.
        engine: what runs the network on a CPU, one of `csl.engines.ENGINES`.
        batch_size: images at a time, in each process.
        workers: processes that decode images; None for one a core.
        cache: folder where resized photos are kept for the next time.
    """

    model_path: str | None = None
    weights_key: str | None = None
    model_name: str | None = None
    num_classes: int | None = None
    image_size: int | tuple[int, int] | None = None
    background: str | None = None
    device: str | None = None
    amp: str = "auto"
    abn: str | None = None
    compile: bool = False
    engine: str = "auto"
    batch_size: int = DEFAULT_BATCH_SIZE
    workers: int | None = None
    cache: str | None = None


@dataclass(kw_only=True)
class ValidateOptions(NetworkOptions, DataOptions):
    """The flags of `validate.py` (`csl.cli.validate` explains each).

    Attributes:
        split: "train", "val" or "test".
        thre: threshold of P_C ... F_O, in [0, 1].
        prior_path: CSV of the class prior that the estimated mAP rests on; None for that of the network's run.
        path_dest: folder of the results; None for the run's folder, or ./outputs.
        plots: draw pictures, too.
        plot_classes: names of the classes whose precision-recall curves are drawn; implies `plots`.
        calibrate: make calibration and thresholds of these images and keep them with the network (`csl.decisions`).
        target: what the thresholds are to reach, as `csl.decisions.Goal.parse` takes it; None for the best F1.
    """

    split: str = "val"
    thre: float = 0.8
    prior_path: str | None = None
    path_dest: str | None = None
    plots: bool = False
    plot_classes: list[str] | None = None
    calibrate: bool = False
    target: str | None = None


@dataclass(kw_only=True)
class InferenceOptions(NetworkOptions, DataOptions):
    """The flags of `infer.py` (`csl.cli.infer` explains each).

    Attributes:
        pic_path: an image, a folder, or a list file with a path a line; None for the validation images of the run.
        all_val_inference: name all validation images instead of the first few.
        dataset_type: "OpenImages" shows names instead of MIDs.
        class_description_path: file of the names of MIDs; None for `CLASS_DESCRIPTIONS`.
        th: least score of a class that is named, in [0, 1]; None for the thresholds that the network's file holds
            (`csl.decisions`), else 0.97 (OpenImages) or 0.7.
        top_k: most classes named for an image, 1 or more.
        path_dest: results go to its folder `results`; None for the run's folder, or ./outputs.
        output: the table, .csv or .parquet; None for predictions.csv among the results.
        heatmap: draw where in the first images their classes were seen.
    """

    pic_path: str | None = None
    all_val_inference: bool = False
    dataset_type: str | None = None
    class_description_path: str | None = None
    th: float | None = None
    top_k: int = 30
    path_dest: str | None = None
    output: str | None = None
    heatmap: bool = False
