"use strict";
// Whatever comes from files (names, categories) is set as textContent, and never given to Plotly,
// which takes some of HTML for markup.

const data = JSON.parse(document.getElementById("data").textContent);
const unpack = (text, Type) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Type(bytes.buffer);
};
const count = data.names.length;
const maps = data.maps.map((map) => ({
  ...map, x: unpack(map.x, Float32Array), y: unpack(map.y, Float32Array),
}));
const splitOf = unpack(data.split, Uint16Array);
const categoryOf = unpack(data.category, Uint32Array);
const framesOf = unpack(data.frames, Int32Array);
const neighbours = unpack(data.neighbours, Uint32Array);
const cosines = unpack(data.cosines, Float32Array);

// Okabe and Ito's colours, which also those tell apart who do not see red and green; with shapes.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#444444", "#b8a800"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
const MAX_MARKED = COLOURS.length * SHAPES.length;
const FIRST_MARKED = 24; // of more categories, the largest are marked until others are chosen
const REST = "#c9ced4";
const MAX_HITS = 50;
const MAX_SVG = 1000; // points that are moved smoothly without WebGL

const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
};
const digits = (cosine) => cosine.toFixed(cosine < 0.9999 ? 4 : 7);
const plural = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;
const percent = (share) => `${Math.round(100 * share)} %`;
const number = (value) => value.toLocaleString("en");

const hasWebGL = (() => {
  try {
    return Boolean(document.createElement("canvas").getContext("webgl"));
  } catch {
    return false;
  }
})();
const traceType = count > MAX_SVG && hasWebGL ? "scattergl" : "scatter";

const sizes = (values, length) => {
  const found = new Array(length).fill(0);
  for (const value of values) found[value] += 1;
  return found;
};
const groups = {
  category: { names: data.categories, of: categoryOf, sizes: sizes(categoryOf, data.categories.length) },
  split: { names: data.splits, of: splitOf, sizes: sizes(splitOf, data.splits.length) },
};
const inDoubt = new Uint16Array(count);
for (const [place] of data.doubts) inDoubt[place] = 1;
for (const [first, second] of data.leaks) inDoubt[first] = inDoubt[second] = 2;
for (const [first, second] of data.duplicates) {
  for (const place of [first, second]) inDoubt[place] = inDoubt[place] === 2 ? 2 : 3;
}
groups.trouble = {
  names: ["nothing found", "doubtful label", "leak", "duplicate"],
  of: inDoubt, sizes: sizes(inDoubt, 4),
};

const state = {
  map: 0,
  colour: "category",
  splits: new Set(data.splits.keys()),
  categories: new Set(data.categories.keys()),
  selected: null,
  tab: "video",
};
const isShown = (place) => state.splits.has(splitOf[place]) && state.categories.has(categoryOf[place]);

// ---- what a group looks like -------------------------------------------------------------------

let marks = []; // of each group of the present colouring: [colour, shape], or null

function chooseMarks() {
  const { names, sizes: many } = groups[state.colour];
  marks = names.map(() => null);
  if (state.colour === "trouble") {
    marks = [null, ["#e69f00", "diamond"], ["#d55e00", "x"], ["#0072b2", "square"]];
    return;
  }
  let chosen = [...names.keys()];
  if (state.colour === "category" && names.length > MAX_MARKED) { // the others keep theirs
    chosen = chosen.filter((place) => state.categories.has(place));
    const limit = chosen.length > MAX_MARKED ? FIRST_MARKED : MAX_MARKED;
    if (chosen.length > limit) {
      chosen = chosen.sort((a, b) => many[b] - many[a]).slice(0, limit).sort((a, b) => a - b);
    }
  }
  // Along the diagonal: neighbours differ in both, and no two are alike in both.
  chosen.forEach((place, i) => {
    const round = Math.floor(i / COLOURS.length);
    marks[place] = [COLOURS[i % COLOURS.length], SHAPES[(i + round) % SHAPES.length]];
  });
}

const PATHS = {
  circle: "M7 2.5a4.5 4.5 0 1 0 .01 0z", square: "M3 3h8v8H3z", diamond: "M7 1l6 6-6 6-6-6z",
  "triangle-up": "M7 2l6 10H1z", "triangle-down": "M7 12L1 2h12z",
  cross: "M5 1h4v4h4v4H9v4H5V9H1V5h4z", x: "M3 1l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4z",
  star: "M7 0l2 5h5l-4 3 2 6-5-4-5 4 2-6-4-3h5z",
};

function drawMark(mark) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 14 14");
  svg.setAttribute("class", "mark");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[mark ? mark[1] : "circle"]);
  path.setAttribute("fill", mark ? mark[0] : REST);
  svg.append(path);
  return svg;
}

// ---- the map -----------------------------------------------------------------------------------

const plot = byId("map");
let traces = []; // places of the videos of each trace

function gather() {
  const { of } = groups[state.colour];
  const shown = marks.map((mark) => (mark ? [] : null));
  const rest = [];
  for (let place = 0; place < count; place += 1) {
    if (isShown(place)) (shown[of[place]] ?? rest).push(place);
  }
  const marked = [...marks.keys()].filter((group) => marks[group]);
  traces = [rest, ...marked.map((group) => shown[group])];
  return [null, ...marked.map((group) => marks[group])];
}

function draw() {
  chooseMarks();
  const traceMarks = gather();
  const total = traces.reduce((sum, places) => sum + places.length, 0);
  const { x, y, axes } = maps[state.map];
  const size = Math.max(4, Math.min(9, 9 - Math.log10(Math.max(total, 100) / 100) * 2));
  const series = traces.map((places, i) => {
    const mark = traceMarks[i];
    return {
      type: traceType, mode: "markers", hoverinfo: "none", showlegend: false,
      x: places.map((place) => x[place]), y: places.map((place) => y[place]),
      marker: {
        size: mark ? size : size * 0.75, color: mark ? mark[0] : REST, symbol: mark ? mark[1] : "circle",
        opacity: mark ? 0.85 : 0.6, line: { width: total > MAX_SVG ? 0 : 0.5, color: "#1b1f24" },
      },
    };
  });
  series.push(ring([], 15), ring([], 22));
  Plotly.react(plot, series, layout(axes), {
    responsive: true, scrollZoom: true, displaylogo: false,
    modeBarButtons: [["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  });
  markSelection();
  const unmarked = state.colour === "category" && traces[0].length > 0;
  byId("shown").textContent = `${number(total)} of ${number(count)} videos are shown. ` +
    (unmarked ? `The ${traces.length - 1} largest categories have a mark; choose fewer, to give each one. ` : "") +
    "Drag to move, scroll to zoom, click a point to see its video.";
}

const ring = (places, size) => ({
  type: traceType, mode: "markers", hoverinfo: "skip", showlegend: false,
  x: places.map((place) => maps[state.map].x[place]), y: places.map((place) => maps[state.map].y[place]),
  marker: { size, color: "rgba(0,0,0,0)", symbol: "circle", line: { width: 2.5, color: "#1b1f24" } },
});

const layout = (axes) => ({
  margin: { l: 56, r: 10, t: 10, b: 44 }, dragmode: "pan", hovermode: "closest", uirevision: `map ${state.map}`,
  xaxis: { title: { text: axes[0] }, zeroline: false }, yaxis: { title: { text: axes[1] }, zeroline: false },
  font: { family: "system-ui, sans-serif", color: "#1b1f24" },
});

function markSelection() {
  const near = state.selected === null ? [] : nearest(state.selected).map(([place]) => place).filter(isShown);
  const chosen = state.selected === null ? [] : [state.selected].filter(isShown);
  const rings = [ring(near, 15), ring(chosen, 22)];
  Plotly.restyle(plot, {
    x: rings.map((trace) => trace.x), y: rings.map((trace) => trace.y),
  }, [traces.length, traces.length + 1]);
}

function nearest(place) {
  const start = place * data.numNeighbours;
  return Array.from({ length: data.numNeighbours }, (_, i) => [neighbours[start + i], cosines[start + i]]);
}

// ---- details -----------------------------------------------------------------------------------

const about = (place) =>
  `${data.categories[categoryOf[place]]} · ${data.splits[splitOf[place]]} · ${number(framesOf[place])} frames`;

function videoButton(place, note = "") {
  const button = make("button", { type: "button", textContent: data.names[place] },
    make("small", { textContent: note ? `${note} · ${about(place)}` : about(place) }));
  button.addEventListener("click", () => select(place, true));
  return button;
}

const videoList = (entries) =>
  make("ul", { className: "videos" }, ...entries.map(([place, note]) => make("li", {}, videoButton(place, note))));

function describeVideo() {
  const place = state.selected;
  if (place === null) {
    return [make("p", { textContent: "Click a point of the map, or search for a name, to see a video." })];
  }
  const parts = [];
  const facts = make("dl");
  const rows = {
    Video: data.names[place], Category: data.categories[categoryOf[place]],
    Split: data.splits[splitOf[place]], Frames: number(framesOf[place]),
  };
  for (const [name, value] of Object.entries(rows)) {
    facts.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  }
  if (data.strips[place]) {
    parts.push(make("img", {
      className: "strip", src: `data:image/jpeg;base64,${data.strips[place]}`,
      alt: "frames of the video, evenly spaced, the first one at the left",
    }));
  }
  parts.push(facts);
  if (!isShown(place)) parts.push(make("p", { textContent: "The filters hide it from the map." }));
  const doubt = data.doubts.find((entry) => entry[0] === place);
  if (doubt) {
    parts.push(make("p", { className: "leak", textContent:
      `Doubtful label: ${percent(doubt[2])} of its neighbours' votes are for ${data.categories[doubt[1]]}.` }));
  }
  for (const [first, second, cosine, sure] of [...data.leaks, ...data.duplicates]) {
    if (first !== place && second !== place) continue;
    const other = first === place ? second : first;
    const leak = splitOf[first] !== splitOf[second];
    parts.push(make("p", { className: "leak", textContent:
      `${leak ? "Leak" : "Duplicate"}: ${sure ? "the same content as" : `nearly the same (${digits(cosine)}) as`}` }),
      videoList([[other, ""]]));
  }
  parts.push(make("h2", { textContent: "Nearest neighbours (cosine)" }));
  parts.push(videoList(nearest(place).map(([other, cosine]) => [other, cosine.toFixed(3)])));
  if (data.similarities[place]) {
    parts.push(make("h2", { textContent: "Similarity of its frames over time" }), make("div", {
      id: "similarity", role: "img", ariaLabel: "cosine of each frame of the video with each other one" }));
  }
  const detailed = Object.keys(data.similarities).length;
  const drawn = Object.keys(data.strips).length;
  if (!data.similarities[place]) {
    parts.push(make("p", { textContent: `Details of frames are here for ${number(detailed)} of the videos.` }));
  } else if (drawn && !data.strips[place]) {
    parts.push(make("p", { textContent: "Its frames were not found among the inputs." }));
  }
  return parts;
}

function drawSimilarity() {
  const target = byId("similarity");
  if (!target) return;
  const levels = unpack(data.similarities[state.selected], Uint8Array);
  const side = Math.sqrt(levels.length);
  const step = framesOf[state.selected] / side;
  const times = Array.from({ length: side }, (_, i) => Math.floor(i * step));
  const rows = Array.from({ length: side }, (_, i) =>
    Array.from(levels.subarray(i * side, (i + 1) * side), (level) => (level === 255 ? null : level / 127 - 1)));
  Plotly.newPlot(target, [{
    type: "heatmap", z: rows, x: times, y: times, colorscale: "Cividis", zmax: 1,
    colorbar: { title: { text: "cosine" }, thickness: 12 },
    hovertemplate: "frames %{x} and %{y}: %{z:.3f}<extra></extra>",
  }], {
    margin: { l: 44, r: 0, t: 8, b: 36 }, xaxis: { title: { text: "frame" } },
    yaxis: { title: { text: "frame" }, autorange: "reversed" }, font: { family: "system-ui, sans-serif" },
  }, { responsive: true, displayModeBar: false });
}

function describePairs(pairs, total, what) {
  const parts = [];
  if (!pairs.length) parts.push(make("p", { textContent: `No ${what} were found.` }));
  if (total > pairs.length) {
    parts.push(make("p", { textContent: `The first ${number(pairs.length)} of ${number(total)}.` }));
  }
  if (data.threshold === null) {
    parts.push(make("p", { textContent: "Too few videos to tell near duplicates: the same content alone was looked for." }));
  } else {
    parts.push(make("p", { textContent:
      `Near means a cosine above ${digits(data.threshold)}, as the data itself says: half of the videos have ` +
      `their nearest neighbour above ${data.usual.toFixed(3)}. This near, and five times as near as the twentieth ` +
      "neighbour, less than one would be by chance." }));
  }
  for (const [first, second, cosine, sure] of pairs) {
    const label = categoryOf[first] === categoryOf[second] ? "" : " · under two labels";
    parts.push(make("div", { className: "pair" },
      make("p", { textContent: `${sure ? "the same content" : `cosine ${digits(cosine)}`}${label}` }),
      videoList([[first, ""], [second, ""]])));
  }
  return parts;
}

function describeDoubts() {
  const parts = [];
  const total = data.found[2];
  if (!total) {
    return [make("p", { textContent: "No labels are in doubt, or neighbours hardly know the labels: " +
      `by ${percent(data.agreement)} on average, they vote for that of the video.` })];
  }
  parts.push(make("p", { textContent:
    "Most neighbours of these videos have another label, and are as sure of it as they are where it is right. " +
    `Over all videos, the neighbours' votes are for the right label by ${percent(data.agreement)}: the fewer, ` +
    "the less this list means." }));
  if (total > data.doubts.length) {
    parts.push(make("p", { textContent: `The first ${number(data.doubts.length)} of ${number(total)}.` }));
  }
  parts.push(videoList(data.doubts.map(([place, suggested, share]) =>
    [place, `rather ${data.categories[suggested]} (${percent(share)} of the votes)`])));
  return parts;
}

const tabs = {
  video: ["Video", describeVideo],
  leaks: [`Leaks (${number(data.found[0])})`, () => describePairs(data.leaks, data.found[0], "leaks")],
  duplicates: [`Duplicates (${number(data.found[1])})`,
    () => describePairs(data.duplicates, data.found[1], "duplicates within a split")],
  doubts: [`Doubtful labels (${number(data.found[2])})`, describeDoubts],
};

function showTab(name) {
  state.tab = name;
  for (const button of byId("tabs").children) {
    const chosen = button.dataset.tab === name;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${name}`);
  byId("panel").replaceChildren(...tabs[name][1]());
  if (name === "video" && state.selected !== null && data.similarities[state.selected]) drawSimilarity();
}

function select(place, moves = false) {
  const focused = document.activeElement;
  state.selected = place;
  if (moves && !isShown(place)) {
    state.splits.add(splitOf[place]);
    state.categories.add(categoryOf[place]);
    draw();
    listSplits();
    listCategories();
  } else {
    markSelection();
  }
  showTab("video");
  byId("live").textContent = `${data.names[place]}, ${about(place)}`;
  if (focused && !focused.isConnected) byId("panel").focus(); // the button that was pressed is gone
}

// ---- controls ----------------------------------------------------------------------------------

function option(type, name, text, checked, changed, mark, size) {
  const input = make("input", { type, name, checked });
  const label = make("label", { className: "option", title: text }, input);
  if (mark !== undefined) label.append(drawMark(mark));
  label.append(make("span", { className: "name", textContent: text }));
  if (size !== undefined) label.append(make("span", { className: "count", textContent: number(size) }));
  input.addEventListener("change", () => changed(input.checked));
  return label;
}

function replaceOptions(id, options) {
  const box = byId(id);
  box.replaceChildren(...[...box.children].filter((child) => child.tagName === "LEGEND"), ...options);
}

function toggle(set, place, on) {
  if (on) set.add(place);
  else set.delete(place);
  draw();
  listCategories();
}

function listSplits() {
  const isColour = state.colour === "split";
  replaceOptions("splits", data.splits.map((name, place) => option("checkbox", "split", name,
    state.splits.has(place), (on) => toggle(state.splits, place, on),
    isColour ? marks[place] : undefined, groups.split.sizes[place])));
}

function listCategories() {
  const wanted = byId("find-category").value.trim().toLowerCase();
  const isColour = state.colour === "category";
  const options = [];
  data.categories.forEach((name, place) => {
    if (wanted && !name.toLowerCase().includes(wanted)) return;
    options.push(option("checkbox", "category", name, state.categories.has(place),
      (on) => toggle(state.categories, place, on), isColour ? marks[place] : undefined,
      groups.category.sizes[place]));
  });
  const list = byId("category-list");
  const { scrollTop } = list;
  const focused = [...list.querySelectorAll("input")].indexOf(document.activeElement);
  list.replaceChildren(...options);
  list.scrollTop = scrollTop;
  if (focused >= 0 && options[focused]) options[focused].querySelector("input").focus();
}

function listTrouble() {
  const { names, sizes: many } = groups.trouble;
  const isColour = state.colour === "trouble";
  byId("trouble").replaceChildren(...names.flatMap((name, place) => (!isColour || !many[place] ? [] : [
    make("div", { className: "option" }, drawMark(marks[place]),
      make("span", { className: "name", textContent: name }),
      make("span", { className: "count", textContent: number(many[place]) })),
  ])));
}

function listHits() {
  const wanted = byId("search").value.trim().toLowerCase();
  const hits = [];
  for (let place = 0; wanted && place < count; place += 1) {
    if (data.names[place].toLowerCase().includes(wanted)) hits.push(place);
  }
  const shown = hits.slice(0, MAX_HITS);
  byId("hits").replaceChildren(...shown.map((place) => make("li", {}, videoButton(place))));
  if (wanted && hits.length !== 1) {
    const words = hits.length > MAX_HITS ? `The first ${MAX_HITS} of ${number(hits.length)} videos.`
      : hits.length ? `${number(hits.length)} videos.` : "No video has such a name.";
    byId("hits").prepend(make("li", { textContent: words }));
  }
  return hits;
}

function chooseAll(on) {
  state.categories = new Set(on ? data.categories.keys() : []);
  draw();
  listCategories();
}

function start() {
  const total = `${plural(count, "video", "videos")} of ` +
    `${plural(data.categories.length, "category", "categories")} in ${data.splits.join(", ")}. `;
  const leaks = data.found[0] ? make("span", { className: "leak",
    textContent: `${plural(data.found[0], "leak", "leaks")} between splits. ` }) : "";
  byId("summary").append(leaks, total,
    "A point is a video: the means of its beginning, middle and end, around the mean of all.");
  for (const [name, [text]] of Object.entries(tabs)) {
    const button = make("button", { type: "button", textContent: text, id: `tab-${name}` });
    button.dataset.tab = name;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", "panel");
    button.addEventListener("click", () => showTab(name));
    byId("tabs").append(button);
  }
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const buttons = [...byId("tabs").children];
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    showTab(next.dataset.tab);
  });
  if (maps.length > 1) {
    replaceOptions("views", maps.map((map, place) => option("radio", "map", map.name, place === 0, () => {
      state.map = place;
      draw();
    })));
  } else {
    byId("views").hidden = true;
  }
  const colours = { category: "category", split: "split", trouble: "what was found" };
  replaceOptions("colours", Object.entries(colours).map(([name, text]) =>
    option("radio", "colour", text, name === state.colour, () => {
      state.colour = name;
      draw();
      listSplits();
      listCategories();
      listTrouble();
    })));
  byId("colours").append(make("div", { id: "trouble" }));
  draw();
  listSplits();
  listCategories();
  showTab(data.leaks.length ? "leaks" : "video");

  byId("search").addEventListener("input", listHits);
  byId("find-category").addEventListener("input", listCategories);
  byId("all").addEventListener("click", () => chooseAll(true));
  byId("none").addEventListener("click", () => chooseAll(false));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("keydown", (event) => {
    const [first] = event.key === "Enter" ? listHits() : [];
    if (first !== undefined) select(first, true);
  });

  const tip = byId("tip");
  const placeOf = (point) => (point.curveNumber < traces.length ? traces[point.curveNumber][point.pointNumber] : null);
  plot.on("plotly_click", (event) => {
    const place = placeOf(event.points[0]);
    if (place !== null) select(place);
  });
  plot.on("plotly_hover", (event) => {
    const place = placeOf(event.points[0]);
    if (place === null) return;
    tip.textContent = `${data.names[place]}\n${about(place)}`;
    tip.hidden = false;
    const box = plot.getBoundingClientRect();
    const { clientX, clientY } = event.event;
    tip.style.left = `${Math.min(clientX - box.left + 14, box.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(clientY - box.top - tip.offsetHeight - 10, 4)}px`;
  });
  plot.on("plotly_unhover", () => { tip.hidden = true; });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" && state.selected !== null && data.numNeighbours) {
      select(nearest(state.selected)[0][0], true);
    } else if (step) {
      event.preventDefault();
      const from = state.selected === null ? (step > 0 ? -1 : count) : state.selected;
      for (let place = from + step; place >= 0 && place < count; place += step) {
        if (isShown(place)) {
          select(place);
          break;
        }
      }
    }
  });
  document.body.dataset.ready = "true";
}

start();
