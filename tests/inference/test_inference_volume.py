"""infer.py over many photos: streamed, resumed after a kill, bad files named, Parquet equal to CSV, shared by processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from killing import free_port

from csl import InputError, checkpoint
from csl.garments import make_garments
from csl.inference.infer import InferenceOptions, infer
from csl.inference.tables import BAD, PREDICTIONS, Results
from csl.models import create_model
from csl.models.fusion import FusedTResNet, fuse
from csl.models.tresnet import TResNet, TResNetConfig
from csl.predict.streaming import copies

ROOT = Path(__file__).parents[2]
MANY = 1500


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "best.ckpt"
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=4)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if n.endswith("fc.weight")).mul_(30)
    checkpoint.write(path, {"model": model.state_dict(), "model_name": "test_resnet", "num_classes": 4,
                            "classes": ["a", "b", "c,d", "e"], "config": {"image_size": 32}})  # fmt: skip
    return path


@pytest.fixture(scope="module")
def garments(tmp_path_factory):
    return (
        make_garments(tmp_path_factory.mktemp("set") / "set", num_train=10, num_val=14, size=48, progress=False)
        / "images"
    )


@pytest.fixture(scope="module")
def many(garments, tmp_path_factory):
    """A folder of many photos, which are a few under many names, and three files that are none."""
    folder = tmp_path_factory.mktemp("many")
    photos = sorted(garments.iterdir())
    for i in range(MANY):
        (folder / f"{i:05}.jpg").hardlink_to(photos[i % len(photos)])
    for i, name in enumerate(("00100.5.jpg", "00700.5.jpg", "01400.5.jpg")):
        (folder / name).write_bytes(photos[0].read_bytes()[: 300 * i])
    return folder


def run(weights, images, dest, **options):
    said = []
    settings = {"th": 0.5, "batch_size": 16, "workers": 0, "device": "cpu", **options}
    settings |= {} if "output" in options else {"path_dest": str(dest)}
    infer(InferenceOptions(pic_path=str(images), model_path=str(weights), **settings), said.append)
    return pd.read_csv(dest / "results" / "predictions.csv", keep_default_na=False) if "output" not in options else said


@pytest.fixture(scope="module")
def expected(weights, many, tmp_path_factory):
    """What a run that nothing stops writes."""
    dest = tmp_path_factory.mktemp("expected")
    run(weights, many, dest)
    return dest / "results"


def test_every_photo_has_its_rows_in_order_and_bad_files_are_named(many, expected):
    table = pd.read_csv(expected / "predictions.csv", keep_default_na=False)
    assert list(table.columns) == ["filename", "class", "score"]
    assert list(dict.fromkeys(table.filename)) == sorted(str(p) for p in many.iterdir() if ".5." not in p.name)
    bad = pd.read_csv(expected / "bad_images.csv")
    assert list(bad.columns) == ["filename", "reason"]
    assert [Path(name).name for name in bad.filename] == ["00100.5.jpg", "00700.5.jpg", "01400.5.jpg"]
    assert "the file is empty" in bad.reason[0]
    assert sorted(p.name for p in expected.iterdir() if p.name[0] != ".") == [
        "bad_images.csv", "predictions.csv", "predictions.png",
    ]  # fmt: skip
    # The same photo under another name has the same rows.
    first = table[table.filename == str(many / "00000.jpg")][["class", "score"]].to_numpy().tolist()
    again = table[table.filename == str(many / "00024.jpg")][["class", "score"]].to_numpy().tolist()
    assert first == again


def test_scores_are_those_of_the_network(weights, garments, expected):
    from csl.predict import Predictor, name_scores

    predictor = Predictor.load(weights, device="cpu")
    photos = sorted(map(str, garments.iterdir()))
    probabilities = predictor.score(photos, workers=0).probabilities[0]
    table = pd.read_csv(expected / "predictions.csv", keep_default_na=False)
    for i, p in enumerate(probabilities):
        rows = table[table.filename.str.endswith(f"{i:05}.jpg")]
        found = name_scores(p, predictor.classes, None, 0.5, 30)
        assert list(rows["class"]) == ([x.name for x in found] or [""])
        np.testing.assert_allclose([float(x or -1) for x in rows.score], [x.score for x in found] or [-1], atol=2e-6)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_killed_and_started_again_it_goes_on_and_ends_the_same(weights, many, expected, tmp_path, ending):
    output = tmp_path / f"out.{ending}"
    command = [
        sys.executable, str(ROOT / "infer.py"), "--pic_path", str(many), "--model_path", str(weights), "--th=0.5",
        "-b1", "-j0", "--device=cpu", "--output", str(output),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def begun():
        parts = list(tmp_path.glob(f".out.{ending}.*.progress/0.jsonl"))
        return bool(parts) and parts[0].read_bytes().count(b"\n") >= 20

    wait_for(begun, process)
    (part,) = tmp_path.glob(f".out.{ending}.*.progress/0.jsonl")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    whole = part.read_bytes().rpartition(b"\n")[0]
    done = whole.count(b"\n")  # without the plan's line
    assert 0 < done < MANY
    with open(part, "ab") as file:  # as a power cut may leave it: a line torn in two
        file.write(whole.splitlines()[-1][:9])
    said = run(weights, many, tmp_path, output=str(output))
    assert any(f"{done:,} of {MANY + 3:,} images were done before" in line for line in said)
    assert not part.parent.exists()
    if ending == "csv":
        ours = pd.read_csv(output, keep_default_na=False)
    else:
        ours = pd.read_parquet(output)
        ours = ours.astype(object).where(ours.notna(), "")
    theirs = pd.read_csv(expected / "predictions.csv", keep_default_na=False)
    assert ours[["filename", "class"]].to_numpy().tolist() == theirs[["filename", "class"]].to_numpy().tolist()
    close_scores(ours.score, theirs.score)
    assert (tmp_path / "out_bad_images.csv").read_text() == (expected / "bad_images.csv").read_text()
    assert (tmp_path / "out_predictions.png").stat().st_size > 1000


def wait_for(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.005)


def close_scores(ours, theirs):
    """Another batch size may move the last of six digits."""
    numbers = [np.array([float(x) if x != "" else -1 for x in scores]) for scores in (ours, theirs)]
    np.testing.assert_allclose(*numbers, atol=2e-6)


def test_parquet_equals_csv(weights, garments, tmp_path):
    table = run(weights, garments, tmp_path)
    run(weights, garments, tmp_path, output=str(tmp_path / "rows.parquet"))
    schema = pq.read_schema(tmp_path / "rows.parquet")
    assert [(f.name, str(f.type)) for f in schema] == [("filename", "string"), ("class", "string"), ("score", "double")]
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows.filename.tolist() == table.filename.tolist()
    assert rows["class"].fillna("").tolist() == table["class"].tolist()
    assert rows.score.isna().tolist() == [x == "" for x in table.score]
    assert rows.score.dropna().tolist() == [float(x) for x in table.score if x != ""]


def test_other_settings_start_afresh_and_a_finished_job_is_done_again(weights, garments, tmp_path):
    columns = {PREDICTIONS: ("filename", "class", "score"), BAD: ("filename", "reason")}
    output = tmp_path / "results" / "predictions.csv"
    first = Results(output, {"top_k": 3}, 10, columns)
    for i in range(4):
        first.add({PREDICTIONS: [(f"{i}.jpg", "a", 0.5)]})
    first.write()
    other = f"from csl.inference.tables import Results; Results({str(output)!r}, {{'top_k': 3}}, 10, {columns!r})"
    result = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert "is at work in this folder" in result.stderr
    first.close()
    for plan, done in (({"top_k": 3}, 4), ({"top_k": 4}, 0), ({"top_k": 3}, 4)):
        with closing(Results(output, plan, 10, columns)) as again:
            assert (again.done, again.named, again.images) == (done, done, range(10))
    one, two = run(weights, garments, tmp_path), run(weights, garments, tmp_path, th=0.9)
    assert len(two) < len(one)
    for unfinished in output.parent.glob(".predictions.csv.*.progress"):
        assert (unfinished / "0.jsonl").read_text().count("\n") in (1, 5)


def job(output, plan, count, said, rows=None):
    """Do `rows` of the images of a job, all of them by default; returns how many were done before."""
    columns = {PREDICTIONS: ("filename", "class", "score"), BAD: ("filename", "reason")}
    with closing(Results(output, plan, count, columns, say=said.append)) as results:
        before = results.done
        for i in range(before, count if rows is None else rows):
            results.add({PREDICTIONS: [(f"{plan['of']}{i}.jpg", "a", 0.5)]})
        results.write()
        if rows is None:
            results.finish()
    return before


def test_a_killed_job_goes_on_after_any_number_of_other_calls(tmp_path):
    output, said = tmp_path / "predictions.csv", []
    assert job(output, {"of": "big"}, 1000, said, rows=901) == 0  # killed after 901
    for k in range(3):
        assert job(output, {"of": f"photo {k}"}, 1, said) == 0
        assert len(pd.read_csv(output)) == 1
    assert said == [f"{output}: replaces the table of 1 other images"] * 2
    assert job(output, {"of": "big"}, 1000, said) == 901
    assert len(pd.read_csv(output)) == 1000
    assert not list(tmp_path.glob("earlier-*"))


def test_a_table_that_somebody_waited_for_is_moved_aside_and_said(tmp_path):
    output, said = tmp_path / "predictions.csv", []
    job(output, {"of": "big"}, 1000, said)
    job(output, {"of": "big"}, 1000, said)  # the same again replaces its own
    assert said == [f"{output}: replaces the table of the same images and settings"]
    job(output, {"of": "photo"}, 1, said)
    (aside,) = tmp_path.glob("earlier-*")
    assert said[1:] == [f"the table of other images that was {output} is now in {aside}"]
    assert len(pd.read_csv(aside / "predictions.csv")) == 1000
    output.write_text("somebody's own file")
    (tmp_path / ".predictions.plan").unlink()
    job(output, {"of": "another"}, 1, said)
    assert [len(list(folder.iterdir())) for folder in sorted(tmp_path.glob("earlier-*"))] == [1, 1]


def test_what_others_wrote_in_a_table_or_beside_it_is_moved_aside(tmp_path):
    output, said = tmp_path / "out.csv", []
    (tmp_path / "out_bad_images.csv").write_text("a list of my own")
    job(output, {"of": "photo"}, 1, said)
    assert (*map(Path.read_text, tmp_path.glob("earlier-*/*")),) == ("a list of my own",)
    with open(output, "a") as file:
        file.write("corrected.jpg,a,1\n")
    for plan in ({"of": "photo"}, {"of": "another"}):  # of one image, and of these settings: replaced if untouched
        job(output, plan, 1, said)
    assert [line.partition(" is now in ")[0] for line in said] == [
        f"what others or an earlier version wrote that was {tmp_path / 'out_bad_images.csv'}",
        f"what others or an earlier version wrote that was {output}",
        f"{output}: replaces the table of 1 other images",
    ]
    assert any("corrected" in file.read_text() for file in tmp_path.glob("earlier-*/out.csv"))


def test_results_of_one_run_do_not_replace_each_other_unsaid(weights, garments, many, tmp_path):
    run(weights, many, tmp_path)
    whole = (tmp_path / "results" / "predictions.csv").read_bytes()
    bad = (tmp_path / "results" / "bad_images.csv").read_bytes()
    run(weights, next(garments.iterdir()), tmp_path)
    (aside,) = (tmp_path / "results").glob("earlier-*")
    assert (aside / "predictions.csv").read_bytes() == whole
    assert (aside / "bad_images.csv").read_bytes() == bad
    assert (aside / "predictions.png").exists()


@pytest.mark.parametrize("tail", [b"", b'{"predictions": [["2.', b"\0" * 20 + b"\n", b"[" * 100_000 + b"\n"])
def test_a_torn_last_line_is_cut(tmp_path, tail):
    columns = {PREDICTIONS: ("filename", "class", "score"), BAD: ("filename", "reason")}
    with closing(Results(tmp_path / "p.csv", {}, 3, columns)) as job:
        for i in range(2):
            job.add({PREDICTIONS: [(f"{i}.jpg", "ä,b", 0.25)]})
        job.write()
    part = job.folder / "0.jsonl"
    part.write_bytes(part.read_bytes()[: -1 if not tail else None] + tail)
    job = Results(tmp_path / "p.csv", {}, 3, columns)
    assert job.done == job.named == (2 if tail else 1)
    for i in range(job.done, 3):
        job.add({PREDICTIONS: [(f"{i}.jpg", "ä,b", 0.25)]})
    assert job.finish() == 3
    rows = "".join(f'{i}.jpg,"ä,b",0.25\n' for i in range(3))
    assert (tmp_path / "p.csv").read_text() == "filename,class,score\n" + rows
    assert sorted(p.name for p in tmp_path.iterdir()) == [".p.lock", ".p.plan", "p.csv"]


def test_nothing_readable_is_an_error_and_writes_nothing(weights, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_text("no photo")
    with pytest.raises(InputError, match="nor any other of 3 images can be read"):
        run(weights, folder, tmp_path)
    assert not [path for path in (tmp_path / "results").iterdir() if path.name != ".predictions.lock"]
    with pytest.raises(InputError, match=r"--output .*out\.txt: expected a name that ends in \.csv or \.parquet"):
        run(weights, folder, tmp_path, output=str(tmp_path / "out.txt"))


def test_copies_work_at_once_and_share_their_parameters(weights):
    torch.manual_seed(0)
    fused = fuse(TResNet(TResNetConfig((1, 1, 1, 1), width=0.25), 3).eval())
    assert isinstance(fused, FusedTResNet)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = copies(fused, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 3
    pointers = [{p.data_ptr() for p in network.parameters()} for network in found]
    assert pointers[0] == pointers[1] == pointers[2]
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert all(torch.equal(network(x), fused(x)) for network in found)


def test_processes_of_a_job_share_the_photos(weights, many, expected, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
        str(ROOT / "infer.py"), "--pic_path", str(many), "--model_path", str(weights), "--th=0.5", "-b16", "-j0",
        "--device=cpu", "--output", str(tmp_path / "out.csv"),
    ]  # fmt: skip
    chosen = os.environ | {"CSL_ENGINE": "auto"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=chosen)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("00000.jpg: ") == 1
    assert result.stdout.count("engine: PyTorch (one of several processes)") == 1
    ours, theirs = (pd.read_csv(p, keep_default_na=False) for p in (tmp_path / "out.csv", expected / "predictions.csv"))
    assert ours[["filename", "class"]].to_numpy().tolist() == theirs[["filename", "class"]].to_numpy().tolist()
    close_scores(ours.score, theirs.score)
    assert (tmp_path / "out_bad_images.csv").read_text() == (expected / "bad_images.csv").read_text()
