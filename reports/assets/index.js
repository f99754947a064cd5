"use strict";
// Sort, filter and keys of the queue. One pass over the rows, one write to the page.
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const body = document.querySelector("tbody");
const rows = [...body.rows].map((row) => ({ row, verdict: row.className, track: row.dataset.t,
  rules: ` ${row.dataset.r} `, text: row.textContent.toLowerCase() }));

try { const kept = localStorage.getItem("theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* no storage */ }
function toggleTheme() {
  const now = document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* no storage */ }
}

function filter() {
  const on = new Set(all('input[name="verdict"]:checked').map((box) => `v-${box.value}`));
  const track = $("track").value, rule = $("rule").value.replace(/ \(\d+\)$/, "");
  const text = $("filter").value.trim().toLowerCase();
  let shown = 0;
  for (const r of rows) {
    const keep = on.has(r.verdict) && (!track || r.track === track) && (rule === "any" || !rule || r.rules.includes(` ${rule} `))
      && (!text || r.text.includes(text));
    r.row.hidden = !keep;
    shown += keep;
  }
  $("shown").textContent = shown === rows.length ? shown.toLocaleString("en") : `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  document.querySelector(".none").hidden = shown > 0;
}

function sort(button) {
  const head = button.closest("th"), key = +button.dataset.key, numeric = "n" in button.dataset;
  const down = head.getAttribute("aria-sort") === "ascending";
  all("th").forEach((th) => th.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (r) => {
    const cell = r.row.cells[key];
    const raw = cell.dataset.v ?? cell.textContent.trim();
    return numeric || "v" in cell.dataset ? (raw === "" ? Infinity : +raw) : raw;
  };
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const keyed = rows.map((r) => [value(r), r]);
  keyed.sort(([a], [b]) => (typeof a === "number" ? (a === b ? 0 : a - b) : compare(a, b)));
  if (down) keyed.reverse();
  keyed.sort(([a], [b]) => (a === Infinity) - (b === Infinity));
  body.append(...keyed.map(([, r]) => r.row));
}

function move(step) {
  const list = [...body.rows].filter((row) => !row.hidden);
  if (!list.length) return;
  const at = list.indexOf(document.activeElement.closest("tr"));
  const next = list[at < 0 ? (step > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + step, 0), list.length - 1)];
  (next.querySelector("a") || next).focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

all(".filters input, .filters select").forEach((e) => e.addEventListener("input", filter));
all("th button").forEach((b) => b.addEventListener("click", () => sort(b)));
body.querySelectorAll("tr").forEach((row) => { if (!row.querySelector("a")) row.tabIndex = -1; });
$("theme").addEventListener("click", toggleTheme);
$("help").addEventListener("click", () => $("keys").showModal());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
  const keys = { j: () => move(1), k: () => move(-1), t: toggleTheme, "?": () => $("keys").showModal(),
    f: () => { $("filter").focus(); $("filter").select(); } };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
filter();
