"""JSON that is a table: Label Studio's exports, FiftyOne's image classification, lists of records, labels by name."""

import json

import numpy as np
import pytest
from PIL import Image

from csl.errors import InputError
from csl.labels import read_annotations


def write(folder, content, photos, name="export.json"):
    for photo in photos:
        (folder / photo).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / photo)
    (folder / name).write_text(json.dumps(content))
    return folder


def positives(annotations, value=1):
    labels = annotations.labels.to_dense()
    return [{annotations.classes[c] for c in np.flatnonzero(row == value)} for row in labels]


def chosen(question, *choices):
    return {"type": "choices", "from_name": question, "to_name": "image", "value": {"choices": list(choices)}}


def drawn(label, kind="rectanglelabels"):
    return {"type": kind, "from_name": kind, "to_name": "image", "value": {"x": 1, "width": 3, kind: [label]}}


def task(image, *results, **more):
    annotations = [{"completed_by": k, "result": one, "was_cancelled": False} for k, one in enumerate(results)]
    return {
        "id": 1,
        "annotations": annotations,
        "predictions": [],
        "data": {"image": image},
        "cancelled_annotations": 0,
    } | more


@pytest.mark.parametrize("whole_folder", [True, False])
def test_label_studio_with_several_annotators(tmp_path, whole_folder):
    cancelled = {"result": [chosen("tags", "sea")], "was_cancelled": True}
    tasks = [
        task("/data/upload/1/0a1b2c3d-1.jpg", [chosen("tags", "sea", "sun"), chosen("weather", "clear")]),
        task(
            "/data/local-files/?d=my%20photos%2F2.jpg",
            [chosen("tags", "sea"), chosen("weather", "rain")],
            [chosen("tags", "sun"), chosen("weather", "rain")],
        ),
        task("https://example.com/a/3.jpg?size=1", [chosen("weather", "clear")]),
        task("s3://bucket/4.jpg", annotations=[cancelled]),
        task("/data/upload/1/5.jpg", [chosen("tags", "sea")], [chosen("tags", "sun")]),
    ]
    tasks[4]["annotations"][1]["ground_truth"] = True
    folder = write(tmp_path, tasks, [f"images/{k}.jpg" for k in (1, 2, 3, 4, 5)])
    found = read_annotations(folder if whole_folder else folder / "export.json")
    assert found.images == [str(folder / f"images/{k}.jpg") for k in (1, 2, 3, 5)]
    assert positives(found) == [{"sea", "sun", "clear"}, {"rain"}, {"clear"}, {"sun"}]
    assert positives(found, -1) == [set(), {"sea", "sun"}, set(), {"clear", "rain"}]
    notes = "\n".join(found.notes)
    assert "1 tasks have no annotation that counts" in notes
    assert "1 annotations were cancelled" in notes
    assert "contradict each other in 'sea': not known" in notes
    assert "the ground truth" in notes


def test_label_studio_regions_and_questions_of_yes_and_no(tmp_path):
    tasks = [
        task("1.jpg", [drawn("car"), drawn("bus", "polygonlabels"), chosen("night", "yes"), chosen("wet", "no")]),
        task("2.jpg", [drawn("car"), chosen("night", "no"), {"type": "rating", "value": {"rating": 3}}]),
        task("3.jpg", [chosen("night", "no")], [drawn("bus")]),
    ]
    found = read_annotations(write(tmp_path, tasks, ["1.jpg", "2.jpg", "3.jpg"]))
    assert sorted(found.classes) == ["bus", "car", "night", "wet"]
    assert positives(found) == [{"car", "bus", "night"}, {"car"}, set()]
    assert positives(found, -1) == [set(), {"wet"}, {"bus", "wet"}]


@pytest.mark.parametrize("form", ["list", "single"])
def test_label_studio_json_min(tmp_path, form):
    about = {"annotator": 1, "annotation_id": 7, "created_at": "2024-01-01T00:00:00Z", "lead_time": 2.5}
    second = {"list": {"choices": ["cat", "dog"]}, "single": "dog"}[form]
    content = [
        {
            "image": "/data/upload/1/0a1b2c3d-1.jpg",
            "id": 1,
            "choice": "cat",
            "label": [{"x": 1, "rectanglelabels": ["car"]}],
        }
        | about,
        {"image": "/data/upload/1/0a1b2c3e-2.jpg", "id": 2, "choice": second} | about,
    ]
    found = read_annotations(write(tmp_path, content, ["1.jpg", "2.jpg"]))
    ends = [{name.rpartition(":")[2] for name in names} for names in positives(found)]
    assert ends == [{"cat", "car"}, {"cat", "dog"} if form == "list" else {"dog"}]
    assert not any(positives(found, -1))


def test_fiftyones_image_classification_with_a_folder_a_split(tmp_path):
    for split, label in (("train", 0), ("validation", [0, 2])):
        content = {"classes": ["cat", "dog", "owl"], "labels": {"a": label, "b": None}}
        write(tmp_path / split, content, [f"data/{split}.jpg", "data/a.jpg", "data/b.jpg"], "labels.json")
    for split, expected in (("train", {"cat"}), ("val", {"cat", "owl"})):
        found = read_annotations(tmp_path, split=split)
        assert found.classes == ["cat", "dog", "owl"]
        assert positives(found) == [expected, set()]
        assert len(positives(found, -1)[1]) == 3


@pytest.mark.parametrize(
    "content",
    [
        [{"filename": "1.jpg", "labels": ["cat"]}, {"filename": "2.jpg", "labels": ["cat", "dog"]}],
        {"1.jpg": ["cat"], "2.jpg": ["cat", "dog"]},
        {"1.jpg": {"cat": 1, "dog": 0}, "2.jpg": {"cat": 1, "dog": 1}},
        {"labels": {"1": {"label": "cat", "confidence": 0.9}, "2": ["cat", "dog"]}, "classes": None},
    ],
)
def test_records_and_labels_by_name(tmp_path, content):
    found = read_annotations(write(tmp_path, content, ["1.jpg", "2.jpg"]))
    assert positives(found) == [{"cat"}, {"cat", "dog"}]
    assert positives(found, 0) == [{"dog"}, set()]


BOXES = {"image_size": [{"width": 8}], "annotations": [{"class_id": 1, "left": 2}, {"class_id": 0}]}
LINES = {
    "Hugging Face's objects": [
        {"file_name": "1.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "categories": ["cat"]}},
        {"file_name": "2.jpg", "objects": {"bbox": [[1, 2, 3, 4]] * 2, "categories": ["cat", "dog"]}},
    ],
    "SageMaker's boxes": [
        {"source-ref": "s3://b/1.jpg", "box": {"annotations": [{"class_id": 0}]},
         "box-metadata": {"class-map": {"0": "cat"}, "type": "groundtruth/object-detection"}},
        {"source-ref": "s3://b/2.jpg", "box": BOXES, "box-metadata": {"class-map": {"0": "cat", "1": "dog"}}},
    ],
    "SageMaker's single label": [
        {"source-ref": "s3://b/1.jpg", "animal": 0, "animal-metadata": {"class-name": "cat", "confidence": 0.9}},
        {"source-ref": "s3://b/2.jpg", "animal": 1, "animal-metadata": {"class-name": "dog", "confidence": 0.9}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_json_lines_of_boxes_and_of_named_classes(tmp_path, kind):
    write(tmp_path, "", ["1.jpg", "2.jpg"])
    (tmp_path / "export.json").unlink()
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(one) + "\n" for one in LINES[kind]))
    ends = [{name.removeprefix("animal:") for name in names} for names in positives(read_annotations(tmp_path))]
    assert ends == [{"cat"}, {"dog"} if "single" in kind else {"cat", "dog"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"filename": "1.jpg"}, 3], "found a JSON list, expected a list of objects"),
        ({"classes": ["cat"], "labels": {"1": 4}}, "'1' has the label 4, expected a number below 1"),
        ([task("1.jpg", []), {"image": "2.jpg"}], "among tasks of Label Studio"),
    ],
)
def test_errors_name_the_file(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path, content, ["1.jpg"]) / "export.json")


FORMS = {
    "an object of answers": [{"image": "a.jpg", "is": {"cat": True, "dog": False}}, {"image": "b.jpg", "is": {"dog": True}}],
    "wrapped": {"version": 1, "data": [{"image": "a.jpg", "cat": 1, "dog": 0}, {"image": "b.jpg", "dog": 1}]},
    "columns of pandas": {"image": {"0": "a.jpg", "1": "b.jpg"}, "cat": {"0": 1, "1": None}, "dog": {"0": 0, "1": 1}},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_ways_to_write_records(tmp_path, form):
    (tmp_path / "labels.json").write_text(json.dumps(FORMS[form]))
    for path in (tmp_path, tmp_path / "labels.json"):
        found = read_annotations(path)
        assert (found.classes, found.labels.to_dense().tolist()) == (["cat", "dog"], [[1, 0], [-1, 1]])


def test_records_under_the_name_of_their_split(tmp_path):
    content = {"train": [{"image": "a.jpg", "tags": ["cat"]}], "val": [{"image": "b.jpg", "tags": ["cat", "dog"]}]}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    found = read_annotations(tmp_path, split="val")
    assert (found.classes, found.labels.to_dense().tolist()) == (["cat", "dog"], [[1, 1]])


def test_imaterialists_challenge(tmp_path):
    images = [{"imageId": str(k), "url": f"https://x.y/{k}.jpg"} for k in (1, 2)]
    annotations = [{"imageId": "1", "labelId": ["66", "95"]}, {"imageId": "2", "labelId": ["66"]}]
    (tmp_path / "train.json").write_text(json.dumps({"images": images, "annotations": annotations, "license": {}}))
    found = read_annotations(tmp_path)
    assert (found.classes, found.labels.to_dense().tolist()) == (["66", "95"], [[1, 1], [1, 0]])


def test_vertex_names_the_class_of_each_annotation(tmp_path):
    lines = [
        {"imageGcsUri": f"gs://b/{k}.jpg", "classificationAnnotations": [{"displayName": name} for name in names],
         "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use}}
        for k, (names, use) in enumerate([(["cat", "dog"], "training"), (["dog"], "test")])
    ]  # fmt: skip
    (tmp_path / "import.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_annotations(tmp_path, split="test")
    assert (found.classes, found.labels.to_dense().tolist()) == (["cat", "dog"], [[0, 1]])
