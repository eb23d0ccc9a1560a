"""The file of answers: what is confirmed is in it, whoever else writes, and whatever the power does."""

import multiprocessing
import os

import pytest

from csl import InputError
from csl.errors import MachineError
from csl.labels.reviews import read_reviews
from csl.review.answers import Answers

HEADER = "image,class,answer,score,when\n"


def cells(file):
    return [review[:4] for review in read_reviews(file)]


def add_many(file, name, count):
    answers = Answers(file)
    for k in range(count):
        answers.add([(f"{name}{k}.jpg", "hat", "yes", "")])


def test_answers_of_several_processes_all_arrive(tmp_path):
    file = tmp_path / "reviews.csv"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_many, args=(file, name, 40)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(image for image, *_ in cells(file)) == sorted(f"{name}{k}.jpg" for name in "abc" for k in range(40))


def test_undo_takes_out_the_newest_answer_to_a_question(tmp_path):
    answers = Answers(tmp_path / "reviews.csv")
    for answer in ("yes", "no"):
        answers.add([("a.jpg", "hat", answer, "0.5"), ("b.jpg", "hat", answer, "")])
    assert answers.undo("a.jpg", "hat") == "yes"
    assert cells(answers.file) == [
        ("a.jpg", "hat", "yes", "0.5"),
        ("b.jpg", "hat", "yes", ""),
        ("b.jpg", "hat", "no", ""),
    ]
    assert answers.undo("a.jpg", "hat") is None
    assert answers.undo("a.jpg", "hat") is None
    assert cells(answers.file) == [("b.jpg", "hat", "yes", ""), ("b.jpg", "hat", "no", "")]


def test_names_that_spreadsheets_would_run_come_back_as_they_were(tmp_path):
    answers = Answers(tmp_path / "reviews.csv")
    row = ('=1+1,"x".jpg', "+cmd(1)'\"", "yes", "0.1")
    answers.add([row])
    assert cells(answers.file) == [row]
    assert not [line for line in answers.file.read_text().splitlines() if line.startswith(("=", '"='))]


@pytest.mark.parametrize(
    ("tail", "kept"),
    [("b.jpg,ha", 1), ("b.jpg,hat,no,", 1), ('"b.jpg', 1), ("b.jpg,hat,no,,2026-01-01T00:00:00+00:00", 2)],
)
def test_the_last_line_is_ended_after_a_power_cut(tmp_path, tail, kept):
    file = tmp_path / "reviews.csv"
    file.write_text(f"{HEADER}a.jpg,hat,yes,,2026-01-01\n{tail}")
    Answers(file).add([("c.jpg", "hat", "no", "")])
    assert len(cells(file)) == kept + 1


def test_the_newest_counts_though_a_clock_was_ahead(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text(f"{HEADER}a.jpg,hat,yes,,2999-01-01T00:00:00+00:00\n")
    Answers(file).add([("a.jpg", "hat", "no", "")])
    assert cells(file)[-1] == ("a.jpg", "hat", "no", "")


@pytest.mark.parametrize("text", ["filename,hat\na.jpg,1\n", f"{HEADER}a.jpg,hat,perhaps,,2026-01-01\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    file = tmp_path / "reviews.csv"
    file.write_text(text)
    with pytest.raises(InputError):
        Answers(file)
    assert file.read_text() == text


def test_a_full_disk_takes_no_answer_and_leaves_no_half_of_one(tmp_path, monkeypatch):
    answers = Answers(tmp_path / "reviews.csv")
    answers.add([("a.jpg", "hat", "yes", "")])
    before = answers.file.read_bytes()
    write = os.write

    def half(descriptor, data):  # a disk that takes ten bytes and then no more
        if len(data) <= 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(MachineError, match="No space left on device"):
        answers.add([("b.jpg", "hat", "yes", "")])
    monkeypatch.undo()
    assert answers.file.read_bytes() == before
    answers.add([("b.jpg", "hat", "no", "")])
    assert len(cells(answers.file)) == 2
