"use strict";
// Sorts, filters and keeps the state of both in the address.  The page is complete without it.
(() => {
  document.documentElement.classList.add("scripted");

  // Numbers in their order, what has none below them all; tablesort reverses what it is given.
  const number = (text) => (text === "" ? -Infinity : parseFloat(text));
  Tablesort.extend("value", () => false, (a, b) => (number(b) > number(a)) - (number(b) < number(a)));
  const tables = [...document.querySelectorAll("table.sortable")];
  for (const table of tables) {
    new Tablesort(table);
    for (const head of table.tHead.rows[0].cells) {
      head.addEventListener("keydown", (event) => {
        if (event.key === " ") {
          event.preventDefault();
          head.click();
        }
      });
    }
    table.addEventListener("afterSort", () => remember());
  }

  const forms = [...document.querySelectorAll("form.filter")];
  const rowsOf = (form) => [...form.closest(".run").querySelectorAll(".filtered tbody tr")];
  for (const form of forms) {
    for (const name of ["method", "concept", "status"]) {
      const values = new Set(rowsOf(form).map((row) => row.dataset[name]).filter(Boolean));
      for (const value of values) form.elements[name].add(new Option(value, value));
    }
    form.addEventListener("input", () => filter(form));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => filter(form)));
  }

  function apply(form) {
    const { q, method, concept, status } = form.elements;
    const words = q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = rowsOf(form);
    let shown = 0;
    for (const row of rows) {
      const text = `${row.textContent} ${row.dataset.concept}`.toLowerCase();
      row.hidden =
        (method.value !== "" && row.dataset.method !== method.value) ||
        (concept.value !== "" && row.dataset.concept !== concept.value) ||
        (status.value !== "" && row.dataset.status !== status.value) ||
        !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    for (const block of form.closest(".run").querySelectorAll(".filtered")) {
      block.hidden = ![...block.querySelectorAll("tbody tr")].some((row) => !row.hidden);
    }
    form.querySelector("output").value = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  }

  function filter(form) {
    apply(form);
    remember();
  }

  // The address: #section?q=…&method=…&sort=table:column:direction; keys of others are left as they are.
  let quiet = true;

  function address() {
    const [id, query] = location.hash.slice(1).split("?");
    let name = id;
    try {
      name = decodeURIComponent(id);
    } catch {
      // No address of this page: nothing is there.
    }
    return [name, new URLSearchParams(query ?? "")];
  }

  function remember() {
    if (quiet) return;
    const [place, query] = address();
    query.delete("sort");
    for (const form of forms) {
      for (const name of ["q", "method", "concept", "status"]) {
        query.delete(form.dataset.run + name);
        if (form.elements[name].value) query.set(form.dataset.run + name, form.elements[name].value);
      }
    }
    for (const table of tables) {
      const head = table.querySelector("thead th[aria-sort]");
      if (head) query.append("sort", `${table.id}:${head.cellIndex}:${head.getAttribute("aria-sort")}`);
    }
    const text = query.toString();
    const hash = `#${encodeURIComponent(place || (text ? "main" : ""))}${text ? `?${text}` : ""}`;
    history.replaceState(history.state, "", hash === "#" ? location.href.split("#")[0] : hash);
  }

  function restore() {
    const [id, query] = address();
    quiet = true;
    if ([...query.keys()].length) {
      for (const form of forms) {
        for (const name of ["q", "method", "concept", "status"]) {
          form.elements[name].value = query.get(form.dataset.run + name) ?? "";
        }
        apply(form);
      }
      for (const sort of query.getAll("sort")) {
        const [, name, column, direction] = sort.match(/^(.*):(\d+):(ascending|descending)$/) ?? [];
        const head = document.getElementById(name)?.tHead?.rows[0].cells[column];
        for (let turn = 0; head && turn < 2 && head.getAttribute("aria-sort") !== direction; turn++) head.click();
      }
    }
    quiet = false;
    const target = id && document.getElementById(id);
    if (target) {
      for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
      if (target.hidden || target.closest("[hidden]")) for (const form of forms) form.reset();
      if ([...query.keys()].length) target.scrollIntoView();
    }
  }
  addEventListener("hashchange", restore);
  restore();

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected: press Ctrl+C";
      }
    });
  }

  // Paper has no drawers.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
})();
