/* The confusion matrix: a grid of cells and, where there are many genres, an overview of them all.

   One element of the grid is in the tab order, and the arrow keys move between its elements. Of many
   genres the grid shows a part, which follows the arrow keys; the overview moves and zooms it.
*/

const WHOLE = 20; // a matrix of up to that many genres is shown whole
const PART = { smallest: 5, usual: 15, largest: 30 }; // genres on a side of the part that is shown

/* The number of clips of a cell, of a row or column (one is null), or of all (both are null). */
function cellCount({ genres, counts }, genre, predicted) {
  const rows = genre === null ? counts : [counts[genres.indexOf(genre)]];
  const column = genres.indexOf(predicted);
  const inRow = (row) => (predicted === null ? row.reduce((a, b) => a + b, 0) : row[column]);
  return rows.reduce((n, row) => n + inRow(row), 0);
}

/* A cell, row or column in words: "3 rock clips predicted as metal". */
function cellLabel(matrix, genre, predicted) {
  const n = cellCount(matrix, genre, predicted);
  const clips = `${n || "no"}${genre === null ? "" : ` ${genre}`} ${n === 1 ? "clip" : "clips"}`;
  if (predicted === null) return genre === null ? `all ${clips}` : clips;
  return `${clips} predicted as ${predicted}${genre === predicted ? " (correct)" : ""}`;
}

const within = (value, least, most) => Math.min(Math.max(value, least), most);

/* The matrix. Places are row and column in all genres, with -1 for the headers. */
function drawMatrix(model, liveRegion) {
  const matrix = model.get("matrix");
  const { genres, counts } = matrix;
  const sums = counts.map((row) => row.reduce((a, b) => a + b, 0));
  const table = make("table", { data: {
    role: "grid", "aria-label": "Confusion matrix",
    "aria-rowcount": genres.length + 1, "aria-colcount": genres.length + 1,
  } });
  const part = { row: 0, column: 0, size: genres.length > WHOLE ? PART.usual : genres.length };
  let grid = []; // rows of elements; the first row and the first column are headers
  let place = [0, 0]; // of the element in the tab order
  let normalize = false;
  const overview = genres.length > WHOLE
    ? drawOverview(matrix, sums, part, { showPart, enter: () => focusOn(...place), liveRegion })
    : null;

  const addBehaviour = (element, row, column) => {
    const [genre, predicted] = [genres[row] ?? null, genres[column] ?? null];
    const label = cellLabel(matrix, genre, predicted);
    element.tabIndex = -1;
    element.title = label;
    element.setAttribute("aria-label", label);
    element.setAttribute("aria-colindex", column + 2);
    const announce = () => { liveRegion.textContent = label; };
    element.addEventListener("mouseenter", announce);
    element.addEventListener("focus", announce);
    element.addEventListener("click", () => {
      focusOn(row, column);
      model.set("selection", [genre, predicted]);
      model.save_changes();
    });
    element.cell = [genre, predicted];
    element.place = [row, column];
    return element;
  };
  const header = (text, role, row, column) => {
    const element = make("th", { data: { role } }, make("span", { textContent: text }));
    return addBehaviour(element, row, column);
  };
  const drawCell = (row, column) => {
    const cell = addBehaviour(make("td", { data: { role: "gridcell" } }), row, column);
    const share = sums[row] ? counts[row][column] / sums[row] : 0;
    cell.style.setProperty("--share", share.toFixed(3));
    cell.classList.toggle("strong", share > 0.8);
    return cell;
  };

  function drawPart() {
    const places = (start) => Array.from({ length: part.size }, (_, i) => start + i);
    const columns = places(part.column);
    const corner = header("predicted genre →\ntrue genre ↓", "columnheader", -1, -1);
    corner.classList.add("corner");
    grid = [[corner, ...columns.map((j) => header(genres[j], "columnheader", -1, j))]];
    for (const i of places(part.row)) {
      grid.push([header(genres[i], "rowheader", i, -1), ...columns.map((j) => drawCell(i, j))]);
    }
    table.replaceChildren(...grid.map((row) => make("tr", {
      data: { role: "row", "aria-rowindex": row[0].place[0] + 2 },
    }, ...row)));
    overview?.frame();
    writeNumbers();
    markSelection();
    elementAt(...place).tabIndex = 0;
  }
  /* Show the part of a size that has a place as near to its middle as possible. */
  function showPart(row, column, size = part.size) {
    part.size = within(Math.round(size), PART.smallest, Math.min(PART.largest, genres.length));
    const start = (i) => within(i - Math.floor(part.size / 2), 0, genres.length - part.size);
    [part.row, part.column] = [start(row), start(column)];
    place = [row, column];
    drawPart();
  }
  /* The element of a place; of a place outside of the part, the nearest one. */
  function elementAt(row, column) {
    const inGrid = (i, start) => (i < 0 ? 0 : within(i - start, 0, part.size - 1) + 1);
    return grid[inGrid(row, part.row)][inGrid(column, part.column)];
  }
  /* Focus a place, and move the part by as little as needed to show it. */
  function focusOn(row, column) {
    const reach = (i, start) => (i < 0 ? start : within(start, i - part.size + 1, i));
    const [top, left] = [reach(row, part.row), reach(column, part.column)];
    const moved = top !== part.row || left !== part.column;
    [part.row, part.column] = [top, left];
    elementAt(...place).tabIndex = -1;
    place = [row, column];
    if (moved) drawPart();
    elementAt(row, column).tabIndex = 0;
    elementAt(row, column).focus();
  }
  function writeNumbers() {
    for (const element of grid.flat()) {
      const [i, j] = element.place;
      if (i < 0 || j < 0) continue;
      const n = counts[i][j];
      const text = normalize ? Math.round((100 * n) / sums[i]) : n;
      element.textContent = n ? text : "";
    }
  }
  function markSelection() {
    const [genre, predicted] = model.get("selection");
    const selected = genre !== null || predicted !== null;
    for (const element of grid.flat()) {
      const [row, column] = element.cell;
      const inside = (genre ?? row) === row && (predicted ?? column) === column;
      element.classList.toggle("selected", selected && inside && element.tagName === "TD");
      const exactly = selected && row === genre && column === predicted;
      element.setAttribute("aria-selected", String(exactly));
    }
  }
  table.addEventListener("keydown", (event) => {
    if (!event.target.place) return;
    const [row, column] = event.target.place;
    const last = genres.length - 1;
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, -1], End: [row, last], PageUp: [-1, column], PageDown: [last, column],
    }[event.key];
    if (to) focusOn(...to.map((i) => within(i, -1, last)));
    else if (event.key === "Enter" || event.key === " ") event.target.click();
    else return;
    event.preventDefault();
  });
  drawPart();
  const setNormalize = (value) => { normalize = value; writeNumbers(); };
  return { table, overview: overview && overview.element, markSelection, setNormalize };
}

/* All genres in a picture with a frame around the part that the grid shows, and a search field.

   A click or a drag moves the frame, and the wheel zooms it; so do the arrow keys, + and -. */
function drawOverview(matrix, sums, part, { showPart, enter, liveRegion }) {
  const { genres } = matrix;
  const canvas = drawHeatMap(matrix, sums);
  const frame = make("div", { className: "frame" });
  const map = make("div", {
    className: "map",
    data: {
      role: "group", tabindex: 0,
      "aria-label": `Overview of ${genres.length} genres. The arrow keys move the part that is `
        + "shown, plus and minus zoom, and Enter goes to its cells.",
    },
  }, canvas, frame);
  const middle = () => [part.row, part.column].map((start) => start + Math.floor(part.size / 2));
  const showAndTell = (row, column, size) => {
    showPart(...[row, column].map((i) => within(i, 0, genres.length - 1)), size);
    const range = (start) => `${genres[start]} to ${genres[start + part.size - 1]}`;
    liveRegion.textContent = `True: ${range(part.row)}. Predicted: ${range(part.column)}.`;
  };
  const placeOf = (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const shares = [(event.clientY - top) / height, (event.clientX - left) / width];
    return shares.map((share) => within(Math.floor(share * genres.length), 0, genres.length - 1));
  };
  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    showAndTell(...placeOf(event));
  });
  map.addEventListener("pointermove", (event) => {
    if (event.buttons) return showAndTell(...placeOf(event));
    liveRegion.textContent = cellLabel(matrix, ...placeOf(event).map((i) => genres[i]));
  });
  map.addEventListener("wheel", (event) => {
    event.preventDefault();
    showAndTell(...placeOf(event), part.size * (event.deltaY < 0 ? 0.8 : 1.25));
  }, { passive: false });
  map.addEventListener("keydown", (event) => {
    const [row, column] = middle();
    const step = event.shiftKey ? part.size : 1;
    const to = {
      ArrowUp: [row - step, column], ArrowDown: [row + step, column],
      ArrowLeft: [row, column - step], ArrowRight: [row, column + step],
      Home: [0, 0], End: [genres.length, genres.length],
      "+": [row, column, part.size - 5], "=": [row, column, part.size - 5],
      "-": [row, column, part.size + 5],
    }[event.key];
    if (to) showAndTell(...to);
    else if (event.key === "Enter" || event.key === " ") enter();
    else return;
    event.preventDefault();
  });
  const zoom = (label, change, text) => {
    const button = make("button", { type: "button", textContent: text, title: label,
                                    data: { "aria-label": label } });
    button.addEventListener("click", () => showAndTell(...middle(), part.size + change));
    return button;
  };
  const element = make("div", { className: "overview" },
    make("div", { className: "controls" },
      drawSearch(genres, (i) => showAndTell(i, i), enter),
      zoom("Zoom in: fewer genres", -5, "+"), zoom("Zoom out: more genres", 5, "−")),
    map);
  return {
    element,
    frame() {
      const percents = { top: part.row, left: part.column, width: part.size, height: part.size };
      for (const [side, n] of Object.entries(percents)) {
        frame.style[side] = `${(100 * n) / genres.length}%`;
      }
    },
  };
}

/* A pixel per cell. The root of its share is its opacity: 5 % are still visible. */
function drawHeatMap({ genres, counts }, sums) {
  const n = genres.length;
  const canvas = make("canvas", { width: n, height: n });
  const pixels = new ImageData(n, n);
  counts.forEach((row, i) => row.forEach((count, j) => {
    const opacity = 255 * Math.sqrt(count / (sums[i] || 1));
    pixels.data.set([40, 120, 200, opacity], 4 * (n * i + j));
  }));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/* A field that finds a genre by its name or a part of it; Enter goes to the cells. */
function drawSearch(genres, show, enter) {
  const list = make("datalist", { id: `genres-${Math.random().toString(36).slice(2)}` },
    ...[...genres].sort().map((genre) => make("option", { value: genre })));
  const field = make("input", { type: "text", placeholder: "find a genre",
                                data: { list: list.id, "aria-label": "Find a genre" } });
  const lower = genres.map((genre) => genre.toLowerCase());
  const find = (matches) => {
    const found = lower.findIndex((genre) => matches(genre, field.value.trim().toLowerCase()));
    if (found >= 0) show(found);
    return found >= 0;
  };
  field.addEventListener("input", () => find((genre, text) => genre === text));
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !field.value.trim()) return;
    const found = find((genre, text) => genre === text)
      || find((genre, text) => genre.startsWith(text))
      || find((genre, text) => genre.includes(text));
    if (found) enter();
    event.preventDefault();
  });
  return make("span", {}, field, list);
}

