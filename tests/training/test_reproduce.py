"""What made a run: bit-equal with --deterministic, everything in config.json, and the command again."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import differing, outcome, without_pictures

from csl import InputError
from csl.__main__ import main as tools
from csl.cli import parsing
from csl.cli import train as train_flags
from csl.garments import make_garments
from csl.labels import Annotations, ImagePaths, LabelMatrix
from csl.runs.config import TrainConfig
from csl.runs.record import changed_settings, command, deterministic, fingerprint, label_hash, revision, versions
from csl.training.experiment import train
from csl.training.recipes import with_recipe
from csl.training.reproduction import reproduce

ROOT = Path(__file__).parents[2]
SMALL = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 6, "epochs": 1, "workers": 0, "device": "cpu", "dropout": 0.1,
    "simulate_partial_type": "rps",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set, and a run on it."""
    folder = tmp_path_factory.mktemp("made")
    data = make_garments(folder / "the set", num_train=12, num_val=4, size=40, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, nothing in without_pictures():
            patch.setattr(owner, name, nothing)
        for name in ("a", "b"):
            config = TrainConfig(**SMALL, deterministic=True, data=str(data), path_dest=str(folder / name), seed=4)
            train(config, lambda _: None)
    return data, folder / "a", folder / "b"


def test_deterministic_runs_are_equal_bit_by_bit(made):
    _, a, b = made
    assert differing(outcome(a), outcome(b)) == []
    assert not torch.are_deterministic_algorithms_enabled()  # no business of who called
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark


@pytest.mark.gpu
def test_deterministic_runs_on_a_gpu(made, tmp_path):
    data, *_ = made
    for name in ("a", "b"):
        settings = SMALL | {"device": "cuda", "model_name": "tresnet_m", "dropout": 0.0}
        train(
            TrainConfig(**settings, deterministic=True, data=str(data), path_dest=str(tmp_path / name)), lambda _: None
        )
    assert differing(outcome(tmp_path / "a"), outcome(tmp_path / "b")) == []


def test_config_holds_all_that_made_the_run(made):
    _, run, _ = made
    kept = json.loads((run / "config.json").read_text())
    settings = TrainConfig(**SMALL, deterministic=True, data=str(made[0]), path_dest=str(run), seed=4).to_dict()
    assert {name: kept[name] for name in settings} == settings
    assert kept["versions"] == versions()
    assert kept["versions"]["torch"] == torch.__version__
    git = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    if git.returncode == 0:
        assert kept["revision"].removesuffix("-dirty") == git.stdout.strip()
    assert kept["fingerprints"]["train"]["images"] == 12
    assert kept["fingerprints"]["mask"] == label_hash(LabelMatrix.load(run / "partial_labels.npz"))
    assert kept["fingerprints"]["mask"] != kept["fingerprints"]["train"]["labels"]


def test_the_command_makes_the_same_settings_again(made, capsys):
    data, run, _ = made
    assert tools(["reproduce", str(run)]) == 0
    *notes, line = capsys.readouterr().out.splitlines()
    assert all(note.startswith("# code of revision") for note in notes)
    words = shlex.split(line)
    assert words[:4] == ["python", "train.py", "--data", str(data)]
    again = TrainConfig(**parsing.parse(train_flags.parser(), words[2:]))
    settings = TrainConfig(**SMALL, deterministic=True, data=str(data), path_dest=str(run), seed=4)
    assert again == settings


@pytest.mark.parametrize(
    "settings",
    [
        {
            "data": "a b/it's $HOME; rm -rf *",
            "ignore_columns": ["a b", "c"],
            "image_size": (64, 48),
            "progressive_size": (32, 24),
        },
        {"data": "-x", "gamma_neg": -1.5, "lr": 1e-7, "deterministic": True, "keep_unlabelled_images": True, "seed": 0},
        with_recipe("csl_coco_rps", {"data": "coco"}),
        with_recipe("nuswide_tutorial", {"data": "nus"}),
        with_recipe("demo", {}),
    ],
)
def test_commands_are_quoted_and_parse_to_what_they_came_from(settings):
    config = TrainConfig(**settings)
    shell = subprocess.run(
        ["bash", "-c", f"set -- {command(config.to_dict())}; printf '%s\\0' \"$@\""],
        capture_output=True,
        text=True,
        check=True,
    )
    words = shell.stdout.split("\0")[:-1]
    assert words[:2] == ["python", "train.py"]
    assert TrainConfig(**parsing.parse(train_flags.parser(), words[2:])) == config


def test_what_has_changed_is_noted(made, tmp_path):
    data, run, _ = made
    assert not [note for note in reproduce(run).notes if not note.startswith("code")]
    shutil.copytree(data, tmp_path / "set")
    kept = json.loads((run / "config.json").read_text())
    kept |= {"data": str(tmp_path / "set"), "revision": "abc"}
    kept["versions"]["torch"] = "1.0"
    (tmp_path / "config.json").write_text(json.dumps(kept))
    notes = reproduce(tmp_path).notes  # data that has moved is the same data
    assert notes[0] == f"torch 1.0 then, {torch.__version__} now"
    assert notes[1].startswith("code of revision abc then, ")
    assert len(notes) == 2
    csv = tmp_path / "set" / "attributes.csv"
    csv.write_text(csv.read_text().replace("00003.jpg", "00333.jpg"))
    assert "train data: the names of images differ" in reproduce(tmp_path).notes
    shutil.rmtree(tmp_path / "set")
    assert "the data cannot be compared" in reproduce(tmp_path).notes[-1]
    assert len(reproduce(tmp_path, look_at_data=False).notes) == 2


def test_the_command_of_several_processes_is_torchruns(made, tmp_path):
    _, run, _ = made
    kept = json.loads((run / "config.json").read_text())
    assert kept["launch"] == {"processes": 1, "processes_per_node": 1, "folder": str(Path.cwd())}
    for processes, words in ((2, "torchrun --nproc-per-node 2"), (4, "torchrun --nnodes 2 --nproc-per-node 2")):
        kept["launch"] = {"processes": processes, "processes_per_node": 2, "folder": "/elsewhere"}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        found = reproduce(tmp_path, look_at_data=False)
        assert found.command.startswith(f"{words} train.py --data ")
        assert found.notes[0] == "started in /elsewhere: relative paths are from there"
    kept["launch"] = {"processes": "rm -rf"}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="expected numbers of processes"):
        reproduce(tmp_path)


def test_versions_of_a_resumed_run_are_kept_beside_those_of_its_start(made, monkeypatch, tmp_path):
    data, _, _ = made
    settings = SMALL | {"data": str(data), "path_dest": str(tmp_path / "run"), "epochs": 2}
    train(TrainConfig(**settings, max_steps=1), lambda _: None)
    first = json.loads((tmp_path / "run/config.json").read_text())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="other settings"):
        train(TrainConfig(**settings, seed=9, resume=True), lambda _: None)
    assert {path: path.read_bytes() for path in before} == before  # refused before anything is written
    monkeypatch.setattr("csl.runs.record.revision", lambda: "other code")
    for _ in range(2):
        train(TrainConfig(**settings, resume=True), lambda _: None)
    kept = json.loads((tmp_path / "run/config.json").read_text())
    assert (kept["revision"], kept["versions"]) == (first["revision"], first["versions"])
    assert kept["resumed"] == [{"versions": versions(), "revision": "other code"}]
    assert "code of revision other code when it was resumed" in reproduce(tmp_path / "run", look_at_data=False).notes


def test_no_run_is_one_line(tmp_path, capsys):
    with pytest.raises(InputError, match="expected the folder of a run"):
        reproduce(tmp_path)
    (tmp_path / "config.json").write_text('{"data": "x", "epochs": 3, "lr": {"a": 1}}')
    with pytest.raises(InputError, match="--lr: found"):
        reproduce(tmp_path)
    assert tools(["reproduce", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------- fingerprints


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(number + 1))
    labels = LabelMatrix.from_dense(np.random.default_rng(0).integers(-1, 2, (5, 3)))
    paths = [str(tmp_path / f"{number}.jpg") for number in range(5)]
    return Annotations(paths, labels, ["a", "b", "c"], folder=str(tmp_path))


def test_a_fingerprint_tells_every_part(photos, tmp_path):
    first = fingerprint(photos)
    assert fingerprint(photos) == first
    (tmp_path / "3.jpg").write_bytes(bytes(99))
    assert {k for k, v in fingerprint(photos).items() if v != first[k]} == {"sizes"}
    dense = photos.labels.to_dense()
    dense[2, 1] = 1 - dense[2, 1] if dense[2, 1] >= 0 else 1
    first = fingerprint(photos)
    assert {k for k, v in fingerprint(photos.with_labels(LabelMatrix.from_dense(dense))).items() if v != first[k]} == {
        "labels"
    }
    swapped = fingerprint(photos.select([1, 0, 2, 3, 4]))
    assert {k for k, v in swapped.items() if v != first[k]} == {"names", "labels", "sizes"}
    assert fingerprint(photos.select([0, 1, 2, 3]))["images"] == 4


def test_paths_of_millions_of_images_have_fingerprints_too(photos, tmp_path):
    paths = ImagePaths.from_names([f"{number}" for number in range(5)], tmp_path, ".jpg")
    many = Annotations(paths, photos.labels, photos.classes)
    assert fingerprint(many)["sizes"] == fingerprint(photos)["sizes"]
    assert fingerprint(many) == fingerprint(Annotations(paths.within(tmp_path), photos.labels, photos.classes))
    assert fingerprint(many)["names"] != fingerprint(many.select([0, 1, 2, 4, 3]))["names"]


def test_labels_hash_alike_however_they_are_stored():
    dense = np.random.default_rng(0).integers(-1, 2, (7, 300))
    a, b = LabelMatrix.from_dense(dense, fill=-1), LabelMatrix.from_dense(dense, fill=-1)
    wide = LabelMatrix(b.indptr.astype(np.int64), b.indices.astype(np.int64), b.values, b.num_classes, b.fill)
    assert label_hash(a) == label_hash(wide)
    dense[6, 299] = -1 if dense[6, 299] != -1 else 1
    assert label_hash(LabelMatrix.from_dense(dense, fill=-1)) != label_hash(a)


def test_settings_that_may_not_change_are_named():
    then = TrainConfig(lr=0.1, workers=2, data="a").to_dict()
    now = json.loads(json.dumps(TrainConfig(lr=0.2, workers=0, data="b", image_size=(1, 2)).to_dict()))
    assert changed_settings(then, now) == ["--image_size 1x2 (was 448)", "--lr 0.2 (was 0.1)"]
    given = TrainConfig(sync_abn=True, columns=["a", "b"], prior_path="auto", simulate_partial_type="rps").to_dict()
    assert changed_settings(given, TrainConfig(val_split=0.2, roles="a=list", workers=None).to_dict()) == [
        "--columns not given (was a,b)", "--prior_epochs not given (was 30)", "--prior_path not given (was auto)",
        "--roles a=list (was not given)", "--simulate_partial_param not given (was 0.5)",
        "--simulate_partial_type not given (was rps)", "--sync_abn not given (was given)", "--val_split 0.2 (was not given)",
    ]  # fmt: skip
    assert changed_settings(now, now) == []
    assert changed_settings(TrainConfig(image_size=(1, 2)).to_dict(), TrainConfig(image_size=[1, 2]).to_dict()) == []


def test_one_meaning_in_two_spellings_is_no_change():
    fpc = {"simulate_partial_type": "fpc"}
    for then, now, other in (
        (fpc, {**fpc, "simulate_partial_param": 1000.0}, {**fpc, "simulate_partial_param": 999.0}),
        ({"simulate_partial_type": "rps"}, {"simulate_partial_type": "rps", "simulate_partial_param": 0.5}, fpc),
        ({"classes_file": "a.txt"}, {"classes_file": "./a.txt"}, {"classes_file": "b/a.txt"}),
        ({"attributes": "a:2,b:3"}, {"attributes": "a:2, b:3"}, {"attributes": "a:2,b:4"}),
        ({"ignore_columns": ["a", "b"]}, {"ignore_columns": ["b", "a"]}, {"ignore_columns": ["a"]}),
        ({"columns": ["a", "b"]}, {"columns": ["b", "a"]}, {"columns": ["a"]}),
        ({"no_label": ["a", "b"]}, {"no_label": ["b", "a"]}, {"no_label": ["a"]}),
        ({"roles": "a=list,b=ignored"}, {"roles": "b=ignored, a=list"}, {"roles": "a=list,b=list"}),
    ):
        first, second, third = (TrainConfig(**settings).to_dict() for settings in (then, now, other))
        assert changed_settings(first, second) == changed_settings(second, first) == []
        assert changed_settings(first, third)


def test_revision_is_of_this_code(monkeypatch):
    found = revision()
    assert found is None or len(found.removesuffix("-dirty")) == 40
    monkeypatch.setenv("PATH", "")
    assert revision() is None
