"""The page in a real browser: keys become answers in the file, whatever happens to the browser or to the server."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[test]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser here: apt-get install chromium")

PATIENCE = 60_000  # milliseconds
sync_api.expect.set_options(timeout=PATIENCE)


class Served:
    """`csl review outputs` in a folder, as a process of its own."""

    def __init__(self, folder, *flags):
        self.folder, self.flags = folder, flags
        self.start("0")

    def start(self, port):
        words = [sys.executable, "-m", "csl", "review", "outputs", "--port", port, *self.flags]
        self.process = subprocess.Popen(words, cwd=self.folder, stdout=subprocess.PIPE, text=True)
        self.said = ""
        while not (found := re.search(r"http://\S+:(\d+)/\S+/", self.said)):
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.address, self.port = found[0], found[1]

    def stop(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.said += self.process.communicate(timeout=60)[0]
        return self.process.returncode

    def answers(self):
        file = self.folder / "garments" / "reviews.csv"
        return pd.read_csv(file, dtype=str, keep_default_na=False) if file.exists() else pd.DataFrame()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(drawn_run, tmp_path_factory):
    """One server for the module; its tests go on where the one before stopped."""
    folder = shutil.copytree(drawn_run, tmp_path_factory.mktemp("served") / "run")
    server = Served(folder)
    yield server
    server.stop()


@pytest.fixture
def context(browser):
    opened = browser.new_context(viewport={"width": 1200, "height": 800})
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


def tab(context, served):
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(served.address)
    page.wait_for_selector("#single:not([hidden])")
    return page


def at(page):
    """The image and the class that the page asks about."""
    return page.inner_text("#about").split(" ")[0], page.inner_text("#question").removesuffix("?")


def saved(page):
    """Wait until the server has confirmed everything."""
    page.wait_for_function("() => waiting.length === 0")


def table_of(questions):
    return pd.read_csv(questions.folder / "outputs" / "audit.csv", dtype=str)


def press(page, *keys):
    """Press keys, each when the page asks about another question than before it."""
    for key in keys:
        before = at(page)
        page.keyboard.press(key)
        page.wait_for_function("before => $('about').textContent.split(' ')[0] + $('question').textContent !== before",
                               arg=before[0] + before[1] + "?")  # fmt: skip


def test_keys_become_answers_in_the_file(served, context):
    page = tab(context, served)
    asked = [at(page)]
    for key in ("y", "n", " "):
        press(page, key)
        asked.append(at(page))
    saved(page)
    found = served.answers()
    assert list(zip(found["image"], found["class"], found["answer"], strict=True)) == [
        (*asked[0], "yes"), (*asked[1], "no"), (*asked[2], "unsure"),
    ]  # fmt: skip
    wanted = table_of(served).iloc[:4]
    assert asked == list(zip(wanted["image"], wanted["class"], strict=True))
    assert list(found["score"]) == list(wanted["score"][:3])
    sync_api.expect(page.locator("#left")).to_have_text("397 of 400 left")
    page.wait_for_function("$('photo').complete && $('photo').naturalWidth === 48")
    press(page, "ArrowLeft")  # back to the third: its answer is shown, and another one counts in its place
    assert at(page) == asked[2]
    sync_api.expect(page.locator("[data-answer=unsure]")).to_have_attribute("aria-pressed", "true")
    press(page, "n")
    saved(page)
    assert list(served.answers()["answer"]) == ["yes", "no", "unsure", "no"]
    assert not page.faults


def test_undo_takes_answers_out_again_also_after_a_reload(served, context):
    before = served.answers()
    page = tab(context, served)
    first = at(page)
    press(page, "y", "n")
    saved(page)
    page.reload()
    page.wait_for_selector("#single:not([hidden])")
    press(page, "u")
    press(page, "u")
    saved(page)
    assert at(page) == first
    sync_api.expect(page.locator("[data-answer=yes]")).to_have_attribute("aria-pressed", "false")
    pd.testing.assert_frame_equal(served.answers(), before)
    page.keyboard.press("u")  # nothing is left that this tab has answered
    saved(page)
    pd.testing.assert_frame_equal(served.answers(), before)


def test_two_tabs_know_of_each_other(served, context):
    one, two = tab(context, served), tab(context, served)
    assert at(one) == at(two)
    press(one, "y")
    two.wait_for_selector("[data-answer=yes][aria-pressed=true]")
    saved(one)
    press(two, "ArrowRight")
    assert at(two) == at(one)
    press(two, "n")
    one.wait_for_selector("[data-answer=no][aria-pressed=true]")
    saved(two)
    assert list(served.answers()["answer"][-2:]) == ["yes", "no"]


def test_a_killed_server_loses_nothing(served, context):
    page = tab(context, served)
    before = len(served.answers())
    press(page, "y", "y")
    saved(page)
    served.stop()
    assert len(served.answers()) == before + 2
    press(page, "n", "n")  # nobody hears them yet
    page.wait_for_selector("#problem:not([hidden])")
    assert "not saved yet" in page.inner_text("#problem")
    served.start(served.port)
    saved(page)
    assert list(served.answers()["answer"][before:]) == ["yes", "yes", "no", "no"]
    assert page.is_hidden("#problem")


def test_a_tab_that_is_closed_at_once_loses_nothing(served, context):
    page = tab(context, served)
    before = len(served.answers())
    page.keyboard.press("y")
    page.close()
    until = time.monotonic() + 30
    while len(served.answers()) == before and time.monotonic() < until:
        time.sleep(0.02)
    assert len(served.answers()) == before + 1


def test_a_batch_of_one_class_where_a_click_toggles(served, context):
    page = tab(context, served)
    before = len(served.answers())
    page.fill("#find", "neck 3")
    page.wait_for_selector("#found button >> text=Neck 3")
    page.keyboard.press("Enter")
    page.wait_for_function("() => $('question').textContent === 'Neck 3?'")
    page.keyboard.press("g")
    page.wait_for_selector(".tile")
    tiles = page.query_selector_all(".tile")
    page.click(".tile >> nth=0")
    page.click(".tile >> nth=1")
    page.click(".tile >> nth=1")
    assert [page.get_attribute(f".tile >> nth={k}", "data-answer") for k in range(3)] == ["yes", "no", ""]
    page.keyboard.press("Enter")
    saved(page)
    found = served.answers()[before:]
    assert set(found["class"]) == {"Neck 3"}
    newest = found.drop_duplicates(["image", "class"], keep="last")
    assert list(newest["answer"]).count("yes") == 1
    assert len(newest) == len(tiles)
    page.keyboard.press("u")
    saved(page)
    assert len(served.answers()) == before + 3
    assert not page.faults


def test_a_late_answer_to_an_earlier_text_finds_nothing(served, context):
    page, held = tab(context, served), []
    page.route("**/classes?*", lambda route: held.append(route))
    page.fill("#find", "neck 3")  # asks twice: when the field is entered, and when it is written in
    page.keyboard.press("Enter")  # before anything was found
    while len(held) < 2:
        page.wait_for_timeout(10)
    held[1].continue_()
    page.wait_for_function("() => $('question').textContent === 'Neck 3?'")
    held[0].continue_()
    page.wait_for_timeout(200)
    assert page.inner_text("#question") == "Neck 3?"
    assert page.is_hidden("#found")
    assert not page.faults


def test_a_key_for_each_value_of_an_attribute(drawn_run, tmp_path, context):
    """The tenth by 0, and those after it by letters, none of which is another key."""
    folder = shutil.copytree(drawn_run, tmp_path / "run")
    file = folder / "garments" / "attributes.csv"
    lines = pd.read_csv(file, dtype=str, keep_default_na=False)[["filename", "split"]]
    lines["size"] = [str(row % 34) if row < 48 else "#N/A" for row in range(len(lines))]
    lines.to_csv(file, index=False)
    unknown = lines[(lines["size"] == "#N/A") & (lines["split"] == "train")]["filename"]
    pd.DataFrame({"image": unknown, "class": "Size 0"}).to_csv(folder / "outputs" / "suggestions.csv", index=False)
    server = Served(folder)
    try:
        page = tab(context, server)
        shown = [button.inner_text().split() for button in page.query_selector_all("#values button")]
        assert len(shown) == 34
        keys = {words[2]: " ".join(words[:2]) for words in shown if len(words) == 3}
        assert len(keys) == 32
        assert not set("ynug/") & set(keys)
        asked = [("1", "Size 0"), ("0", "Size 9"), ("a", "Size 10"), ("z", "Size 31")]
        for key, name in asked:
            assert keys[key] == name
            image = at(page)[0]
            page.keyboard.press(key)
            page.wait_for_function("image => !$('about').textContent.startsWith(image)", arg=image)
        saved(page)
        assert [(k, a) for k, a in zip(server.answers()["class"], server.answers()["answer"], strict=True)] == [
            (name, "yes") for _, name in asked
        ]
        page.keyboard.press("y")  # is still yes
        saved(page)
        assert list(server.answers()["class"])[-1] == "Size 0"
        assert not page.faults
    finally:
        server.stop()


ANSWER_BY_KEY = """
async (count) => {  // press a key, wait until the next photo is decoded and drawn, and so on
  const frame = () => new Promise(requestAnimationFrame), start = performance.now();
  for (let k = 0; k < count; k++) {
    const before = current.id;
    document.dispatchEvent(new KeyboardEvent("keydown", {key: "yn "[k % 3], bubbles: true}));
    while (current.id === before) await frame();
    await $("photo").decode();
    await frame();
  }
  while (waiting.length) await frame();
  return (performance.now() - start) / 1000 / count;
}"""


def test_how_long_an_answer_takes(served, context, capsys):
    page = tab(context, served)
    left, before = int(page.inner_text("#left").split()[0]), len(served.answers())
    count = min(300, left - 1)
    seconds = page.evaluate(ANSWER_BY_KEY, count)
    with capsys.disabled():
        print(
            f"\n{count} answers by key: {1000 * seconds:.0f} ms each, until it is on the disk and the next photo is shown"
        )
    page.wait_for_function("left => parseInt(document.querySelector('#left').innerText) === left", arg=left - count)
    assert len(served.answers()) == before + count
    assert seconds < 1


def test_after_the_last_answer_nothing_is_asked_again(drawn_run, tmp_path, context):
    folder = shutil.copytree(drawn_run, tmp_path / "run")
    table = folder / "outputs" / "audit.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    server = Served(folder)
    try:
        page = tab(context, server)
        page.route(
            "**/answer", lambda route: (time.sleep(0.5), route.continue_())
        )  # the page asks on before it is saved
        press(page, "n")
        page.keyboard.press("n")
        page.wait_for_selector("#done:not([hidden])", timeout=10_000)
        saved(page)
        assert page.inner_text("#left") == "0 of 2 left"
        assert list(server.answers()["answer"]) == ["no", "no"]
    finally:
        server.stop()


def test_ctrl_c_ends_it_and_tells_what_to_do_next(served):
    assert served.stop(signal.SIGINT) == 0
    assert "left; the answers are in" in served.said
    assert "to train with them:" in served.said
