"""A report of 9,605 classes in a real Chromium: it opens, sorts, searches and draws within seconds."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from csl import Annotations, LabelMatrix
from csl.report import write_report
from csl.runs.folder import RunFolder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CLASSES = 9605

# What a reader does: a click on a heading, twice; words in the search; a click on a class; down to the last row.
VISIT = """<script>
addEventListener("load", () => {
  const found = {}, rows = () => [...document.querySelectorAll("#rows tr[data-row]")];
  const timed = (name, act) => {
    const start = performance.now();
    act();
    document.body.offsetHeight;  // layout
    found[name] = { ms: performance.now() - start, rows: rows().length, first: rows()[0].cells[0].textContent };
  };
  const heading = (title) => [...document.querySelectorAll("#rows th button")].find((b) => b.textContent === title);
  const box = document.getElementById("rows"), find = document.getElementById("find");
  found.opened = { ms: performance.now(), rows: rows().length, first: rows()[0].cells[0].textContent };
  timed("falling", () => heading("AP").click());
  timed("rising", () => heading("AP").click());
  timed("search", () => { find.value = "class 960"; find.dispatchEvent(new Event("input")); });
  found.count = document.getElementById("count").value;
  timed("detail", () => rows()[0].click());
  found.drawings = document.querySelectorAll("#detail svg").length;
  timed("all", () => { find.value = ""; find.dispatchEvent(new Event("input")); });
  box.scrollTop = box.scrollHeight;
  setTimeout(() => {
    found.last = rows().at(-1).cells[0].textContent;
    found.wide = document.documentElement.scrollWidth > innerWidth;
    const result = document.createElement("pre");
    result.id = "found";
    result.textContent = JSON.stringify(found);
    document.body.append(result);
  }, 300);
});
</script></body>"""


def visited(page, width):
    """What `VISIT` found on a page in a window of that width."""
    visit = page.with_name("visit.html")
    visit.write_text(page.read_text().replace("</body>", VISIT))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom",
               "--virtual-time-budget=20000", f"--user-data-dir={page.parent / 'profile'}", visit.as_uri()]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(re.search(r'<pre id="found">(.*?)</pre>', shown)[1])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_thousands_of_classes_do_not_hang(tmp_path):
    random = np.random.default_rng(0)
    targets = random.choice([1, 0, -1], size=(30, CLASSES), p=[0.1, 0.2, 0.7]).astype(np.int8)
    labels, classes = LabelMatrix.from_dense(targets), [f"class {c}" for c in range(CLASSES)]
    scored = Annotations([f"{i}.jpg" for i in range(30)], labels, classes)
    page = write_report(RunFolder(tmp_path), scored, scored, random.random(targets.shape).astype(np.float32))
    assert page.stat().st_size < 8e6
    assert not visited(page, 390)["wide"]  # a phone: the table scrolls, the page does not
    found = visited(page, 1280)
    assert found["opened"]["first"] == "class 0"
    assert found["count"] == "14 of 9,605 classes"  # 960, 1960, ... and 9600 to 9604
    assert found["search"]["rows"] == 14
    assert found["drawings"] >= 1
    assert found["last"] != found["all"]["first"]
    assert not found["wide"]
    data = json.loads(re.search(r'id="table-data">(.*?)</script>', page.read_text())[1])
    ap = next(column["values"] for column in data["columns"] if column["title"] == "AP")
    there = [(value, -c) for c, value in enumerate(ap) if value is not None]
    assert found["falling"]["first"] == f"class {-max(there)[1]}"
    assert found["rising"]["first"] == f"class {min((value, -place) for value, place in there)[1]}"
    for step in ("opened", "falling", "rising", "search", "detail", "all"):
        assert found[step]["rows"] < 100, step  # those in sight
        assert found[step]["ms"] < 10_000, step
