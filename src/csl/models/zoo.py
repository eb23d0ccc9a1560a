"""Published weights by name: what there is, where it is from, and the file on this disk.

The files are those of the original repositories and of timm. A name stands for a path wherever weights are asked for:
`--model_path csl_opim_86.72`. CSL_ZOO_URL in the environment names a mirror with the same layout.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csl.errors import InputError, in_words
from csl.machine.download import check_reachable, download, file_sha256
from csl.machine.files import write_json
from csl.models.description import Architecture

BASE_URL = "https://miil-public-eu.oss-eu-central-1.aliyuncs.com/model-zoo/"
FOLDER = Path("pretrained_weights")
"""Where files are kept, below the working folder."""

HASHES = "hashes.json"
"""In `FOLDER`: file name -> SHA-256 and length as first downloaded. The publishers give none."""

TIMM = "timm/"


@dataclass(frozen=True)
class Published:
    """One published file; what is not known without the file itself is None.

    Attributes:
        name: what it is called here.
        file: path below `BASE_URL`; for timm's, its name at the model hub.
        architecture: name in `csl.models.CONFIGS` and head.
        image_size: pixels of a side that it was trained or tuned at.
        data: what it was trained on.
        mAP: published, in percent.
        note: any other published figure.
    """

    name: str
    file: str
    architecture: Architecture
    data: str
    image_size: int | None = None
    mAP: float | None = None
    note: str = ""


def _csl(name, file, network, mAP):
    architecture = Architecture(network, "bottleneck", 9605)
    return Published(f"csl_opim_{name}", f"CSL/opim_v6/{file}.pth", architecture, "OpenImages V6", 224, mAP)


def _imagenet(size, suffix):
    name = f"tresnet_{size}{suffix}"
    architecture = Architecture(f"tresnet_{size}", "linear", 1000)
    return Published(f"{name}_in1k", f"tresnet/{name}.pth", architecture, "ImageNet-1k", 448 if suffix else 224)


def _asl(name, file, network, data, num_classes, image_size, mAP=None, head="linear"):
    architecture = Architecture(network, head, num_classes)
    return Published(f"asl_{name}", f"ASL/{file}.pth", architecture, data, image_size, mAP)


def _ml_decoder(name, file, network, data, num_classes, image_size=None, mAP=None, note="", num_groups=None):
    architecture = Architecture(network, "ml_decoder", num_classes, num_groups)
    return Published(f"mldecoder_{name}", f"ML_Decoder/{file}.pth", architecture, data, image_size, mAP, note)


def _timm(tag, network, data, num_classes, image_size=224):
    return Published(f"{TIMM}{tag}", tag, Architecture(network, "linear", num_classes), data, image_size)


_ALL = (
    _csl("ignore", "mtresnet_opim_ignore", "tresnet_m", 85.38),
    _csl("negative", "mtresnet_opim_negative", "tresnet_m", 85.85),
    _csl("86.72", "mtresnet_opim_86.72", "tresnet_m", 86.72),
    _csl("87.34", "ltresnet_v2_opim_87.34", "tresnet_l_v2", 87.34),
    *(_imagenet(size, suffix) for size in ("m", "l", "xl") for suffix in ("", "_448")),
    Published("cars_l_v2_96.27", "tresnet/stanford_cars_tresnet-l-v2_96_27.pth",
              Architecture("tresnet_l_v2", "linear", 196), "Stanford Cars", note="accuracy 96.27"),
    _asl("coco_m_224_81.8", "MS_COCO_TRresNet_M_224_81.8", "tresnet_m", "COCO 2014", 80, 224, 81.8),
    _asl("coco_l_448_86.6", "MS_COCO_TRresNet_L_448_86.6", "tresnet_l", "COCO 2014", 80, 448, 86.6),
    _asl("coco_xl_640_88.4", "MS_COCO_TResNet_xl_640_88.4", "tresnet_xl", "COCO 2014", 80, 640, 88.4),
    _asl("opim_l_448", "Open_ImagesV6_TRresNet_L_448", "tresnet_l", "OpenImages V6", None, 448, head=None),
    _asl("voc_xl_448_96.0", "PASCAL_VOC_TResNet_xl_448_96.0", "tresnet_xl", "Pascal VOC", 20, 448, 96.0),
    _asl("nuswide_l_448_65.2", "NUS_WIDE_TRresNet_L_448_65.2", "tresnet_l", "NUS-WIDE", 81, 448, 65.2),
    _ml_decoder("coco_m_224_84.2", "tresnet_m_COCO_224_84_2", "tresnet_m", "COCO 2014", 80, 224, 84.2),
    _ml_decoder("coco_l_448_90.0", "tresnet_l_COCO__448_90_0", "tresnet_l", "COCO 2014", 80, 448, 90.0),
    _ml_decoder("coco_xl_640_91.4", "tresnet_xl_COCO_640_91_4", "tresnet_xl", "COCO 2014", 80, 640, 91.4),
    _ml_decoder("opim_m_86.8", "tresnet_m_open_images_200_groups_86_8", "tresnet_m", "OpenImages V6", 9605, mAP=86.8,
                num_groups=200),
    _ml_decoder("cars_l_96.41", "tresnet_l_stanford_card_96.41", "tresnet_l", "Stanford Cars", 196,
                note="accuracy 96.41"),
    _timm("tresnet_m.miil_in21k", "tresnet_m", "ImageNet-21k-P", 11221),
    _timm("tresnet_m.miil_in21k_ft_in1k", "tresnet_m", "ImageNet-21k-P, then 1k", 1000),
    *(_timm(f"tresnet_{size}.miil_in1k{suffix}", f"tresnet_{size}", "ImageNet-1k", 1000, 448 if suffix else 224)
      for size in ("m", "l", "xl") for suffix in ("", "_448")),
    _timm("tresnet_v2_l.miil_in21k", "tresnet_v2_l", "ImageNet-21k-P", 11221),
    _timm("tresnet_v2_l.miil_in21k_ft_in1k", "tresnet_v2_l", "ImageNet-21k-P, then 1k", 1000),
)  # fmt: skip

PUBLISHED: dict[str, Published] = {entry.name: entry for entry in _ALL}


def is_published(name: str | Path) -> bool:
    """Whether `fetch` knows the name: one of `PUBLISHED`, or `timm/` and any network of timm with weights at its hub."""
    name = str(name)
    return name in PUBLISHED or (name.startswith(TIMM) and name.count("/") == 1 and not name.endswith(".safetensors"))


def pretrained_name(model_name: str) -> str | None:
    """The published weights that a network of that name starts from unless others are named; None where there are none.

    Of a TResNet the first of timm's, which for `tresnet_m` are those of ImageNet-21k, as in CSL's published training; of a
    network of timm those of its tag, or of its first.
    """
    for entry in _ALL:
        if entry.name.startswith(TIMM) and entry.architecture.name == model_name:
            return entry.name
    config = _timm_config(model_name)
    return f"{TIMM}{model_name}" if config is not None and config.hf_hub_id else None


def local_path(name: str, folder: str | Path = FOLDER) -> Path:
    """Where the file of that name lies once it is there, or is put by hand."""
    if name.startswith(TIMM):
        return Path(folder) / f"{name.removeprefix(TIMM)}.safetensors"
    return Path(folder) / Path(PUBLISHED[name].file).name


def hint(path: str | Path) -> str:
    """What to say of a missing file: the name that downloads it where it is a published one, else where names are."""
    entry = next((e for e in _ALL if Path(e.file).name == Path(path).name and not e.name.startswith(TIMM)), None)
    if entry is None:
        return "a published name (`python -m csl zoo` lists them)"
    return f"{entry.name}, which downloads it"


def fetch(name: str, folder: str | Path = FOLDER, check: Callable[[Path], object] | None = None) -> Path:
    """The file of published weights, downloaded where it is not there yet, compared with its recorded hash where it is.

    A file put there by hand has no recorded hash and is taken as it is.

    Args:
        name: see `is_published`.
        folder: where files are kept; timm's are kept by its own hub client, and looked for here first.
        check: called with a new file before it is accepted; raises InputError where it cannot be read.

    Raises:
        InputError: an unknown name, a file that changed since its download, or a download that failed; it says where to
            put the file by hand.
    """
    if not is_published(name):
        raise InputError(f"{name}: no published weights of this name, `python -m csl zoo` lists them")
    folder, path = Path(folder), local_path(name, folder)
    recorded = _recorded(folder).get(path.name, {}).get("sha256")
    if path.is_file():
        if recorded not in (None, found := file_sha256(path)):
            raise InputError(
                f"{path}: SHA-256 {found}, expected {recorded} as first downloaded; delete the file to have it "
                f"downloaded again, or its line in {folder / HASHES} to keep it"
            )
        return path
    if name.startswith(TIMM):
        return _fetch_timm(name, path)
    url = (os.environ.get("CSL_ZOO_URL") or BASE_URL).rstrip("/") + "/" + PUBLISHED[name].file
    print(f"downloading {url} to {path}", flush=True)
    try:
        found = download(url, path, recorded, check)
    except InputError as error:
        raise InputError(f"{name}: not downloaded, {error}; by hand, the file goes to {path}") from error
    _record(folder, path, found)
    return path


def _fetch_timm(name, by_hand):
    """timm's weights, by its hub's own client and cache: HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE work as everywhere."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    config = _timm_config(name.removeprefix(TIMM))
    if config is None or not config.hf_hub_id:
        raise InputError(f"{name}: timm has no weights of this name at its hub; by hand, the file goes to {by_hand}")
    file, endpoint = config.hf_hub_filename or "model.safetensors", os.environ.get("HF_ENDPOINT")
    if isinstance(
        cached := try_to_load_from_cache(config.hf_hub_id, file), str
    ):  # without asking: a tag stays what it is
        return Path(cached)
    try:
        if not constants.HF_HUB_OFFLINE:
            check_reachable(endpoint or constants.ENDPOINT)  # its client tries for half a minute
        return Path(hf_hub_download(config.hf_hub_id, file, endpoint=endpoint))
    except (OSError, HfHubHTTPError, ValueError) as error:
        reason = in_words(error)
        raise InputError(
            f"{name}: not downloaded from the hub's {config.hf_hub_id} ({reason}); by hand, its model.safetensors "
            f"goes to {by_hand}"
        ) from error


def _timm_config(name):
    """timm's record of a network or of one of its weights; None where it has none."""
    import timm

    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # a known network, an unknown tag
        return None


def _recorded(folder):
    path = folder / HASHES
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}), expected file names with their SHA-256") from error


def _record(folder, path, sha256):
    hashes = _recorded(folder) | {path.name: {"sha256": sha256, "bytes": path.stat().st_size}}
    write_json(folder / HASHES, dict(sorted(hashes.items())))
