"""Photos that are the same by bytes or by path."""

import numpy as np

from csl.data.duplicates import same_photos


def test_equal_bytes_and_equal_paths_are_one_photo(tmp_path):
    contents = {"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"one", "d.jpg": b"longer", "link.jpg": None}
    for name, content in contents.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "d.jpg")
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "link.jpg", "a.jpg", "not there.jpg", "nor this.jpg", "nor this.jpg"]
    groups = same_photos([str(tmp_path / name) for name in names])
    _, groups = np.unique(groups, return_inverse=True)
    assert groups.tolist() == [0, 1, 0, 2, 2, 0, 3, 4, 4]
