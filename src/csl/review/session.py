"""Questions and the answers to them so far: what is open, what comes next, what is known of a photo."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from csl.errors import InputError
from csl.labels import NEGATIVE, POSITIVE
from csl.labels.class_set import several_values
from csl.labels.reviews import ANSWERS, NO, YES, classes_of, newest
from csl.review.answers import Answers
from csl.review.questions import AUDIT, Questions

_OPEN, _SETTLED = -1, len(ANSWERS)
_MOST = 60  # questions, and classes, of one request
_NAMES = 24  # classes that are shown of a photo

Given = Sequence[tuple[str, str, str]]
"""Image, class and answer of each."""


class Session:
    """What the page asks for and tells; several threads may do so at once.

    The values of an attribute exclude each other: where one is answered with yes, open questions about others of the photo are
    settled, and not asked; any value of the attribute that a question is about may be the answer. An audit asks for all that it
    has drawn, and for nothing else.

    Args:
        questions: Q questions.
        answers: the file that answers go to.
    """

    def __init__(self, questions: Questions, answers: Answers):
        self.questions, self.answers = questions, answers
        self._lock = threading.RLock()
        self._names, self._class = np.unique(np.array(questions.classes, dtype=object), return_inverse=True)
        self._folded = [name.casefold() for name in self._names]
        self._number = {tuple(place): k for k, place in enumerate(questions.places.tolist())}
        self._photo = dict(zip(questions.images, map(tuple, questions.places[:, :2].tolist()), strict=True))
        self._key = {key: k for k, key in enumerate(zip(questions.images, questions.classes, strict=True))}
        self._state = np.full(len(questions), _OPEN, np.int8)
        self._photos: dict[tuple[int, int], dict[int, str]] = {}  # (split, row) -> {class: answer}
        self._group: dict[int, tuple[str, range]] = {}  # class -> its attribute
        for attribute, group in several_values(questions.photos.parts[0].groups).items():
            values = range(group.start, group.stop)
            self._group |= dict.fromkeys(values, (attribute, values))
        self._of_photo: dict[tuple[int, int], list[int]] = {}  # its questions about attributes
        for k, (part, row, column) in enumerate(questions.places.tolist()):
            if column in self._group and questions.file.name != AUDIT:
                self._of_photo.setdefault((part, row), []).append(k)
        self._version: int | None = None
        self._update()

    def _update(self):
        """Take in what others have written into the file."""
        reviews = self.answers.all()
        if self._version == self.answers.version:
            return
        self._version = self.answers.version
        reviews = list(newest(reviews).values())
        self._state[:], self._photos = _OPEN, {}
        places = self.questions.photos.find([review.image for review in reviews], [review.name for review in reviews])
        for review, place in zip(reviews, places.tolist(), strict=True):
            self._note(place, review.answer)

    def _note(self, place, answer):
        """Remember the answer to an image and a class; None takes it back."""
        k, of_photo = self._number.get(tuple(place)), tuple(place[:2])
        if k is not None:
            self._state[k] = _OPEN if answer is None else ANSWERS.index(answer)
        photo = self._photos.setdefault(of_photo, {})
        photo.pop(place[2], None)
        if answer is not None:
            photo[place[2]] = answer
        for k in self._of_photo.get(of_photo, ()):
            if self._state[k] in (_OPEN, _SETTLED):
                _, group = self._group[self.questions.places[k][2]]
                settled = any(photo.get(c) == YES for c in group)
                self._state[k] = _SETTLED if settled else _OPEN

    def counts(self, name: str | None = None) -> dict[str, int]:
        """How many questions there are, are left, and have each answer, of one class or of all."""
        with self._lock:
            self._update()
            state = self._state if name is None else self._state[self._of_class(name)]
            of_answer = {answer: int((state == k).sum()) for k, answer in enumerate(ANSWERS)}
            return {"total": len(state), "left": int((state == _OPEN).sum()), **of_answer}

    def ask(
        self, at: int = 0, count: int = 1, name: str | None = None, only_open: bool = False, back: bool = False
    ) -> list[dict[str, Any]]:
        """The next questions from number `at` on, or with `back` down from it: of one class, or only those without answer."""
        with self._lock:
            self._update()
            wanted = self._state == _OPEN if only_open else np.ones(len(self._state), bool)
            if name is not None:
                wanted &= self._of_class(name)
            places = np.flatnonzero(wanted[: at + 1])[::-1] if back else at + np.flatnonzero(wanted[at:])
            return [self._question(int(k)) for k in places[: min(count, _MOST)]]

    def _question(self, k):
        questions, (part, row, column) = self.questions, self.questions.places[k].tolist()
        annotations = questions.photos.parts[part]
        labels, said = annotations.labels[row], int(annotations.labels[row][column])  # int8 [C]
        for c, answer in self._photos.get((part, row), {}).items():
            if answer == YES and c in self._group:
                labels[self._group[c][1]] = NEGATIVE
            labels[c] = {YES: POSITIVE, NO: NEGATIVE}.get(answer, labels[c])
        labels[column] = -1
        there, absent = (np.flatnonzero(labels == value).tolist() for value in (POSITIVE, NEGATIVE))
        said_by_others = {
            self._group[c][0] for c in there if c in self._group
        }  # which value it is says which it is not
        absent = [c for c in absent if self._group.get(c, (None,))[0] not in said_by_others]
        return {
            "id": k,
            "image": questions.images[k],
            "class": questions.classes[k],
            "score": questions.scores[k],
            "answer": self._answer(k),
            "attribute": self._group.get(column, (None,))[0],
            "values": self._values(annotations, (part, row), column),
            "label": {POSITIVE: YES, NEGATIVE: NO}.get(said),
            "there": self._few(annotations, there),
            "absent": self._few(annotations, absent),
        }

    def _answer(self, k):
        """The answer that a question has; None where it has none of its own."""
        return None if self._state[k] in (_OPEN, _SETTLED) else ANSWERS[self._state[k]]

    def _values(self, annotations, photo, column):
        """The values of the attribute that may be answered in place of the class, and which of them is; [] where none may."""
        if photo not in self._of_photo or column not in self._group:
            return []
        answers, (_, group) = self._photos.get(photo, {}), self._group[column]
        there = [c for c, answer in answers.items() if answer == YES and c in group][-1:]  # the newest counts
        return [[annotations.classes[c], YES if c in there else None] for c in group]

    @staticmethod
    def _few(annotations, classes):
        """The first names of some classes, and how many more there are."""
        names = [annotations.classes[c] for c in classes[:_NAMES]]
        return {"names": names, "more": len(classes) - len(names)}

    def classes(self, find: str = "") -> list[dict[str, Any]]:
        """Classes with a part of their name, those with the most open questions first, and how many these are."""
        with self._lock:
            self._update()
            left = np.bincount(self._class[self._state == _OPEN], minlength=len(self._names))
            total = np.bincount(self._class, minlength=len(self._names))
            find = find.casefold().strip()
            found = [k for k, name in enumerate(self._folded) if find in name]
            found.sort(key=lambda k: (not self._folded[k].startswith(find), -left[k], self._folded[k]))
            return [
                {"class": self._names[k], "left": int(left[k]), "total": int(total[k])}
                for k in found[: min(_MOST, len(found))]
            ]

    def answer(self, given: Given) -> None:
        """Write answers into the file. One that the question has already is not written again.

        Raises:
            InputError: it is the answer to no question, or no answer.
            MachineError: the file cannot be written; no answer of these is taken.
        """
        with self._lock:
            self._update()
            new = []
            for image, name, answer in given:
                place, k = self._of(image, name)
                if answer not in ANSWERS:
                    raise InputError(f"answer: found {str(answer)[:80]!r}, expected {', '.join(ANSWERS)}")
                if self._photos.get(place[:2], {}).get(place[2]) != answer:
                    new.append((place, (image, name, answer, "" if k is None else self.questions.scores[k])))
            self.answers.add([row for _, row in new])
            self._update()
            for place, (_, _, answer, _) in new:
                self._note(place, answer)

    def undo(self, given: Given) -> None:
        """Take back answers, where they still count; what was answered before counts again."""
        with self._lock:
            self._update()
            for image, name, answer in given:
                place, _ = self._of(image, name)
                if self._photos.get(place[:2], {}).get(place[2]) == answer:
                    before = self.answers.undo(image, name)
                    self._update()
                    self._note(place, before)

    def _of(self, image, name):
        """The place of an image and a class, and its question; None where it is another value of one's attribute."""
        if (k := self._key.get((image, name))) is not None:
            return tuple(self.questions.places[k].tolist()), k
        photo = self._photo.get(image)
        column = int(classes_of(self.questions.photos.parts[0], [name])[0])
        asked = {self._group[int(self.questions.places[k][2])] for k in self._of_photo.get(photo, ())}
        if self._group.get(column) not in asked:
            raise InputError(
                f"{str(image)[:80]!r}, {str(name)[:80]!r}: not among the questions of {self.questions.file}"
            )
        return (*photo, column), None

    def _of_class(self, name):
        place = np.searchsorted(self._names, name)
        if place == len(self._names) or self._names[place] != name:
            return np.zeros(len(self._class), bool)
        return self._class == place
