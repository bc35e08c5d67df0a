"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const form = document.querySelector(".filter"), status = form.querySelector("output");
  const pages = document.querySelector(".pages"), body = document.querySelector("tbody");
  const rest = document.getElementById("rest").content;
  const all = (selector) => [...body.querySelectorAll(selector), ...rest.querySelectorAll(selector)];
  const SIZE = Math.max(1, body.querySelectorAll("tr.row").length);
  const heads = all("tr.group"), rows = all("tr.row");
  const places = new Map(rows.map((row, place) => [row, place]));
  const groups = rows.map((row) => Number(row.dataset.g));
  const cell = (place, column) => rows[place].cells[column].textContent.trim();
  const ofGroup = heads.map(() => null);
  rows.forEach((row, place) => {
    ofGroup[groups[place]] ??= { concept: cell(place, 2), model: cell(place, 3) };
  });
  heads.forEach((head, g) => { ofGroup[g].protocol = head.querySelector("code")?.textContent ?? ""; });
  let texts = null, found = [], page = 0, sort = null;

  function readTexts() {
    texts ??= rows.map((row) => row.textContent.toLowerCase());
  }

  function matching() {
    const words = form.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) readTexts();
    const kept = ofGroup.map((group) => ["model", "concept", "protocol"].every((name) => {
      const chosen = form[name];
      return !chosen.selectedIndex || chosen.value === group[name];
    }));
    const only = form.only.value;
    const places = [];
    for (let place = 0; place < rows.length; place++) {
      if (!kept[groups[place]]) continue;
      if (only && cell(place, 11).startsWith("verified") !== (only === "verified")) continue;
      if (words.every((word) => texts[place].includes(word))) places.push(place);
    }
    return places;
  }

  function sorted(places) {
    if (!sort) return places;
    const keys = new Map(places.map((place) => {
      const text = rows[place].cells[sort.column].dataset.sort ?? cell(place, sort.column), number = parseFloat(text);
      return [place, text === "" || text.startsWith("–") ? null : sort.text || Number.isNaN(number) ? text.toLowerCase() : number];
    }));
    const sign = sort.down ? -1 : 1;
    // Rows of different groups cannot be compared: the order is within a group.
    return places.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (groups[a] !== groups[b]) return groups[a] - groups[b];
      if (x === y) return a - b;
      if (x === null || y === null) return x === null ? 1 : -1;
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      return (x < y ? -1 : 1) * sign;
    });
  }

  function show() {
    const last = Math.max(0, Math.ceil(found.length / SIZE) - 1);
    page = Math.min(page, last);
    const shown = found.slice(page * SIZE, (page + 1) * SIZE);
    const lines = [];
    let group = -1;
    for (const place of shown) {
      if (groups[place] !== group) lines.push(heads[group = groups[place]]);
      lines.push(rows[place]);
    }
    body.replaceChildren(...lines);
    const some = found.length < rows.length ? ` of ${rows.length.toLocaleString("en")}` : "";
    status.value = `${found.length.toLocaleString("en")}${some} rows`;
    pages.hidden = last === 0;
    pages.querySelector("span").textContent = `page ${page + 1} of ${last + 1}`;
    pages.querySelector(".previous").disabled = page === 0;
    pages.querySelector(".next").disabled = page === last;
  }

  function search(write = true) {
    found = sorted(matching());
    page = 0;
    show();
    if (write) remember();
  }

  function remember() {
    const state = new URLSearchParams();
    for (const field of form.elements) if (field.name && field.value) state.set(field.name, field.value);
    if (sort) state.set("sort", `${sort.column}${sort.down ? "-" : "+"}`);
    history.replaceState(null, "", `#${state}`);
  }

  function read() {
    const hash = location.hash.slice(1);
    const place = hash.startsWith("row=") ? rows.findIndex((row) => row.id === hash) : -1;
    const state = new URLSearchParams(place < 0 ? hash : "");
    for (const field of form.elements) if (field.name) field.value = state.get(field.name) ?? "";
    for (const field of form.querySelectorAll("select")) if (field.selectedIndex < 0) field.selectedIndex = 0;
    const order = /^(\d+)([ +-])$/.exec(state.get("sort") ?? "");
    setSort(order ? { column: Number(order[1]), down: order[2] === "-" } : null);
    search(false);
    document.querySelector(".here")?.classList.remove("here");
    if (place < 0) return;
    page = Math.floor(found.indexOf(place) / SIZE);
    show();
    rows[place].classList.add("here");
    rows[place].scrollIntoView({ block: "center" });
  }

  function setSort(order) {
    const columns = document.querySelectorAll("thead th");
    sort = order && order.column < columns.length ? { ...order, text: [1, 2, 3].includes(order.column) } : null;
    columns.forEach((th, column) => {
      if (sort?.column === column) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
  }

  async function download() {
    const bytes = Uint8Array.from(atob(document.getElementById("packed").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const [header, ...lines] = await new Response(stream).json();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([header, ...found.map((place) => lines[place])], { type: "text/csv" }));
    link.download = "leaderboard.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.querySelectorAll("thead th").forEach((th, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const first = [4, 6, 13].includes(column) ? false : [5, 7, 8].includes(column);
      if (sort?.column !== column) setSort({ column, down: first });
      else setSort(sort.down === first ? { column, down: !first } : null);
      search();
    });
  });
  form.addEventListener("input", () => search());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const field of form.elements) if (field.name) field.value = "";
    setSort(null);
    search();
  });
  form.querySelector(".csv").addEventListener("click", download);
  pages.querySelector(".previous").addEventListener("click", () => { page--; show(); scrollTo(0, 0); });
  pages.querySelector(".next").addEventListener("click", () => { page++; show(); scrollTo(0, 0); });
  addEventListener("hashchange", read);
  // Whoever begins to type should not have to wait for it.
  form.q.addEventListener("focus", () => setTimeout(readTexts));
  read();
})();
