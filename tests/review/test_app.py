"""What the page's server says: questions, answers, photos; and whom it says nothing to."""

import io
import json
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from csl import InputError
from csl.__main__ import main
from csl.labels.options import DataOptions
from csl.labels.reviews import read_reviews
from csl.review.answers import Answers
from csl.review.questions import Photos, Questions, question_file
from csl.review.session import Session

TestClient = pytest.importorskip(
    "starlette.testclient", reason="starlette is not installed: pip install -e '.[test]'"
).TestClient
TOKEN = "t" * 32


def client_of(session, host="127.0.0.1", **settings):
    from csl.review.app import create_app

    return TestClient(create_app(session, TOKEN, "run", **settings), base_url=f"http://{host}/{TOKEN}/")


def session_of(data, questions, reviews=None):
    """The session of a table of questions, rows of image, class and score."""
    file = data / "questions.csv.txt"
    pd.DataFrame(questions, columns=["image", "class", "score"]).to_csv(file, index=False)
    asked = Questions.read(file, Photos.read(DataOptions(data=str(data))), lambda line: None)
    return Session(asked, Answers(reviews or data / "reviews.csv"))


@pytest.fixture
def table(tmp_path):
    """Five photos with an attribute and a class."""
    data = tmp_path / "photos"
    data.mkdir()
    rows = ["a.jpg,2,1", "b.jpg,#N/A,#N/A", "c.png,0,0", "d.tif,#N/A,1", "e.jpg,1,#N/A"]
    (data / "attributes.csv").write_text("\n".join(["filename,neck,<b>hat</b>", *rows, ""]))
    for name in ("a.jpg", "b.jpg", "c.png", "d.tif"):
        Image.fromarray(np.full((60, 90, 3), 120, np.uint8)).save(data / name)
    (data / "e.jpg").write_bytes(b"no photo")
    return data


ASKED = [("b.jpg", "Neck 1", 0.9), ("b.jpg", "<b>hat</b>", 0.8), ("d.tif", "Neck 2", 0.7), ("a.jpg", "Neck 2", 0.1),
         ("c.png", "Neck 1", ""), ("e.jpg", "Neck 1", 0.5)]  # fmt: skip


def test_questions_say_what_is_known(table):
    client = client_of(session_of(table, ASKED))
    found = client.get("questions", params={"count": 9}).json()
    assert found["counts"] == {"total": 6, "left": 6, "yes": 0, "no": 0, "unsure": 0}
    assert [(one["image"], one["class"], one["label"]) for one in found["questions"]] == [
        ("b.jpg", "Neck 1", None), ("b.jpg", "<b>hat</b>", None), ("d.tif", "Neck 2", None), ("a.jpg", "Neck 2", "yes"),
        ("c.png", "Neck 1", "no"), ("e.jpg", "Neck 1", "yes"),
    ]  # fmt: skip
    assert found["questions"][3]["there"] == {"names": ["<b>hat</b>"], "more": 0}
    assert found["questions"][3]["absent"] == {"names": ["Neck 0", "Neck 1"], "more": 0}
    assert [one["id"] for one in client.get("questions?class=Neck 1&at=1&count=9").json()["questions"]] == [4, 5]
    assert [one["id"] for one in client.get("questions?at=3&back&count=2").json()["questions"]] == [3, 2]
    assert client.get("classes?find=HAT").json()["classes"] == [{"class": "<b>hat</b>", "left": 1, "total": 1}]
    assert client.get("questions?at=-1").status_code == 400


def post(client, address, *answers):
    return client.post(address, json={"answers": [list(one) for one in answers]})


def test_answers_and_undo(table):
    session = session_of(table, ASKED)
    client = client_of(session)
    assert post(client, "answer", ("b.jpg", "Neck 1", "yes"), ("d.tif", "Neck 2", "unsure")).json()["counts"] == {
        "total": 6, "left": 4, "yes": 1, "no": 0, "unsure": 1,
    }  # fmt: skip
    assert post(client, "answer", ("b.jpg", "Neck 1", "yes")).status_code == 200  # sent again: it is there already
    assert [review[:4] for review in read_reviews(table / "reviews.csv")] == [
        ("b.jpg", "Neck 1", "yes", "0.9"), ("d.tif", "Neck 2", "unsure", "0.7"),
    ]  # fmt: skip
    assert [one["id"] for one in client.get("questions?open&count=9").json()["questions"]] == [1, 3, 4, 5]
    assert client.get("questions?at=1").json()["questions"][0]["there"]["names"] == ["Neck 1"]
    for _ in range(2):  # the second takes nothing more back
        assert post(client, "undo", ("b.jpg", "Neck 1", "yes")).json()["counts"]["left"] == 5
    assert len(read_reviews(table / "reviews.csv")) == 1
    for body in ([["c.png", "<b>hat</b>", "yes"]], [["b.jpg", "Neck 1", "perhaps"]], [["b.jpg"]], "x"):
        answer = client.post("answer", json={"answers": body})
        assert answer.status_code == 400
        assert len(answer.text.splitlines()) == 1
    assert client.post("answer", content=b"{").status_code == 415
    assert client.post("answer", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert (
        client.post("answer", content=b" " * (1 << 21), headers={"content-type": "application/json"}).status_code == 413
    )
    assert len(read_reviews(table / "reviews.csv")) == 1


def test_one_value_of_an_attribute_settles_the_others(table):
    asked = [("b.jpg", "Neck 1", 0.9), ("b.jpg", "Neck 0", 0.8), ("d.tif", "Neck 0", 0.7), ("b.jpg", "<b>hat</b>", 0.6)]
    session = session_of(table, asked)
    session.answer([("b.jpg", "Neck 1", "yes")])
    assert [one["id"] for one in session.ask(count=9, only_open=True)] == [2, 3]
    assert session.ask(at=1)[0]["answer"] is None
    session.answer([("b.jpg", "Neck 1", "no")])  # it was a mistake
    assert [one["id"] for one in session.ask(count=9, only_open=True)] == [1, 2, 3]
    session.answer([("b.jpg", "Neck 1", "yes")])
    session.answer([("b.jpg", "Neck 0", "no")])  # by the arrows
    session.undo([("b.jpg", "Neck 0", "no")])
    assert [one["id"] for one in session.ask(count=9, only_open=True)] == [2, 3]
    session.undo([("b.jpg", "Neck 1", "yes")])
    assert [one["id"] for one in session.ask(count=9, only_open=True)] == [1, 2, 3]
    again = session_of(table, asked)  # the same from the file
    assert [one["id"] for one in again.ask(count=9, only_open=True)] == [1, 2, 3]
    assert len(read_reviews(table / "reviews.csv")) == 2
    session.answer([("b.jpg", "Neck 2", "yes")])  # the value that it is, about which there is no question
    assert [one["id"] for one in session.ask(count=9, only_open=True)] == [2, 3]
    assert session.ask(at=1)[0]["values"] == [["Neck 0", None], ["Neck 1", None], ["Neck 2", "yes"]]
    session.undo([("b.jpg", "Neck 2", "yes")])
    assert [one["id"] for one in session.ask(count=9, only_open=True)] == [1, 2, 3]
    with pytest.raises(InputError, match="not among the questions"):
        session.answer([("a.jpg", "Neck 2", "yes")])
    session.questions.file = table / "audit.csv"
    audit = Session(session.questions, session.answers)
    audit.answer([("b.jpg", "Neck 1", "yes")])
    assert audit.ask()[0]["values"] == []
    assert [one["id"] for one in audit.ask(count=9, only_open=True)] == [1, 2, 3]


def test_answers_of_others_are_seen(table):
    session = session_of(table, ASKED)
    client = client_of(session)
    Answers(table / "reviews.csv").add([("./b.jpg", "Neck 1", "no", ""), ("zz.jpg", "Neck 1", "no", "")])
    found = client.get("questions").json()
    assert (found["questions"][0]["answer"], found["counts"]["left"]) == ("no", 5)
    post(client, "answer", ("b.jpg", "Neck 1", "yes"))
    (table / "reviews.csv").unlink()
    assert client.get("questions").json()["counts"]["left"] == 6


def test_photos_as_they_are_or_as_jpeg(table):
    client = client_of(session_of(table, ASKED))
    for number, kind in ((0, "image/jpeg"), (4, "image/png")):
        answer = client.get(f"photo/{number}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.content == (table / ASKED[number][0]).read_bytes()
    for address, size in (("photo/2", (90, 60)), ("photo/4?small", (90, 60))):
        answer = client.get(address)
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == size
    broken = client.get("photo/5")
    assert broken.status_code == 404
    assert "e.jpg" in broken.text
    assert client.get("photo/6").status_code == 404
    assert client.get("photo/x").status_code == 404


def test_no_link_out_of_the_data_folder_is_followed(table):
    outside = table.parent / "secret.jpg"
    shutil.copy(table / "a.jpg", outside)
    (table / "b.jpg").unlink()
    (table / "b.jpg").symlink_to(outside)
    answer = client_of(session_of(table, ASKED)).get("photo/0")
    assert answer.status_code == 404
    assert "outside" in answer.text


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        (f"http://127.0.0.1/{'u' * 32}/", {}),
        ("http://127.0.0.1/", {}),
        (f"http://127.0.0.1/{TOKEN}x/questions", {}),
        (f"http://127.0.0.1/{TOKEN}/questions", {"host": "evil.example"}),  # a name that points at this machine
        (f"http://127.0.0.1/{TOKEN}/questions", {"host": "evil.example:80"}),
        (f"http://127.0.0.1/{TOKEN}/questions", {"origin": "http://evil.example"}),
        (f"http://127.0.0.1/{TOKEN}/questions", {"origin": "null"}),
        (f"http://127.0.0.1/{TOKEN}/questions", {"sec-fetch-site": "cross-site"}),
        (f"http://127.0.0.1/{TOKEN}/photo/0", {"sec-fetch-site": "same-site"}),
    ],
)
def test_strangers_are_refused(table, address, headers):
    client = client_of(session_of(table, ASKED))
    for answer in (
        client.get(address, headers=headers),
        client.post(
            address.replace("questions", "answer"), headers=headers, json={"answers": [["b.jpg", "Neck 1", "yes"]]}
        ),
    ):
        assert answer.status_code == 403
    assert not (table / "reviews.csv").exists()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8765", "[::1]:8765", "box"])
def test_names_of_the_server_are_known(table, host):
    client = client_of(session_of(table, ASKED), host, hosts=("box",))
    assert client.get("questions", headers={"origin": f"http://{host}"}).status_code == 200
    page = client.get("")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("page/review.js").status_code == 200
    assert client.get("page/%2e%2e/app.py").status_code == 404


def test_many_questions_of_many_classes(tmp_path):
    images, classes = 2000, 9605
    data = tmp_path / "coco"
    data.mkdir()
    (data / "train.json").write_text(json.dumps({
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(images)],
        "annotations": [{"image_id": k, "category_id": k} for k in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(classes)],
    }))  # fmt: skip
    rng = np.random.default_rng(0)
    entries = np.unique(rng.integers(0, images * classes, 100_500))[:100_000]
    asked = [(f"{e // classes}.jpg", f"class {e % classes}", 0.5) for e in rng.permutation(entries)]
    session = session_of(data, asked)
    client = client_of(session)
    start = time.perf_counter()
    for k in range(0, 100_000, 10_000):
        assert client.get(f"questions?at={k}&open&count=10").json()["counts"]["total"] == 100_000
        post(client, "answer", (*asked[k][:2], "yes"))
        assert client.get("classes?find=9604").json()["classes"][0]["class"] == "class 9604"
    assert (time.perf_counter() - start) / 10 < 2  # seconds, of three requests
    assert session.counts()["yes"] == 10
    assert session.counts("class 9604")["total"] == sum(name == "class 9604" for _, name, _ in asked)


def test_a_name_in_two_splits_is_written_with_its_folder(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").touch()
        content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 1}]}
        content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    found = session_of(tmp_path, [("a.jpg", "dog", 0.5), ("val/a.jpg", "dog", 0.5), ("a.jpg", "cat", 0.5)])
    assert found.questions.images == ["train/a.jpg", "val/a.jpg", "train/a.jpg"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("suggestions.csv", "image,score\na.jpg,1\n", "suggestions.csv, line 1: no column 'class'"),
        ("suggestions.csv", "image,class\nzz.jpg,hat\n", "none of its 1 questions is of an image and a class of"),
        (None, "", "no suggestions.csv or audit.csv to ask about; `python -m csl suggest outputs` makes it"),
    ],
)
def test_what_cannot_be_asked_is_one_line(place, capsys, file, text, message):
    Path("outputs/audit.csv").unlink()
    if file:
        Path("outputs", file).write_text(text)
    assert main(["review", "outputs"]) == InputError.exit_status
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_questions_are_counted_that_are_of_something_else_or_twice(place):
    lines = []
    table = pd.read_csv("outputs/audit.csv")
    other = table.iloc[:2].assign(image="zz.jpg")
    pd.concat([table.iloc[:5], table.iloc[:3], other]).to_csv("outputs/audit.csv", index=False)
    file = question_file(None, Path("outputs"))
    found = Questions.read(file, Photos.read(DataOptions(data="garments")), lines.append)
    assert found.images == list(table["image"][:5])
    assert lines == [
        "outputs/audit.csv: 2 questions are of other images or classes, left out",
        "outputs/audit.csv: 3 questions stand there twice, left out",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "in use, perhaps by another `csl review`: --port N takes another"),
        (["--host", "203.0.113.1"], "--host 203.0.113.1 --port"),
        (["--reviews", "outputs/config.json"], "outputs/config.json: holds no answers"),
        (["--questions", "gone.csv"], "--questions gone.csv: no such file"),
    ],
)
def test_a_port_in_use_and_other_bad_input_are_one_line(place, capsys, words, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["review", "outputs", "--port", str(taken.getsockname()[1]), *words]) == InputError.exit_status
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("garments/reviews.csv").exists()


def test_threads_that_answer_at_once_lose_nothing(table):
    session = session_of(table, ASKED)
    client = client_of(session)
    threads = [threading.Thread(target=post, args=(client, "answer", (image, name, "yes"))) for image, name, _ in ASKED]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_reviews(table / "reviews.csv")) == len(ASKED)
    assert session.counts()["yes"] == len(ASKED)
