"use strict";
// The page of `csl review`. Answers are shown at once and sent in their order; what the server has not confirmed yet stays in
// `waiting`, which outlives a reload, and is sent again until it is.

const $ = (id) => document.getElementById(id);
const BATCH = 24, AHEAD = 10, PHOTOS_AHEAD = 4, AGAIN_MS = 1000;
const KEYS = {y: "yes", n: "no", " ": "unsure"};
const VALUE_KEYS = "1234567890abcdefhijklmopqrstvwxz";  // of an attribute: the letters are those that no other key is
const kept = (name, other) => JSON.parse(sessionStorage.getItem(name) ?? JSON.stringify(other));
const keep = (name, value) => sessionStorage.setItem(name, JSON.stringify(value));

let view = kept("view", {at: 0, class: null, grid: false});  // where this tab is
let current = null;  // the question that is shown
let ahead = [];      // open questions after it
let batch = [];      // questions of the grid
let given = kept("given", []);      // what this tab has answered, for undo: lists of questions with answer and the one before
let waiting = kept("waiting", []);  // what the server has not confirmed
let turns = 0;       // goes up with each view that is asked for: a late answer of the server's to an earlier one is not shown
let searching = null;  // the promise that the classes found are those of the text
let delivery = null;  // the promise that everything that waits is confirmed
const known = new Map();  // question -> its answer in this tab: what the server says may be older than what is on its way to it
const tabs = new BroadcastChannel("answers of " + location.pathname);

// ------------------------------------------------------------------------------------------------------------ the server

async function ask(parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== false));
  const response = await fetch("questions?" + query);
  if (!response.ok) throw new Error(await response.text());
  const {questions, counts} = await response.json();
  showCounts(counts);
  return questions;
}

function send(address, answers) {
  waiting.push({address, answers});
  keep("waiting", waiting);
  deliver();
}

function deliver() {
  return waiting.length ? delivery ??= sendAll() : null;
}

async function sendAll() {
  while (waiting.length) {
    const {address, answers} = waiting[0];
    let response = null;
    try {
      response = await fetch(address, {
        method: "POST", keepalive: true, headers: {"Content-Type": "application/json"},
        body: JSON.stringify({answers, class: view.class}),
      });
    } catch { /* the server is not there: below */ }
    if (response?.ok) {
      waiting.shift();
      keep("waiting", waiting);
      showCounts((await response.json()).counts);
      problem(null);
    } else {
      problem(`${waiting.length} not saved yet, trying again: ` + (response ? await response.text() : "the server does not answer"));
      await new Promise((resume) => setTimeout(resume, AGAIN_MS));
    }
  }
  delivery = null;
}

// ---------------------------------------------------------------------------------------------------------------- answers

function answer(questions, word) {
  const changed = questions.filter((q) => q.answer !== word);
  if (!changed.length) return;
  given.push(changed.map((q) => ({id: q.id, image: q.image, class: q.class, answer: word, before: q.answer})));
  keep("given", given = given.slice(-1000));
  for (const q of changed) {
    q.answer = word;  // a value of an attribute settles the others
    known.set(q.id, word);
    if (word === "yes" && q.attribute) ahead = ahead.filter((one) => one.image !== q.image || one.attribute !== q.attribute);
  }
  send("answer", changed.map((q) => [q.image, q.class, word]));
  tabs.postMessage(changed.filter((q) => batch.includes(q) || q === current).map((q) => [q.id, word]));
}

function undo() {
  const last = given.pop();
  if (!last) return;
  keep("given", given);
  send("undo", last.map((one) => [one.image, one.class, one.answer]));
  tabs.postMessage(last.map((one) => [one.id, one.before]));
  for (const one of last) take(one.id, one.before);
  if (!view.grid) go(last[0].id);
}

function take(id, word) {  // an answer that was given elsewhere, or taken back
  known.set(id, word);
  for (const q of [current, ...ahead, ...batch]) if (q?.id === id) q.answer = word;
  ahead = ahead.filter((q) => q.answer === null);
  if (view.grid) showTiles(); else if (current?.id === id) show(current);
}

tabs.onmessage = ({data}) => data.forEach(([id, word]) => take(id, word));

// ------------------------------------------------------------------------------------------------------- one at a time

async function go(at, {back = false, open = false} = {}) {
  const turn = ++turns;
  let [found] = await ask({at: Math.max(at, 0), class: view.class, open, back});
  if (!found && open) {  // those that were passed over; what is not confirmed yet the server has for open
    await deliver();
    [found] = await ask({at: 0, class: view.class, open});
  }
  if (turn !== turns) return;
  if (found && known.has(found.id)) found.answer = known.get(found.id);
  if (found) show(found, true);
  else if (open) done();
}

function show(question, fresh = false) {
  current = question;
  view.at = question.id;
  keep("view", view);
  $("done").hidden = $("grid").hidden = true;
  $("single").hidden = false;
  $("question").textContent = question.class + "?";
  const said = question.label === null ? "" : `the labels say ${question.label}`;
  $("about").textContent = [question.image, question.score && `score ${question.score}`, said].filter(Boolean).join(" · ");
  const parts = [["there", question.there], ["not there", question.absent]].filter(([, some]) => some.names.length);
  $("known").textContent = parts.map(([word, some]) =>
    `${word}: ${some.names.join(", ")}${some.more ? ` and ${some.more} more` : ""}`).join(" · ");
  for (const button of $("answers").children) button.setAttribute("aria-pressed", button.dataset.answer === question.answer);
  showValues(question);
  if ($("photo").dataset.id !== String(question.id)) {
    $("photo").dataset.id = question.id;
    $("photo").alt = question.image;
    $("broken").hidden = true;
    $("photo").hidden = false;
    $("photo").src = "photo/" + question.id;
  }
  if (fresh) ahead = [];
  look();
}

function showValues({values}) {  // of the attribute: which it is says more than that it is not this one
  $("values").replaceChildren(...values.map(([name, word], place) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.textContent = name + " ";
    key.textContent = VALUE_KEYS[place];
    if (place < VALUE_KEYS.length) button.append(key);
    button.setAttribute("aria-pressed", word === "yes");
    button.onclick = () => pick(place);
    return button;
  }));
}

function pick(place) {
  const name = current?.values[place]?.[0];
  if (name === undefined || $("single").hidden) return;
  if (name === current.class) { answerCurrent("yes"); return; }
  answer([{...current, class: name, answer: null}], "yes");
  goOn();
}

let looking = false;
async function look() {  // fetch what comes next, while a person looks
  if (looking || ahead.length > AHEAD / 2) return;
  looking = true;
  try {
    const from = (ahead.at(-1) ?? current).id + 1, of = view.class;
    const found = await ask({at: from, count: AHEAD, class: of, open: true});
    const waits = new Set(waiting.flatMap((one) => one.answers.map(([image, name]) => image + "\n" + name)));
    if (of === view.class) {
      const ids = new Set(ahead.map((q) => q.id));
      ahead.push(...found.filter((q) => q.id > current.id && !ids.has(q.id) && !waits.has(q.image + "\n" + q.class)));
      for (const q of ahead.slice(0, PHOTOS_AHEAD)) new Image().src = "photo/" + q.id;
    }
  } catch { /* `go` says it when it needs the server */ }
  looking = false;
}

function answerCurrent(word) {
  if (!current || $("single").hidden) return;
  answer([current], word);
  goOn();
}

function goOn() {
  const next = ahead.shift();
  if (next) show(next);
  else go(current.id + 1, {open: true}).catch(failed);
}

$("photo").onerror = async () => {
  const response = await fetch($("photo").src).catch(() => null);
  $("broken").textContent = response && !response.ok ? await response.text() : "the photo cannot be shown";
  $("photo").hidden = true;
  $("broken").hidden = false;
};

// ------------------------------------------------------------------------------------------------------- a batch of a class

async function fill(at) {
  const turn = ++turns;
  view.class ??= current?.class ?? (await ask({open: true}))[0]?.class ?? null;
  let found = await ask({at, count: BATCH, class: view.class, open: true});
  if (!found.length) found = await ask({at: 0, count: BATCH, class: view.class, open: true});
  if (turn !== turns) return;
  $("find").value = view.class ?? "";
  batch = found;
  view.at = batch[0]?.id ?? view.at;
  view.grid = true;
  keep("view", view);
  if (!batch.length) { done(); return; }
  $("done").hidden = $("single").hidden = true;
  $("grid").hidden = false;
  $("grid-question").textContent = view.class + "? Click: yes, again: no.";
  showTiles();
  $("grid").scrollTop = 0;
}

function showTiles() {
  $("tiles").replaceChildren(...batch.map((question) => {
    const tile = document.createElement("button"), photo = document.createElement("img");
    const line = document.createElement("b"), word = document.createElement("span"), score = document.createElement("span");
    tile.className = "tile";
    tile.title = question.image;
    tile.dataset.answer = question.answer ?? "";
    photo.src = `photo/${question.id}?small`;
    photo.alt = question.image;
    word.textContent = question.answer ?? "open";
    score.textContent = question.score;
    line.append(word, score);
    tile.append(photo, line);
    tile.onclick = () => { answer([question], question.answer === "yes" ? "no" : "yes"); showTiles(); };
    return tile;
  }));
}

function rest(word) {
  if (word) answer(batch.filter((q) => q.answer === null), word);
  fill(batch.at(-1).id + 1).catch(failed);
}

// ---------------------------------------------------------------------------------------------------------------- around it

function showCounts({total, left}) {
  $("progress").max = total;
  $("progress").value = total - left;
  $("left").textContent = `${left.toLocaleString("en")} of ${total.toLocaleString("en")} left`;
}

function problem(words) {
  $("problem").hidden = words === null;
  $("problem").textContent = words ?? "";
}

function failed(error) { problem(error.message || String(error)); }

function done() {
  current = null;
  $("single").hidden = $("grid").hidden = true;
  $("done").hidden = false;
}

function choose(name) {
  view.class = name;
  view.at = 0;
  $("find").value = name ?? "";
  $("found").hidden = true;
  $("find").blur();
  start();
}

async function find() {
  const text = $("find").value;
  const response = await fetch("classes?" + new URLSearchParams({find: text === view.class ? "" : text}));
  const {classes} = await response.json();
  if (text !== $("find").value) return;  // written on since
  const row = (name, words) => {
    const item = document.createElement("li"), button = document.createElement("button"), count = document.createElement("span");
    button.append(name ?? "all classes", count);
    count.textContent = words;
    button.onclick = () => choose(name);
    item.append(button);
    return item;
  };
  $("found").replaceChildren(row(null, ""), ...classes.map((one) => row(one.class, `${one.left} of ${one.total}`)));
  $("found").hidden = false;
}

function toggleGrid() {
  view.grid = !view.grid;
  start();
}

function start() {
  $("find").value = view.class ?? "";
  $("to-grid").textContent = view.grid ? "one at a time" : "grid";
  (view.grid ? fill(view.at) : go(view.at, {open: true})).catch(failed);
}

$("find").oninput = $("find").onfocus = () => searching = find().catch(failed);
$("find").onkeydown = (event) => {
  if (event.key === "Enter") searching?.then(() => $("found").querySelectorAll("button")[$("find").value ? 1 : 0]?.click());
  if (event.key === "Escape") choose(view.class);
  event.stopPropagation();
};
document.addEventListener("click", (event) => { if (!$("classes").contains(event.target)) $("found").hidden = true; });
for (const button of $("answers").children) button.onclick = () => { answerCurrent(button.dataset.answer); button.blur(); };
$("undo").onclick = $("grid-undo").onclick = undo;
$("previous").onclick = () => current && go(current.id - 1, {back: true}).catch(failed);
$("next").onclick = () => current && go(current.id + 1).catch(failed);
$("to-grid").onclick = (event) => { toggleGrid(); event.currentTarget.blur(); };
$("rest-no").onclick = () => rest("no");
$("rest-yes").onclick = () => rest("yes");
$("rest-skip").onclick = () => rest(null);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const inGrid = !$("grid").hidden;
  const does = {u: undo, g: toggleGrid, "/": () => $("find").focus()};
  if (inGrid) Object.assign(does, {Enter: () => rest("no"), ArrowRight: () => rest(null)});
  else if (!$("single").hidden) {
    for (const [one, word] of Object.entries(KEYS)) does[one] = () => answerCurrent(word);
    Object.assign(does, {ArrowLeft: $("previous").onclick, ArrowRight: $("next").onclick});
  }
  if (!inGrid && VALUE_KEYS.includes(key)) does[key] ??= () => pick(VALUE_KEYS.indexOf(key));
  if (!does[key]) return;
  event.preventDefault();
  does[key]();
});
addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });

deliver();
start();
