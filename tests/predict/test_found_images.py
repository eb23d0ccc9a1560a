"""The images that a folder and a list file stand for, and what is said of the rest."""

import os

import numpy as np
import pytest
from PIL import Image, features

from csl import InputError
from csl.data.images import load_rgb
from csl.machine.image_formats import image_suffixes
from csl.predict import find_images

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
SAVED = {"JPEG": "x a.jfif b.JPG c.jpe IMG.0001 dump.bin", "PNG": "y.photo d.PNG", "WEBP": "z e.webp", "GIF": "f.gif",
         "TIFF": "g.tif", "TGA": "h.tga", "JPEG2000": "i.jp2", "MPO": "j.mpo", "AVIF": "k.avif"}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder with photos of every format, under odd names, and what systems leave beside them."""
    photos = tmp_path / "photos"
    for name in ("@eaDir", "__MACOSX", ".trash", "sub"):
        (photos / name).mkdir(parents=True)
        PHOTO.save(photos / name / "1.jpg")
    (photos / "._a.jpg").write_bytes(b"\0\5\x16\7")
    for name in (".DS_Store", "Thumbs.db", "README", "notes.txt", "more.txt", "Python"):
        (photos / name).write_text("Python is no picture, nor is BMP")
    (photos / "film").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(40))
    PHOTO.save(photos / "raw.NEF", format="TIFF")  # in which a preview lies
    (photos / "draw.svg").write_text("<?xml version='1.0'?>\n<svg></svg>")
    return photos


def save_all(photos):
    saved = {"sub/1.jpg"}
    for format_, names in SAVED.items():
        if format_ != "AVIF" or features.check("avif"):
            for name in names.split():
                PHOTO.save(photos / name, format=format_)
                saved.add(name)
    return saved


def found(path, *flags):
    said = []
    images = find_images(path, said.append, *flags)
    return images, said


def test_every_format_is_found_in_a_folder_by_name_or_content(folder):
    saved = save_all(folder)
    images, (line,) = found(folder)
    assert {os.path.relpath(image, folder) for image in images} == saved
    assert images == sorted(images)
    for image in images:
        assert load_rgb(image).size == (24, 24)
    passed = line.partition("; passed over: ")[2]
    assert line.startswith(f"{folder}: {len(saved)} images; passed over: 6 hidden (")
    assert "2 .txt (more.txt, notes.txt)" in passed
    assert "2 without extension (Python, README)" in passed
    assert "1 video (film)" in passed
    assert "1 SVG (draw.svg)" in passed
    assert "1 .nef (raw.NEF)" in passed


def test_a_folder_of_photos_alone_says_nothing_and_one_without_says_what_is_there(tmp_path, folder):
    (tmp_path / "plain").mkdir()
    PHOTO.save(tmp_path / "plain" / "1.jpg")
    assert found(tmp_path / "plain") == ([str(tmp_path / "plain" / "1.jpg")], [])
    (folder / "sub" / "1.jpg").unlink()
    with pytest.raises(
        InputError, match=r"no images, expected .*; passed over: 6 hidden \(.*2 \.txt \(more\.txt, notes"
    ):
        find_images(folder)


def test_linked_folders_are_named_and_with_the_flag_looked_into_once(tmp_path, folder):
    (tmp_path / "else" / "deep").mkdir(parents=True)
    PHOTO.save(tmp_path / "else" / "deep" / "2.jpg")
    (folder / "a link").symlink_to(tmp_path / "else")
    (folder / "again").symlink_to(folder / "sub")
    (folder / "round").symlink_to(folder)
    (tmp_path / "else" / "deep" / "back").symlink_to(folder)
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    images, (line,) = found(folder)
    assert images == [str(folder / "sub" / "1.jpg")]
    assert "3 linked folder (--follow_links) (a link, again, round)" in line
    assert "2 link to nothing (gone.jpg, loop)" in line
    images, (line,) = found(folder, True)
    assert images == [str(folder / "a link" / "deep" / "2.jpg"), str(folder / "sub" / "1.jpg")]
    assert "3 folder that was seen under another name" in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", b"\xef\xbb\xbfa.jpg\r\n\r\n# of May\r\nsub/1.jpg  \r\n"),
        ("l", b"a.jpg\n#\n\"sub/1.jpg\"\n"),
        ("l.LST", "a.jpg\r\n#\r\nsub/1.jpg\r\n".encode("utf-16")),
    ],
)  # fmt: skip
def test_lists_of_any_spelling(folder, monkeypatch, name, content):
    PHOTO.save(folder / "a.jpg")
    (folder / name).write_bytes(content)
    monkeypatch.chdir(folder.parent)
    expected = [str(folder / "a.jpg"), str(folder / "sub" / "1.jpg")]
    line = f"{folder / name}: 2 images listed, relative to {folder}; 1 lines that begin with # left out"
    assert found(folder / name) == (expected, [line])


def test_a_list_is_relative_to_itself_or_to_the_working_folder_and_never_to_both(folder, tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    names = tmp_path / "lists" / "l.txt"
    monkeypatch.chdir(folder)
    PHOTO.save(folder / "#1.jpg")
    names.write_text(f"sub/1.jpg\n#1.jpg\nmissing.jpg\n{folder}/sub/1.jpg\n# end\n")
    images, (line,) = found(names)
    assert images == ["sub/1.jpg", "#1.jpg", "missing.jpg", f"{folder}/sub/1.jpg"]
    assert f"4 images listed, relative to the working folder {folder}; 1 lines" in line
    PHOTO.save(tmp_path / "lists" / "missing.jpg")
    with pytest.raises(
        InputError, match=r"l\.txt: 'sub/1\.jpg' is in the working folder, 'missing\.jpg' beside the list"
    ):
        find_images(names)
    names.write_text("missing.jpg\n")
    PHOTO.save(folder / "missing.jpg")
    with pytest.raises(InputError, match=r"'missing\.jpg' is in the working folder, 'missing\.jpg' beside the list"):
        find_images(names)
    (folder / "missing.jpg").unlink()
    (folder / "missing.jpg").symlink_to(tmp_path / "lists" / "missing.jpg")  # the same file
    assert found(names)[0] == [str(tmp_path / "lists" / "missing.jpg")]


def test_a_list_of_bytes_that_are_no_utf_8_and_what_is_no_list(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    PHOTO.save(tmp_path / name, format="JPEG")
    (tmp_path / "l.txt").write_bytes(b"caf\xe9.jpg\n")
    images, _ = found(tmp_path / "l.txt")
    assert load_rgb(images[0]).size == (24, 24)
    (tmp_path / "l.txt").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="cannot be read as a list of images"):
        find_images(tmp_path / "l.txt")
    PHOTO.save(tmp_path / "photo", format="JPEG")
    assert found(tmp_path / "photo") == ([str(tmp_path / "photo")], [])


def test_a_photo_has_the_same_endings_wherever_names_are_looked_at(tmp_path):
    from csl.labels.photos import Photos

    assert {".jpg", ".jfif", ".avif", ".heic", ".pgm", ".mpo", ".jp2", ".tga"} <= image_suffixes()
    assert not {".pdf", ".eps", ".mpg", ".psd", ""} & image_suffixes()
    for name in ("a.jfif", "b.jp2", "c.TGA"):
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("a.jfif", "b.jp2", "c.TGA")]
    assert Photos([tmp_path]).paths(["a", "b.jpg", "c"]) == expected


def test_a_list_from_windows_names_photos_with_backslashes(tmp_path):
    names, photo = tmp_path / "list.txt", tmp_path / "in" / "a.png"
    photo.parent.mkdir()
    PHOTO.save(photo)
    names.write_bytes(b"in\\a.png\r\n.\\in\\none.png\r\n")
    assert found(names)[0] == [str(photo), str(tmp_path / "in" / "none.png")]
    odd = tmp_path / "in\\a.png"  # a name that has one
    PHOTO.save(odd)
    assert found(names)[0][0] == str(odd)
