"use strict";
// What pages are made of: elements, numbers for people, plots.
const POINTS = 300;
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else node.setAttribute(name, value);
  }
  // Texts become text nodes: nothing that a device says is ever read as HTML.
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

const number = (value, digits = 0) =>
  value === undefined || value === null ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });

const words = (text) => String(text).toLowerCase().replaceAll("_", " ");

function bytes(value) {
  if (value === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${number(value, value < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

function duration(seconds) {
  if (!(seconds >= 0)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${number(seconds / 3600, 1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function clock(ts) {
  const when = new Date(ts * 1000);
  const today = when.toDateString() === new Date().toDateString();
  return make("time", { datetime: when.toISOString(), title: when.toLocaleString() },
    today ? when.toLocaleTimeString("en-GB") : when.toLocaleDateString("en-GB", { day: "numeric", month: "short" }));
}

function line(values, top) {
  let path = "", pen = "M";
  values.forEach((value, i) => {
    if (value === undefined) { pen = "M"; return; }
    path += `${pen}${((POINTS - values.length + i) / (POINTS - 1) * 300).toFixed(1)} ${(44 - value / top * 40).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

function plot(series) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 300 46");
  svg.setAttribute("preserveAspectRatio", "none");
  // The figures beside it say in words how it is now.
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(1, ...series.flatMap(([, values]) => values.filter((v) => v !== undefined))) * 1.05;
  for (const [kind, path] of [["base", "M0 45L300 45"], ...series.map(([k, v]) => [k, line(v, top)])]) {
    const node = document.createElementNS(space, "path");
    node.setAttribute("class", kind);
    node.setAttribute("d", path);
    svg.append(node);
  }
  return svg;
}

function facts(pairs) {
  return make("dl", { class: "facts" }, ...pairs.filter(([, v]) => v !== undefined && v !== "" && v !== null).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]));
}

function flat(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, typeof value === "number" ? number(value, 4) : String(value)]];
  if (Array.isArray(value) && value.every((v) => v === null || typeof v !== "object")) return [[path, value.join(", ")]];
  return Object.entries(value).flatMap(([key, inner]) => {
    // Candidates are told apart by what they are, not by their place in a list.
    const name = Array.isArray(value) && inner && inner.precision ? `${inner.precision} on ${inner.backend}` : words(key);
    return flat(inner, path ? `${path} ${name}` : name);
  });
}

// Whether something differs from what was shown before: only then is it drawn anew, so that marked
// text, the focus of the keyboard and what a screen reader reads stay as they are.
const drawn = new Map();
function changed(key, value) {
  const text = JSON.stringify(value);
  if (drawn.get(key) === text) return false;
  drawn.set(key, text);
  return true;
}

const unfolded = new Set();
function fold(key, title, pairs) {
  const node = make("details", unfolded.has(key) ? { open: "" } : {}, make("summary", { class: "soft" }, title), facts(pairs.slice(0, 80)));
  node.addEventListener("toggle", () => { if (node.open) unfolded.add(key); else unfolded.delete(key); });
  return node;
}
