"use strict";
// A table of any number of rows: of the thousands that there may be, those in sight are in the document.
(() => {
  const data = JSON.parse(document.getElementById("table-data").textContent);
  const box = document.getElementById("rows");
  if (!box || !data.columns.length) return;
  const columns = data.columns, total = columns[0].values.length, PRINTED = 500, AROUND = 12;
  const head = box.querySelector("thead"), body = box.querySelector("tbody"), find = document.getElementById("find");
  const texts = columns.filter((c) => c.kind === "text").map((c) => c.values);
  const words = Array.from({ length: total }, (_, r) => texts.map((v) => v[r] ?? "").join(" ").toLowerCase());
  let order = Array.from({ length: total }, (_, r) => r), shown = order, sorted = null, rising = false, chosen = -1, height = 30;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const digits = {
    text: (v) => v, count: (v) => v.toLocaleString("en"), percent: (v) => v.toFixed(1), number: (v) => v.toPrecision(3),
    share: (v) => (v >= 10 ? v.toFixed(0) : v >= 0.1 || v === 0 ? v.toFixed(1) : v.toPrecision(1)),
    change: (v) => (v > 0 ? "+" : v < 0 ? "−" : "") + Math.abs(v).toFixed(1),
  };
  const cell = (column, row) => {
    const value = column.values[row], td = make("td");
    td.className = column.kind === "text" ? "text" : column.kind === "change" && value ? (value > 0 ? "up" : "down") : "";
    td.textContent = value === null || value === undefined ? "–" : digits[column.kind](value);
    if (column.kind === "text" && value) td.title = value;
    return td;
  };
  const line = (row) => {
    const tr = make("tr", { tabindex: "0", "data-row": row }, ...columns.map((column) => cell(column, row)));
    if (row === chosen) tr.className = "chosen";
    return tr;
  };
  const pad = (pixels) => {
    const td = make("td", { colspan: columns.length });
    td.style.height = `${pixels}px`;
    return make("tr", { class: "pad" }, td);
  };
  const draw = () => {
    const first = Math.max(0, Math.min(Math.floor(box.scrollTop / height) - AROUND, shown.length - 1));
    const last = Math.min(shown.length, first + Math.ceil(box.clientHeight / height) + 2 * AROUND);
    body.replaceChildren(pad(first * height), ...shown.slice(first, last).map(line), pad((shown.length - last) * height));
    document.getElementById("count").value = shown.length === total ? `${total.toLocaleString("en")} classes`
      : `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} classes`;
  };
  const search = () => {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = wanted.length ? order.filter((r) => wanted.every((word) => words[r].includes(word))) : order;
    box.scrollTop = 0;
    draw();
  };
  const sort = (column) => {
    rising = sorted === column ? !rising : columns[column].kind === "text";
    sorted = column;
    const values = columns[column].values, sign = rising ? 1 : -1;
    const compare = columns[column].kind === "text" ? new Intl.Collator("en", { numeric: true }).compare : (a, b) => a - b;
    order = Array.from({ length: total }, (_, r) => r).sort((a, b) => {
      const x = values[a] ?? null, y = values[b] ?? null;
      return x === null || y === null ? (x === null) - (y === null) || a - b : sign * compare(x, y) || a - b; // none last
    });
    [...head.rows[0].cells].forEach((th, c) => {
      if (c === column) th.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    });
    search();
  };

  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes, text) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const square = (title, across, up, ...marks) => {
    const svg = shape("svg", { viewBox: "0 0 250 225", role: "img", "aria-label": title });
    svg.append(shape("rect", { x: 35, y: 8, width: 180, height: 180, class: "axis" }));
    for (const tick of [0, 0.5, 1]) {
      svg.append(shape("text", { x: 35 + 180 * tick, y: 200, "text-anchor": "middle" }, tick));
      svg.append(shape("text", { x: 30, y: 191 - 180 * tick, "text-anchor": "end" }, tick));
    }
    svg.append(shape("text", { x: 125, y: 216, "text-anchor": "middle" }, across));
    svg.append(shape("text", { x: 10, y: 98, "text-anchor": "middle", transform: "rotate(-90 10 98)" }, up), ...marks);
    return make("figure", {}, make("figcaption", {}, title), svg);
  };
  const at = (x, y) => [35 + 0.18 * x, 188 - 0.18 * y]; // thousandths to the drawing
  const detail = (row) => {
    const panel = document.getElementById("detail"), drawings = [];
    if (!data.curves && !data.diagrams) return;
    chosen = row;
    const curve = data.curves ? data.curves[row] : [], bins = data.diagrams ? data.diagrams[row] : [];
    if (curve.length) {
      let path = "";
      for (let i = 0; i < curve.length; i += 2) { // steps: average precision is the area under them
        const [x, y] = at(curve[i], curve[i + 1]);
        path += `${i ? "V" : `M${at(0, 0)[0]} `}${y.toFixed(1)}H${x.toFixed(1)}`;
      }
      drawings.push(square("Precision against recall", "recall", "precision", shape("path", { d: path, class: "curve" })));
    }
    if (bins.length) {
      const marks = [shape("line", { x1: 35, y1: 188, x2: 215, y2: 8, class: "ideal" })];
      for (let i = 0; i < bins.length; i += 3) {
        const [cx, cy] = at(bins[i], bins[i + 1]);
        const dot = shape("circle", { cx, cy, r: Math.min(9, 2 + Math.log2(1 + bins[i + 2])), class: "dot", opacity: 0.75 });
        dot.append(shape("title", {}, `${bins[i + 2]} labels: mean score ${bins[i] / 1000}, ${bins[i + 1] / 10} % positive`));
        marks.push(dot);
      }
      drawings.push(square("Reliability", "score", "share that is positive", ...marks));
    }
    const numbers = columns.filter((c) => c.kind !== "text" && c.values[row] !== null)
      .map((c) => `${c.title} ${digits[c.kind](c.values[row])}`).join(" · ");
    const nothing = drawings.length ? [] : [make("p", {}, "No curve: no known validation labels of both kinds.")];
    panel.replaceChildren(make("h3", {}, columns[0].values[row]), make("p", { class: "soft" }, numbers), ...nothing,
      make("div", { class: "charts" }, ...drawings));
    panel.hidden = false;
    draw();
    panel.scrollIntoView({ block: "nearest" });
  };

  head.append(make("tr", {}, ...columns.map((column, c) => {
    const button = make("button", { type: "button", title: column.help }, column.title);
    button.addEventListener("click", () => sort(c));
    const th = make("th", { scope: "col" }, button);
    if (column.kind === "text") th.className = "text";
    return th;
  })));
  let waiting = false;
  box.addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
    waiting = true;
  }, { passive: true });
  addEventListener("resize", draw);
  find.addEventListener("input", search);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (row) detail(Number(row.dataset.row));
  });
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); detail(Number(row.dataset.row)); }
  });
  addEventListener("beforeprint", () => {
    const rest = shown.length - PRINTED, more = make("td", { colspan: columns.length, class: "text" }, `and ${rest} more`);
    body.replaceChildren(...shown.slice(0, PRINTED).map(line), ...(rest > 0 ? [make("tr", {}, more)] : []));
  });
  addEventListener("afterprint", draw);
  draw();
  height = body.querySelector("tr[data-row]")?.getBoundingClientRect().height || height;
  draw();
})();
