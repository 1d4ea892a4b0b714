"use strict";
// Theme, sorting, filtering, figures, poses, and pages that open over the report. What it shows is in the two data blocks.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const root = document.documentElement;

// ---- Dark and light
const remembered = () => { try { return localStorage.getItem("posequant-theme"); } catch { return null; } };
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) {
  root.dataset.theme = theme;
  document.getElementById("theme-button").setAttribute("aria-pressed", String(theme === "dark"));
  document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.relayout(plot, themed(plot.layout)));
}
document.getElementById("theme-button").addEventListener("click", () => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("posequant-theme", theme); } catch { /* a browser may forbid it for files */ }
  setTheme(theme);
});
prefersDark.addEventListener("change", (event) => remembered() || setTheme(event.matches ? "dark" : "light"));

// ---- Figures
const figures = read("figure-data");
function themed(layout) {
  const style = getComputedStyle(root);
  const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
  const change = { "font.color": text, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    change[`${axis}.gridcolor`] = line;
    change[`${axis}.zerolinecolor`] = line;
    change[`${axis}.linecolor`] = line;
  }
  (layout.shapes || []).forEach((_, place) => { change[`shapes[${place}].line.color`] = text; });
  return change;
}
function draw(place) {
  const { data, layout } = figures[place.dataset.figure];
  Plotly.newPlot(place, data, layout, { responsive: true, displaylogo: false, displayModeBar: false })
    .then(() => Plotly.relayout(place, themed(layout)));
}
// A figure is drawn when it comes near: a study of many networks opens at once all the same.
const observer = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
  observer.unobserve(entry.target);
  draw(entry.target);
}), { rootMargin: "400px" });
document.querySelectorAll(".plot").forEach((place) => observer.observe(place));
window.addEventListener("beforeprint", () => document.querySelectorAll(".plot:empty").forEach(draw));

// ---- Tables
const cellValue = (cell) => cell.dataset.value ?? cell.textContent.trim();
function compare(first, second) {
  if (first === "" || second === "") return (first === "") - (second === "");  // what is unknown comes last
  const numbers = [Number(first), Number(second)];
  return numbers.some(Number.isNaN) ? first.localeCompare(second) : numbers[0] - numbers[1];
}
document.querySelectorAll("table.sortable").forEach((table) => {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    headers.forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const [first, second] = [one, other].map((row) => cellValue(row.cells[column]));
      const unknown = first === "" || second === "";
      return ascending || unknown ? compare(first, second) : compare(second, first);
    });
    table.tBodies[0].append(...rows);
  }));
});
document.querySelectorAll("input[data-filter]").forEach((input) => {
  const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
  const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? `${rows.length} in all` : `${shown} of ${rows.length}`;
  };
  input.addEventListener("input", show);
  show();
});

// ---- Poses
const poses = read("pose-data");
const svg = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.append(...children);
  return element;
};
const html = (name, text, attributes = {}) => Object.assign(document.createElement(name), { textContent: text, ...attributes });
function skeleton(points, limbs, kind, seen) {
  const known = points.map((point) => point[2] > seen);
  const group = svg("g", { class: `pose ${kind}` });
  limbs.filter(([from, to]) => known[from] && known[to]).forEach(([from, to]) => group.append(svg("line", {
    x1: points[from][0], y1: points[from][1], x2: points[to][0], y2: points[to][1],
  })));
  points.forEach(([x, y], joint) => known[joint] && group.append(svg("circle", { cx: x, cy: y, r: 2.2 })));
  return group;
}
let clips = 0;
function show(person, of, images, annotated) {
  const [width, height] = person.size;
  const names = { reference: `clip-${++clips}`, candidate: `clip-${++clips}` };
  const boxes = {
    reference: svg("rect", { x: 0, y: 0, height }), candidate: svg("rect", { y: 0, height, width }),
  };
  const line = svg("line", { class: "wipe", y1: 0, y2: height });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  picture.append(svg("title", {}, `FP32 and ${of.title} over image ${person.image.file_name}`));
  for (const kind of ["reference", "candidate"]) picture.append(svg("clipPath", { id: names[kind] }, boxes[kind]));
  picture.append(svg("image", { href: images[person.photograph], width, height }));
  if (annotated && person.annotation) picture.append(skeleton(person.annotation, of.skeleton, "annotation", 0));
  for (const kind of ["reference", "candidate"]) {
    picture.append(svg("g", { "clip-path": `url(#${names[kind]})` }, skeleton(person[kind], of.skeleton, kind, of.least_score)));
  }
  picture.append(line);
  const slider = html("input", "", { type: "range", min: 0, max: 100, value: 50 });
  slider.setAttribute("aria-label", `Between FP32 and ${of.title}`);
  const wipe = () => {
    const place = width * slider.value / 100;
    boxes.reference.setAttribute("width", place);
    boxes.candidate.setAttribute("x", place);
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
  };
  slider.addEventListener("input", wipe);
  wipe();
  const card = html("article", "", { className: "person" });
  const most = person.moved_most;
  const joint = most && most.joint.replaceAll("_", " ");
  const moved = !most ? "" : most.pixels ? `; most moved: ${joint}, ${most.pixels.toFixed(1)} px` : "; nothing moved";
  card.append(html("h4", `${person.choice[0].toUpperCase()}${person.choice.slice(1)}: ${poses.loss} ${person.loss.toFixed(4)}${moved}`), picture, slider);
  const who = person.annotation_id === null ? "no annotation" : `annotation ${person.annotation_id}`;
  const box = person.box.map((value) => value.toFixed(0)).join(", ");
  card.append(html("p", `Image ${person.image.file_name} (id ${person.image.id}), ${who}, box ${box}`));
  if (person.heatmaps) {
    const maps = html("div", "", { className: "heatmaps" });
    for (const [key, name] of [["reference", "FP32"], ["candidate", "the row"], ["difference", `difference, ±${person.heatmaps.largest_difference.toPrecision(2)}`]]) {
      const map = html("div", "");
      map.append(html("img", "", { src: images[person.heatmaps[key]], alt: `Heatmap, ${name}` }), name);
      maps.append(map);
    }
    card.append(maps);
  }
  return card;
}
function showPoses(network) {
  const select = document.querySelector(`select[data-poses="${network}"]`);
  const annotated = document.querySelector(`input[data-annotation="${network}"]`).checked;
  const of = poses.rows[network][select.value];
  document.querySelector(`[data-people="${network}"]`).replaceChildren(
    ...of.people.map((person) => show(person, of, poses.images, annotated)),
  );
}
document.querySelectorAll("select[data-poses]").forEach((select) => {
  const network = select.dataset.poses;
  select.addEventListener("change", () => showPoses(network));
  document.querySelector(`input[data-annotation="${network}"]`).addEventListener("change", () => showPoses(network));
  showPoses(network);
});

// ---- Pages: a link to one opens it over the report, and closing it goes back to where one was
function openPage() {
  document.querySelectorAll("dialog[open]").forEach((page) => page.close());
  const page = document.getElementById(location.hash.slice(1));
  if (page instanceof HTMLDialogElement) page.showModal();
}
document.querySelectorAll("dialog").forEach((page) => {
  page.addEventListener("close", () => {
    if (location.hash === `#${page.id}`) history.replaceState(null, "", location.pathname + location.search);
  });
  page.addEventListener("click", (event) => event.target === page && page.close());
});
window.addEventListener("hashchange", openPage);

document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => {
  const text = button.previousElementSibling.textContent;
  navigator.clipboard.writeText(text).then(() => { button.textContent = "Copied"; }, () => {
    getSelection().selectAllChildren(button.previousElementSibling);  // a file may not be allowed to use the clipboard
    button.textContent = "Selected";
  });
}));

setTheme(remembered() || (prefersDark.matches ? "dark" : "light"));
openPage();
