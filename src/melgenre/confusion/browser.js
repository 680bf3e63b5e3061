/* The page's half of melgenre.confusion.ConfusionBrowser.

   The matrix is a grid of cells to walk with the arrow keys; a chosen cell's clips are asked of
   the kernel, and so are sound, evidence and neighbours. Names only ever become text, never markup.
*/

/* An element with its properties and children; children that are null are left out. */
function make(tag, { data, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(data ?? {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const clipsOf = (n) => (n === 0 ? "no clip" : n === 1 ? "1 clip" : `${n} clips`);
const percent = (share) => `${Math.round(100 * share)} %`;
const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/* A cell, row or column in words: "7 rock clips called metal". */
function inWords(matrix, genre, predicted) {
  const { genres, counts } = matrix;
  let n = 0;
  genres.forEach((row, i) => genres.forEach((column, j) => {
    if ((genre ?? row) === row && (predicted ?? column) === column) n += counts[i][j];
  }));
  const named = n === 0 ? "no" : String(n);
  const what = `${named}${genre === null ? "" : ` ${genre}`} ${n === 1 ? "clip" : "clips"}`;
  if (predicted === null) return genre === null ? `all ${what}` : what;
  return `${what} called ${predicted}${genre === predicted ? ", rightly" : ""}`;
}

/* Questions to the kernel, each with a ticket that its answer bears. */
function connect(model) {
  const waiting = new Map();
  const own = Math.random().toString(36).slice(2);
  let asked = 0;
  const listen = (content, buffers) => {
    waiting.get(content.ticket)?.({ ...content, buffers });
    waiting.delete(content.ticket);
  };
  model.on("msg:custom", listen);
  return {
    ask: (message) => new Promise((resolve) => {
      const ticket = `${own}-${asked++}`;
      waiting.set(ticket, resolve);
      model.send({ ...message, ticket });
    }),
    close: () => model.off("msg:custom", listen),
  };
}

/* Keep the keys that are pressed inside the widget away from the notebook around it.

   JupyterLab and Notebook 7 match shortcuts in the capture phase on the document, before any
   listener in here, and match them from the focused element outwards. An attribute on the widget's
   root is thus reached too late: `:focus` has already matched. It must be on the focused element
   itself, and only a listener on the window can put it there in time. Ctrl-S still saves.
*/
function keepKeys(root) {
  const suppress = (event) => {
    if (!root.contains(event.target)) return;
    const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !saves);
  };
  window.addEventListener("keydown", suppress, true);
  // Other listeners of the notebook and of VS Code wait until the event bubbles; a key with Ctrl,
  // such as Ctrl-C, is theirs to handle.
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  return () => window.removeEventListener("keydown", suppress, true);
}

/* The matrix: a grid with one place in the tab order, walked with arrow keys. */
function drawMatrix(model, told) {
  const matrix = model.get("matrix");
  const { genres, counts } = matrix;
  const sums = counts.map((row) => row.reduce((a, b) => a + b, 0));
  const table = make("table", { data: { role: "grid", "aria-label": "Confusion matrix" } });
  const places = []; // rows of elements; the first row and column are names
  let perCent = false;

  const place = (element, genre, predicted) => {
    const words = inWords(matrix, genre, predicted);
    element.tabIndex = -1;
    element.title = words;
    element.setAttribute("aria-label", words);
    const tell = () => { told.textContent = words; };
    element.addEventListener("mouseenter", tell);
    element.addEventListener("focus", tell);
    element.addEventListener("click", () => {
      focusOn(element);
      model.set("selection", [genre, predicted]);
      model.save_changes();
    });
    element.choice = [genre, predicted];
    return element;
  };
  const name = (text, role) =>
    make("th", { data: { role } }, make("span", { textContent: text }));
  const corner = place(name("is ↓ called →", "columnheader"), null, null);
  corner.classList.add("corner");
  places.push([corner, ...genres.map((genre) => place(name(genre, "columnheader"), null, genre))]);
  genres.forEach((genre, i) => {
    const cells = genres.map((predicted, j) => {
      const cell = place(make("td", { data: { role: "gridcell" } }), genre, predicted);
      const share = sums[i] ? counts[i][j] / sums[i] : 0;
      cell.style.setProperty("--share", share.toFixed(3));
      cell.classList.toggle("strong", share > 0.8);
      return cell;
    });
    places.push([place(name(genre, "rowheader"), genre, null), ...cells]);
  });
  table.append(...places.map((row) => make("tr", { data: { role: "row" } }, ...row)));

  function write() {
    genres.forEach((_, i) => genres.forEach((_, j) => {
      const n = counts[i][j];
      const text = perCent ? Math.round((100 * n) / sums[i]) : n;
      places[i + 1][j + 1].textContent = n ? text : "";
    }));
  }
  function focusOn(element) {
    for (const one of places.flat()) one.tabIndex = one === element ? 0 : -1;
    element.focus();
  }
  function mark() {
    const [genre, predicted] = model.get("selection");
    const chosen = genre !== null || predicted !== null;
    for (const one of places.flat()) {
      const [row, column] = one.choice;
      const inside = (genre ?? row) === row && (predicted ?? column) === column;
      one.classList.toggle("chosen", chosen && inside && one.tagName === "TD");
      one.setAttribute("aria-selected", String(row === genre && column === predicted && chosen));
    }
  }
  table.addEventListener("keydown", (event) => {
    const row = places.findIndex((elements) => elements.includes(event.target));
    if (row < 0) return;
    const column = places[row].indexOf(event.target);
    const last = places.length - 1;
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, last], PageUp: [0, column], PageDown: [last, column],
    }[event.key];
    if (to) focusOn(places[Math.min(Math.max(to[0], 0), last)][Math.min(Math.max(to[1], 0), last)]);
    else if (event.key === "Enter" || event.key === " ") event.target.click();
    else return;
    event.preventDefault();
  });
  places[1][1].tabIndex = 0;
  write();
  mark();
  return { table, mark, showPerCent: (value) => { perCent = value; write(); } };
}

/* The mel-spectrogram of a clip with a cursor, and the button that plays it. */
function drawPlayer(clip, png, { ask, stage }) {
  const audio = make("audio", { preload: "auto" });
  const cursor = make("div", { className: "cursor", hidden: true });
  const image = png.byteLength
    ? make("img", { alt: `Mel-spectrogram of ${clip.name}`, draggable: false,
                    src: stage.url(png, "image/png") })
    : make("div", { className: "missing", textContent: "no image" });
  const start = clip.sound_start ?? 0; // where in the image the sound begins
  const screen = make("div", {
    className: "spectrogram",
    data: clip.sound === "here"
      ? { role: "slider", tabindex: 0, "aria-label": `Position in ${clip.name}`, "aria-valuemin": 0,
          "aria-valuemax": Math.round(clip.seconds), "aria-valuenow": 0 }
      : {},
  }, image, cursor);
  const status = make("span", { className: "status", data: { role: "status" } });
  if (clip.sound !== "here") {
    status.textContent = clip.sound === "gone"
      ? "The sound is gone: its file is no longer there." : "No sound, only its image.";
    return { screen, row: make("div", { className: "controls" }, status) };
  }
  const button = make("button", { type: "button" });
  const label = () => {
    button.textContent = audio.paused ? "▶ Play" : "❚❚ Pause";
    button.setAttribute("aria-label", `${audio.paused ? "Play" : "Pause"} ${clip.name}`);
  };
  label();

  let loading = null; // one request, however often the button is pressed meanwhile
  const load = () => (loading ??= fetchSound());
  async function fetchSound() {
    status.textContent = "Fetching the sound …";
    const answer = await ask({ kind: "sound", table: clip.table, row: clip.row });
    status.textContent = answer.error ?? "";
    if (answer.error) {
      loading = null;
      return false;
    }
    audio.src = stage.url(answer.buffers[0], "audio/mpeg");
    return true;
  }
  async function play() {
    stage.player = audio;
    for (const other of stage.root.querySelectorAll("audio")) if (other !== audio) other.pause();
    if (!(await load()) || stage.player !== audio) return; // another clip was started meanwhile
    try {
      await audio.play();
    } catch (error) {
      if (error.name === "AbortError") return;
      audio.pause(); // a failed play() leaves `paused` false
      status.textContent = `This browser does not play it: ${error.message}`;
    }
  }
  async function seek(position) {
    if (!(await load())) return;
    audio.currentTime = Math.max(0, position - start);
    move();
  }
  function move() {
    const position = start + audio.currentTime;
    cursor.hidden = false;
    cursor.style.left = `${(100 * position) / clip.seconds}%`;
    screen.setAttribute("aria-valuenow", String(Math.round(position)));
    screen.setAttribute("aria-valuetext", `${clock(position)} of ${clock(clip.seconds)}`);
    status.textContent = `${clock(position)} / ${clock(clip.seconds)}`;
  }
  function follow() {
    if (audio.paused) return;
    move();
    requestAnimationFrame(follow);
  }
  audio.addEventListener("play", () => { label(); follow(); });
  audio.addEventListener("pause", label); // also fires at the end of the sound
  audio.addEventListener("ended", move);
  button.addEventListener("click", () => (audio.paused ? play() : audio.pause()));
  screen.addEventListener("click", async (event) => {
    const { left, width } = screen.getBoundingClientRect();
    await seek(((event.clientX - left) / width) * clip.seconds);
    play();
  });
  screen.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (step) seek(start + audio.currentTime + step);
    else if (event.key === "Enter" || event.key === " ") button.click();
    else return;
    event.preventDefault();
  });
  return { screen, row: make("div", { className: "controls" }, button, status, audio) };
}

/* A switch that fetches something from the kernel the first time it is turned on. */
function drawSwitch(label, fetchOnce, show) {
  const box = make("input", { type: "checkbox" });
  const note = make("span", { className: "status", data: { role: "status" } });
  let fetching = null; // one request, however often the switch is turned meanwhile
  box.addEventListener("change", async () => {
    if (fetching === null) {
      note.textContent = box.checked ? "computing …" : "";
      if (!box.checked) return; // turned off after an error
    }
    const answer = await (fetching ??= fetchOnce());
    if (answer.error) {
      fetching = null;
      note.textContent = answer.error;
    } else {
      note.textContent = "";
      show(box.checked, answer, note);
    }
  });
  return make("label", {}, box, ` ${label} `, note);
}

/* The five highest probabilities, as bars. */
function drawChances(clip) {
  return make("div", { className: "probabilities" }, ...clip.probabilities.map(([genre, chance]) => {
    const kind = genre === clip.predicted ? "predicted" : genre === clip.genre ? "true" : "";
    const bar = make("span", { className: `bar ${kind}` });
    bar.style.width = `${Math.max(1, 100 * chance)}%`;
    const mark = genre === clip.genre ? " (true)" : "";
    return make("div", { className: "chance" },
      make("span", { className: "label", textContent: genre + mark }),
      make("span", { className: "track" }, bar),
      make("span", { className: "value", textContent: percent(chance) }));
  }));
}

/* What a person says of the clip: kept by the kernel at once. */
function drawDecision(clip, matrix, ask) {
  const options = (names, empty) => [
    make("option", { value: "", textContent: empty }),
    ...names.map((name) => make("option", { value: name, textContent: name })),
  ];
  const verdict = make("select", { data: { "aria-label": "Your decision" } },
    ...options(matrix.verdicts, "undecided"));
  const correct = make("select", { data: { "aria-label": "The right genre" } },
    ...options(matrix.genres, "right genre?"));
  const comment = make("input", { type: "text", placeholder: "comment", maxLength: 500,
                                  data: { "aria-label": "Comment" } });
  const status = make("span", { className: "status", data: { role: "status" } });
  verdict.value = clip.decision?.decision ?? "";
  correct.value = clip.decision?.correct_genre ?? "";
  comment.value = clip.decision?.comment ?? "";
  const fit = () => {
    correct.hidden = verdict.value !== "mislabelled";
    comment.hidden = verdict.value === "";
  };
  const keep = async () => {
    fit();
    const answer = await ask({
      kind: "annotation", table: clip.table, row: clip.row, decision: verdict.value || null,
      correct_genre: correct.hidden ? "" : correct.value, comment: comment.value,
    });
    status.textContent = answer.error ?? `kept in ${answer.file}`;
  };
  fit();
  for (const field of [verdict, correct, comment]) field.addEventListener("change", keep);
  return make("div", { className: "decision" }, verdict, correct, comment, status);
}

function drawClip(clip, png, tools) {
  const { ask, stage, matrix } = tools;
  const from = { table: clip.table, row: clip.row };
  const player = drawPlayer(clip, png, tools);
  const who = clip.artist === null ? "" : ` · artist ${clip.artist}`;
  const similar = clip.similarity === undefined ? "" : ` · likeness ${clip.similarity.toFixed(2)}`;
  const [, chance] = clip.probabilities.find(([genre]) => genre === clip.predicted) ?? [];
  const called = clip.predicted ? `, called ${clip.predicted}` : "";
  const card = make("article", { className: "clip" },
    make("div", { className: "name" }, make("strong", { textContent: clip.name }), who + similar),
    make("div", { className: "genres",
                  textContent: `is ${clip.genre}${called}${chance ? ` (${percent(chance)})` : ""}` }),
    player.screen, player.row);
  if (clip.table !== "results") return card; // a neighbour: to be seen and heard

  card.append(drawChances(clip));
  if (matrix.verdicts.length) card.append(drawDecision(clip, matrix, ask));
  if (matrix.explains && png.byteLength) {
    player.row.append(drawWhy(player.screen, () => ask({ kind: "attribution", ...from }), stage));
  }
  if (matrix.compares && png.byteLength) {
    // Last in the card, so that the opened list moves nothing that the card shows already.
    const list = make("div", { className: "neighbours", hidden: true });
    card.append(list);
    player.row.append(
      drawNeighbours(list, () => ask({ kind: "neighbours", ...from }), tools));
  }
  return card;
}

/* The switch that lays the attribution over the mel-spectrogram. */
function drawWhy(screen, fetchOnce, stage) {
  const overlay = make("img", { className: "evidence", alt: "", hidden: true });
  screen.insertBefore(overlay, screen.lastChild);
  return drawSwitch("Why?", fetchOnce, (on, answer, note) => {
    if (!overlay.src) overlay.src = stage.url(answer.buffers[0], "image/png");
    overlay.hidden = !on;
    screen.classList.toggle("explained", on);
    note.replaceChildren(...(on ? answer.genres : []).map((genre, i) =>
      make("span", { className: i ? "for-true" : "for-predicted", textContent: `■ for ${genre} ` })));
  });
}

/* The switch that lists the nearest training clips. */
function drawNeighbours(list, fetchOnce, tools) {
  return drawSwitch("Nearest training clips", fetchOnce, (on, answer) => {
    if (!list.childElementCount) {
      list.append(...answer.clips.map((one, i) => drawClip(one, answer.buffers[i], tools)));
    }
    list.hidden = !on;
    if (!on) for (const audio of list.querySelectorAll("audio")) audio.pause();
  });
}

function render({ model, el }) {
  const matrix = model.get("matrix");
  const { ask, close } = connect(model);
  const urls = [];
  const root = make("div", { className: "melgenre-confusion" });
  const releaseKeys = keepKeys(root);
  const stage = {
    root,
    url(bytes, type) {
      const url = URL.createObjectURL(new Blob([bytes], { type }));
      urls.push(url);
      return url;
    },
  };
  const told = make("div", { className: "told", data: { "aria-live": "polite" } });
  told.textContent = "Hover, or walk with the arrow keys; click or press Enter to see the clips.";
  const grid = drawMatrix(model, told);
  const shares = make("input", { type: "checkbox" });
  shares.addEventListener("change", () => grid.showPerCent(shares.checked));
  const heading = make("h4", { data: { "aria-live": "polite" } });
  const list = make("div", { className: "list" });
  const more = make("button", { type: "button", textContent: "More", hidden: true });
  let shown = 0;

  async function fetchClips() {
    const selection = model.get("selection");
    const start = shown;
    const answer = await ask({ kind: "clips", selection, start });
    // Chosen otherwise meanwhile, or asked twice: this answer is no longer wanted.
    if (String(selection) !== String(model.get("selection")) || start !== shown) return;
    if (answer.error) { heading.textContent = answer.error; return; }
    heading.textContent = inWords(matrix, ...selection);
    list.append(...answer.clips.map((clip, i) =>
      drawClip(clip, answer.buffers[i], { ask, stage, matrix })));
    shown += answer.clips.length;
    more.hidden = shown >= answer.total;
    more.textContent = `More (${clipsOf(answer.total - shown)})`;
  }
  function choose() {
    grid.mark();
    list.replaceChildren();
    urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
    shown = 0;
    more.hidden = true;
    const chosen = model.get("selection").some((genre) => genre !== null);
    heading.textContent = chosen ? "Asking the kernel …" : "";
    if (chosen) fetchClips();
  }
  more.addEventListener("click", fetchClips);
  model.on("change:selection", choose);
  root.append(
    make("div", { className: "matrix" }, grid.table,
      make("label", {}, shares, " per cent of the row"), told),
    make("section", { className: "clips", data: { "aria-label": "Clips" } }, heading, list, more));
  el.append(root);
  choose();
  return () => {
    model.off("change:selection", choose);
    close();
    releaseKeys();
    for (const audio of root.querySelectorAll("audio")) audio.pause();
    urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
