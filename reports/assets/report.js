"use strict";
// Keys, filters, theme, copy. The page reads well without any of it.
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const findings = all(".finding");

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* a file opened without storage */ }
}
try { const kept = localStorage.getItem("theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* same */ }
function toggleTheme() {
  const now = document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
}

function filter() {
  const on = new Set(all('input[name="status"]:checked').map((box) => box.value));
  const severity = $("severity").value, family = $("family").value, text = $("filter").value.trim().toLowerCase();
  let shown = 0;
  for (const f of findings) {
    const d = f.dataset;
    const keep = on.has(d.status) && (!severity || d.severity === severity) && (!family || d.family === family)
      && (!text || f.textContent.toLowerCase().includes(text));
    f.hidden = !keep;
    shown += keep;
  }
  for (const group of all(".passes")) {
    group.hidden = !group.querySelector(".finding:not([hidden])");
    if (severity || family || text) group.open = true;
  }
  $("shown").textContent = shown === findings.length ? `${shown}` : `${shown} of ${findings.length}`;
  document.querySelector(".none").hidden = shown > 0;
}

function visible() { return findings.filter((f) => !f.hidden && (!f.parentElement.matches(".passes") || f.parentElement.open)); }
function current() { return document.activeElement.closest ? document.activeElement.closest(".finding") : null; }
function move(step) {
  const list = visible();
  if (!list.length) return;
  const at = list.indexOf(current());
  const next = list[at < 0 ? (step > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + step, 0), list.length - 1)];
  next.querySelector("summary").focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function reveal() {
  const target = location.hash.length > 1 && $(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") {
    const group = target.closest(".passes");
    if (group) { group.open = true; group.hidden = false; }
    target.hidden = false; target.open = true; target.scrollIntoView();
  }
}

async function copy() {
  const area = $("markdown"), button = $("copy");
  let done = false;
  try { await navigator.clipboard.writeText(area.value); done = true; } catch {
    area.closest("details").open = true; area.focus(); area.select();
    try { done = document.execCommand("copy"); } catch { done = false; }
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = "Copy as Markdown"; }, 2000);
}

if (findings.length) {
  all(".filters input, .filters select").forEach((e) => e.addEventListener("input", filter));
  $("unfold").addEventListener("click", () => {
    const open = visible().some((f) => !f.open);
    visible().forEach((f) => { f.open = open; });
    $("unfold").textContent = open ? "Close all" : "Open all";
  });
}
$("copy").addEventListener("click", copy);
$("theme").addEventListener("click", toggleTheme);
$("help").addEventListener("click", () => $("keys").showModal());
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => all(".finding, #evidence > details, .fact").forEach((d) => {
  if (!d.matches(".s-pass, .s-not-applicable")) d.open = true;
}));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  const keys = {
    j: () => move(1), k: () => move(-1), o: () => { const f = current(); if (f) f.open = !f.open; },
    f: () => { const box = $("filter"); if (box) { box.focus(); box.select(); } }, t: toggleTheme,
    "?": () => $("keys").showModal(),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
reveal();
