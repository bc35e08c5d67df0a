// The image viewer: filters, a lightbox, and two methods compared.  Everything it knows it reads from the page's HTML;
// its state is in the address, #section?key=value&…, in keys that start with "img.", and leaves other keys alone.  What
// is revealed is never part of it.
(() => {
  "use strict";
  const section = document.getElementById("images");
  const bar = section && section.querySelector(".img-bar");
  if (!bar) return;
  const all = (selector, inside = section) => [...inside.querySelectorAll(selector)];
  const one = (selector, inside = section) => inside.querySelector(selector);
  const form = bar.elements;
  const PREFIX = "img.";
  const KEYS = ["concept", "kind", "shows", "min", "max"];
  const SWITCHES = ["disagree", "close", "diff"];
  const MISSING = "The original is not there: keep the folder " + one("code").textContent + " beside this file.";

  const tables = all(".img-sheet").map((table) => ({
    table,
    concept: table.closest(".img-concept"),
    attacked: !one("thead [data-m]", table),
    rows: all("tbody tr", table).map((row) => ({ row, kind: row.dataset.kind, cells: all("td", row) })),
  }));
  const boxes = all('input[name="method"]', bar);
  const names = new Map(boxes.map((box) => [box.value, box.dataset.name]));
  const link = (cell) => one("a", cell);
  const isSensitive = (cell) => cell.classList.contains("img-blur");
  const isRevealed = (cell) => !isSensitive(cell) || one("img", cell).classList.contains("img-revealed");

  // ---- the address
  // The page's section and the pairs after it; pairs alone will do as well.
  const address = () => {
    const text = location.hash.slice(1);
    const mark = text.indexOf("?");
    const bare = mark < 0 && text.includes("=");
    const query = new URLSearchParams(bare ? text : mark < 0 ? "" : text.slice(mark + 1));
    return [bare ? "" : mark < 0 ? text : text.slice(0, mark), query];
  };
  let opened = ["", ""]; // a dialog's key and value
  let restoring = false;
  const remember = () => {
    const [place, query] = address();
    for (const key of [...query.keys()]) if (key.startsWith(PREFIX)) query.delete(key);
    const put = (key, value) => value && query.append(PREFIX + key, value);
    for (const key of KEYS) put(key, form[key].value);
    for (const key of SWITCHES) put(key, form[key]?.checked ? "1" : "");
    const chosen = boxes.filter((box) => box.checked);
    if (!chosen.length) query.append(PREFIX + "method", "");
    else if (chosen.length < boxes.length) for (const box of chosen) put("method", box.dataset.name);
    if (form.a && (form.a.value !== "0" || form.b.value !== "1" || form.diff.checked || opened[0] === "pair"))
      for (const key of ["a", "b"]) put(key, names.get(form[key].value));
    put(...opened);
    const text = query.toString();
    const section = place || (text ? "images" : "");
    const hash = section ? `#${section}${text && "?" + text}` : location.href.split("#")[0];
    history.replaceState(history.state, "", hash);
  };
  const restore = () => {
    const query = address()[1];
    const state = (key) => query.get(PREFIX + key);
    restoring = true; // a reset by the user is written into the address, this one is not
    bar.reset();
    restoring = false;
    for (const key of KEYS) if (state(key)) form[key].value = state(key);
    for (const key of SWITCHES) if (form[key] && !form[key].disabled) form[key].checked = state(key) === "1";
    const chosen = query.getAll(PREFIX + "method");
    if (chosen.length) for (const box of boxes) box.checked = chosen.includes(box.dataset.name);
    for (const key of ["a", "b"])
      if (form[key]) for (const [place, name] of names) if (name === state(key)) form[key].value = place;
    apply();
    for (const dialog of all("dialog")) if (dialog.open) dialog.close();
    const cell = at(state("open"));
    const pair = state("pair");
    if (cell && link(cell)) openCell(cell);
    else if (pair) openPair(pair);
  };
  // Where a cell or row is, for a link: table, row and column.
  const placeOf = (cell) => {
    const row = cell.closest("tr");
    const table = tables.findIndex((each) => each.table.contains(row));
    const number = tables[table].rows.findIndex((each) => each.row === row);
    return cell === row ? `${table}-${number}` : `${table}-${number}-${tables[table].rows[number].cells.indexOf(cell)}`;
  };
  const at = (place) => {
    const [table, row, cell] = (place || "").split("-").map(Number);
    return tables[table]?.rows[row]?.cells[cell];
  };

  // ---- filters
  const cellOf = (cells, method) => cells.find((cell) => cell.dataset.m === method);
  const differs = (cells) => {
    const [a, b] = ["a", "b"].map((key) => cellOf(cells, form[key].value));
    return Boolean(a && b && a.dataset.v && b.dataset.v && a.dataset.v !== b.dataset.v);
  };
  function apply() {
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const number = (key) => (form[key].value === "" ? NaN : Number(form[key].value));
    const [low, high] = [number("min"), number("max")];
    const narrowed = form.shows.value || !isNaN(low) || !isNaN(high) || form.disagree.checked || form.close.checked;
    const matches = ({ dataset }) =>
      dataset.s !== undefined &&
      (!form.shows.value || dataset.v === form.shows.value) &&
      !(Number(dataset.s) < low || Number(dataset.s) > high) &&
      (!form.disagree.checked || dataset.disputed !== undefined) &&
      (!form.close.checked || dataset.close !== undefined);
    let images = 0;
    let found = 0;
    for (const { table, concept, attacked, rows } of tables) {
      const other = form.concept.value && form.concept.value !== concept.dataset.concept;
      concept.hidden = Boolean(other);
      for (const head of all("thead [data-m]", table)) head.hidden = !shown.has(head.dataset.m);
      let visible = 0;
      for (const { row, kind, cells } of rows) {
        let hits = 0;
        for (const cell of cells) {
          cell.hidden = !shown.has(cell.dataset.m);
          const hit = !cell.hidden && matches(cell);
          cell.classList.toggle("img-dim", Boolean(narrowed) && !hit);
          hits += hit;
        }
        images += cells.filter((cell) => cell.dataset.s !== undefined).length;
        const wanted = !form.kind.value || kind === form.kind.value;
        row.hidden = !(hits && wanted && !other && !(form.diff?.checked && (attacked || !differs(cells))));
        visible += !row.hidden;
        found += row.hidden ? 0 : hits;
      }
      table.parentElement.hidden = !visible;
    }
    const count = one(".img-count");
    count.hidden = false;
    count.textContent = found ? `${found} of ${images} images match.` : "No image matches; Reset shows all again.";
    one(".img-methods").textContent = shown.size < boxes.length ? `(${shown.size} of ${boxes.length})` : `(${boxes.length})`;
  }
  const changed = () => {
    apply();
    remember();
  };

  // ---- originals
  // Put a cell's image into a larger one: the thumbnail first, the original once it is there.
  const show = (cell, image, message) => {
    const thumbnail = one("img", cell);
    image.cell = cell;
    image.alt = thumbnail.alt;
    image.src = thumbnail.src;
    image.classList.toggle("img-covered", !isRevealed(cell));
    if (!isRevealed(cell)) return;
    const original = new Image();
    original.onload = () => {
      if (image.cell === cell) image.src = original.src;
    };
    original.onerror = () => {
      if (image.cell === cell) message.textContent = MISSING;
    };
    original.src = link(cell).href;
  };
  const reveal = (cell) =>
    new Promise((done) => {
      const image = one("img", cell);
      if (isRevealed(cell)) return done(true);
      const original = new Image();
      original.onload = () => {
        image.src = original.src;
        image.classList.add("img-revealed");
        done(true);
      };
      original.onerror = () => done(false);
      original.src = link(cell).href;
    });
  const tell = (text) => {
    const count = one(".img-count");
    count.hidden = false;
    count.textContent = text;
  };

  // ---- one image, large
  const lightbox = one(".img-lightbox");
  let current = null;
  const linked = () => all(".img-sheet tbody a").map((each) => each.closest("td")).filter((cell) => cell.offsetParent);
  function openCell(cell) {
    current = cell;
    const message = one(".img-message", lightbox);
    message.textContent = "";
    one("h3", lightbox).textContent = `${cell.closest(".img-concept").dataset.concept}: ${cell.dataset.n}`;
    show(cell, one("figure > img", lightbox), message);
    const caption = one("figcaption", lightbox);
    const judged = one(".img-judges", cell.closest(".img-concept")).cloneNode(true);
    const said = all(".img-verdict, .img-found", cell).map((each) => each.cloneNode(true));
    if (cell.dataset.v) said[0].append(cell.dataset.v === "1" ? "shows the concept" : "does not show the concept");
    const prompt = document.createElement("p");
    prompt.append(...[...one("th", cell.closest("tr")).childNodes].map((each) => each.cloneNode(true)));
    caption.replaceChildren(...said, prompt, judged);
    one('[data-do="show"]', lightbox).hidden = isRevealed(cell);
    const file = one(".img-file", lightbox);
    file.hidden = !isRevealed(cell);
    file.href = link(cell).href;
    opened = ["open", placeOf(cell)];
    remember();
    if (!lightbox.open) lightbox.showModal();
  }
  const step = (by) => {
    const cells = linked();
    const next = cells[cells.indexOf(current) + by];
    if (next) openCell(next);
  };
  const stepDown = (by) => {
    const column = [...current.parentElement.children].indexOf(current);
    const cells = linked().filter((cell) => [...cell.parentElement.children].indexOf(cell) === column);
    const next = cells[cells.indexOf(current) + by];
    if (next) openCell(next);
  };
  lightbox.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [step, -1], ArrowRight: [step, 1], ArrowUp: [stepDown, -1], ArrowDown: [stepDown, 1] };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [go, by] = steps[event.key];
    go(by);
  });

  // ---- two methods
  const compare = one(".img-compare");
  const pairBox = one(".img-pair", compare);
  const slider = one('input[type="range"]', compare);
  let place = 0;
  const pairs = () =>
    tables
      .filter((each) => !each.attacked)
      .flatMap((each) => each.rows)
      .filter((each) => !each.row.hidden)
      .map(({ row, cells }) => ({ row, sides: ["a", "b"].map((key) => cellOf(cells, form[key].value)) }))
      .filter(({ sides }) => sides.every((cell) => cell && link(cell)));
  function openPair(wanted) {
    const known = pairs();
    if (!known.length) return tell("A and B have no images of the same prompt and seed among those that match.");
    const found = typeof wanted === "string" ? known.findIndex((pair) => placeOf(pair.row) === wanted) : wanted;
    place = Math.min(Math.max(found, 0), known.length - 1);
    const { row, sides } = known[place];
    const message = one(".img-message", compare);
    message.textContent = "";
    const concept = row.closest(".img-concept").dataset.concept;
    one("h3", compare).textContent = `${concept}: pair ${place + 1} of ${known.length}`;
    const prompt = [...one("th", row).childNodes].map((each) => each.cloneNode(true));
    one(".img-prompt-of", compare).replaceChildren(...prompt);
    const images = all("img", pairBox);
    const ends = all(".img-ends p", compare);
    sides.forEach((cell, side) => {
      show(cell, images[side], message);
      const name = document.createElement("b");
      name.textContent = `${"AB"[side]}: ${cell.dataset.n}`;
      ends[side].replaceChildren(name, one(".img-verdict", cell).cloneNode(true));
    });
    one('[data-do="show"]', compare).hidden = sides.every(isRevealed);
    one('[data-do="back"]', compare).disabled = place === 0;
    one('[data-do="next"]', compare).disabled = place === known.length - 1;
    opened = ["pair", placeOf(row)];
    remember();
    if (!compare.open) compare.showModal();
  }
  const slide = () => pairBox.style.setProperty("--x", slider.value + "%");
  slider.addEventListener("input", slide);
  const drag = (event) => {
    if (!(event.buttons & 1) || pairBox.classList.contains("img-two")) return;
    const { left, width } = pairBox.getBoundingClientRect();
    slider.value = String((100 * (event.clientX - left)) / width);
    slide();
  };
  pairBox.addEventListener("pointerdown", (event) => {
    pairBox.setPointerCapture(event.pointerId);
    drag(event);
  });
  pairBox.addEventListener("pointermove", drag);
  one(".img-beside").addEventListener("change", (event) => {
    pairBox.classList.toggle("img-two", event.target.checked);
    slider.parentElement.hidden = event.target.checked;
  });
  compare.addEventListener("keydown", (event) => {
    const arrows = event.target === slider ? {} : { ArrowLeft: -1, ArrowRight: 1 };
    const by = { ...arrows, n: 1, N: 1, p: -1, P: -1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    openPair(place + by);
  });

  // ---- clicks
  const actions = {
    all: () => boxes.forEach((box) => (box.checked = true)) || changed(),
    none: () => boxes.forEach((box) => (box.checked = false)) || changed(),
    compare: () => openPair(0),
    close: (button) => button.closest("dialog").close(),
    back: (button) => (button.closest(".img-compare") ? openPair(place - 1) : step(-1)),
    next: (button) => (button.closest(".img-compare") ? openPair(place + 1) : step(1)),
    show: async (button) => {
      const comparing = button.closest(".img-compare");
      const cells = comparing ? pairs()[place].sides : [current];
      const done = await Promise.all(cells.map(reveal));
      if (comparing) openPair(place);
      else openCell(current);
      if (done.includes(false)) one(".img-message", button.closest("dialog")).textContent = MISSING;
    },
    reveal: async (button) => {
      const cells = all(".img-sheet a", button.closest(".img-concept")).map((each) => each.closest("td"));
      const done = await Promise.all(cells.map(reveal));
      if (done.includes(false)) button.after(" " + MISSING);
      button.hidden = true;
    },
  };
  section.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-do]");
    if (button) return void actions[button.dataset.do](button);
    if (event.target.matches("dialog")) return event.target.close();
    const anchor = event.target.closest(".img-sheet a");
    if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const cell = anchor.closest("td");
    if (isRevealed(cell)) openCell(cell);
    else if (!(await reveal(cell))) {
      openCell(cell);
      one(".img-message", lightbox).textContent = MISSING;
    }
  });
  for (const dialog of all("dialog"))
    dialog.addEventListener("close", () => {
      if (all("dialog").some((each) => each.open)) return; // another image or pair was opened meanwhile
      opened = ["", ""];
      remember();
      if (dialog === lightbox && current) link(current).focus();
    });
  const methods = one("details", bar);
  const fold = (event) => {
    if (methods.open && (event.key === "Escape" || (event.type === "click" && !methods.contains(event.target))))
      methods.open = false;
  };
  addEventListener("click", fold);
  addEventListener("keydown", fold);
  bar.addEventListener("change", changed);
  bar.addEventListener("input", (event) => event.target.type === "number" && changed());
  bar.addEventListener("submit", (event) => event.preventDefault());
  bar.addEventListener("reset", () => restoring || setTimeout(changed));
  // A link to another section, which says nothing of images, leaves the filters as they are.
  const isTold = () => [...address()[1].keys()].some((key) => key.startsWith(PREFIX));
  addEventListener("hashchange", () => isTold() && restore());
  bar.hidden = false;
  for (const button of all('[data-do="reveal"]')) button.hidden = false;
  restore();
  if (isTold()) section.scrollIntoView();
})();
