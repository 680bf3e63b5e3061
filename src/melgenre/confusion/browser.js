/* The front end of melgenre.ConfusionBrowser.

   The matrix itself is in matrix.js, which comes before this file in the same module. The clips of
   a selected cell are requested from the kernel, and so are sounds, attribution maps and
   neighbours. Names only ever become text, never markup.
*/

/* Create an element with properties, attributes (`data`) and children; null children are skipped. */
function make(tag, { data, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(data ?? {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const clipCount = (n) => (n === 0 ? "no clips" : n === 1 ? "1 clip" : `${n} clips`);
const percent = (share) => `${Math.round(100 * share)} %`;
const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/* Requests to the kernel. Each has a ticket, and the answer to it has the same ticket. */
function connect(model) {
  const waiting = new Map();
  const own = Math.random().toString(36).slice(2);
  let requests = 0;
  const listen = (content, buffers) => {
    waiting.get(content.ticket)?.({ ...content, buffers });
    waiting.delete(content.ticket);
  };
  model.on("msg:custom", listen);
  return {
    request: (message) => new Promise((resolve) => {
      const ticket = `${own}-${requests++}`;
      waiting.set(ticket, resolve);
      model.send({ ...message, ticket });
    }),
    close: () => model.off("msg:custom", listen),
  };
}

/* Keep keys that are pressed inside the widget from the shortcuts of the notebook.

   JupyterLab and Notebook 7 match shortcuts in the capture phase on the document, before the
   listeners of this widget, and they start at the focused element. An attribute on the root of the
   widget comes too late: `:focus` has matched before. So the attribute must be on the focused
   element itself, and only a listener on the window can set it in time. Ctrl-S still saves.
*/
function keepKeys(root) {
  const suppress = (event) => {
    if (!root.contains(event.target)) return;
    const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !saves);
  };
  window.addEventListener("keydown", suppress, true);
  // Other listeners of the notebook and of VS Code run when the event bubbles. They still get keys
  // with Ctrl, such as Ctrl-C.
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  return () => window.removeEventListener("keydown", suppress, true);
}

/* The mel-spectrogram of a clip with a cursor, and the button that plays it. */
function drawPlayer(clip, png, { request, media }) {
  const audio = make("audio", { preload: "auto" });
  const cursor = make("div", { className: "cursor", hidden: true });
  const image = (png.byteLength ?? png.length)
    ? make("img", { alt: `Mel-spectrogram of ${clip.name}`, draggable: false,
                    src: media.url(png, "image/png") })
    : make("div", { className: "missing", textContent: "no image" });
  const start = clip.sound_start ?? 0; // seconds in the image where the sound begins
  const screen = make("div", {
    className: "spectrogram",
    data: clip.sound === "available"
      ? { role: "slider", tabindex: 0, "aria-label": `Position in ${clip.name}`, "aria-valuemin": 0,
          "aria-valuemax": Math.round(clip.seconds), "aria-valuenow": 0 }
      : {},
  }, image, cursor);
  const status = make("span", { className: "status", data: { role: "status" } });
  if (clip.sound !== "available") {
    status.textContent = clip.sound === "missing"
      ? "No sound: its file is missing." : "No sound, only the image.";
    return { screen, row: make("div", { className: "controls" }, status) };
  }
  const button = make("button", { type: "button" });
  const label = () => {
    button.textContent = audio.paused ? "▶ Play" : "❚❚ Pause";
    button.setAttribute("aria-label", `${audio.paused ? "Play" : "Pause"} ${clip.name}`);
  };
  label();

  let loading = null; // one request, even if the button is pressed several times
  const load = () => (loading ??= loadSound());
  async function loadSound() {
    status.textContent = "Loading the sound …";
    const answer = await request({ kind: "sound", table: clip.table, row: clip.row });
    status.textContent = answer.error ?? "";
    if (answer.error) {
      loading = null;
      return false;
    }
    audio.src = media.url(answer.buffers[0], "audio/mpeg");
    return true;
  }
  async function play() {
    media.player = audio;
    for (const other of media.root.querySelectorAll("audio")) if (other !== audio) other.pause();
    if (!(await load()) || media.player !== audio) return; // another clip was started
    try {
      await audio.play();
    } catch (error) {
      if (error.name === "AbortError") return;
      audio.pause(); // after a failed play(), `paused` is still false
      status.textContent = `This browser cannot play the sound: ${error.message}`;
    }
  }
  async function seek(position) {
    if (!(await load())) return;
    audio.currentTime = Math.max(0, position - start);
    showPosition();
  }
  function showPosition() {
    const position = start + audio.currentTime;
    cursor.hidden = false;
    cursor.style.left = `${(100 * position) / clip.seconds}%`;
    screen.setAttribute("aria-valuenow", String(Math.round(position)));
    screen.setAttribute("aria-valuetext", `${clock(position)} of ${clock(clip.seconds)}`);
    status.textContent = `${clock(position)} / ${clock(clip.seconds)}`;
  }
  function follow() {
    if (audio.paused) return;
    showPosition();
    requestAnimationFrame(follow);
  }
  audio.addEventListener("play", () => { label(); follow(); });
  audio.addEventListener("pause", label); // also fires at the end of the sound
  audio.addEventListener("ended", showPosition);
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

/* A checkbox that requests something from the kernel when it is checked for the first time. */
function drawSwitch(label, requestOnce, show) {
  const box = make("input", { type: "checkbox" });
  const note = make("span", { className: "status", data: { role: "status" } });
  let pending = null; // one request, even if the checkbox is clicked several times
  box.addEventListener("change", async () => {
    if (pending === null) {
      note.textContent = box.checked ? "Computing …" : "";
      if (!box.checked) return; // unchecked after an error
    }
    const answer = await (pending ??= requestOnce());
    if (answer.error) {
      pending = null;
      note.textContent = answer.error;
    } else {
      note.textContent = "";
      show(box.checked, answer);
    }
  });
  return make("label", {}, box, ` ${label} `, note);
}

/* The five highest probabilities, as bars. */
function drawProbabilities(clip) {
  return make("div", {}, ...clip.probabilities.map(([genre, probability]) => {
    const kind = genre === clip.predicted ? "predicted" : genre === clip.genre ? "true" : "";
    const bar = make("span", { className: `bar ${kind}` });
    bar.style.width = `${Math.max(1, 100 * probability)}%`;
    const mark = genre === clip.genre ? " (true)" : "";
    return make("div", { className: "probability" },
      make("span", { className: "label", textContent: genre + mark }),
      make("span", { className: "track" }, bar),
      make("span", { className: "value", textContent: percent(probability) }));
  }));
}

/* The fields for the user's annotation of the clip; the kernel saves each change at once. */
function drawAnnotation(clip, matrix, request) {
  const options = (names, empty) => [
    make("option", { value: "", textContent: empty }),
    ...names.map((name) => make("option", { value: name, textContent: name })),
  ];
  const label = make("select", { data: { "aria-label": "Label" } },
    ...options(matrix.labels, "not reviewed"));
  const correct = make("select", { data: { "aria-label": "Correct genre" } },
    ...options([...matrix.genres].sort(), "correct genre?"));
  const comment = make("input", { type: "text", placeholder: "comment", maxLength: 500,
                                  data: { "aria-label": "Comment" } });
  const status = make("span", { className: "status", data: { role: "status" } });
  label.value = clip.annotation?.label ?? "";
  correct.value = clip.annotation?.correct_genre ?? "";
  comment.value = clip.annotation?.comment ?? "";
  const showFields = () => {
    correct.hidden = label.value !== "mislabelled";
    comment.hidden = label.value === "";
  };
  const save = async () => {
    showFields();
    const answer = await request({
      kind: "annotation", table: clip.table, row: clip.row, label: label.value || null,
      correct_genre: correct.hidden ? "" : correct.value, comment: comment.value,
    });
    status.textContent = answer.error ?? `saved in ${answer.file}`;
  };
  showFields();
  for (const field of [label, correct, comment]) field.addEventListener("change", save);
  return make("div", { className: "annotation" }, label, correct, comment, status);
}

/* The card of a clip: names, spectrogram, player and, for a clip of the results, all the rest. */
function drawClip(clip, png, tools) {
  const { request, media, matrix } = tools;
  const row = { table: clip.table, row: clip.row };
  const player = drawPlayer(clip, png, tools);
  const artist = clip.artist === null ? "" : ` · artist ${clip.artist}`;
  const similarity =
    clip.similarity === undefined ? "" : ` · similarity ${clip.similarity.toFixed(2)}`;
  const [, confidence] = clip.probabilities.find(([genre]) => genre === clip.predicted) ?? [];
  const percentage = confidence ? ` (${percent(confidence)})` : "";
  const predicted = clip.predicted ? `, predicted genre: ${clip.predicted}${percentage}` : "";
  const card = make("article", { className: "clip" },
    make("div", {}, make("strong", { textContent: clip.name }), artist + similarity),
    make("div", { className: "genres", textContent: `true genre: ${clip.genre}${predicted}` }),
    player.screen, player.row);
  if (clip.table !== "results") return card; // a neighbour has only image and sound

  card.append(drawProbabilities(clip));
  if (matrix.labels.length) card.append(drawAnnotation(clip, matrix, request));
  if (matrix.attribution && png.byteLength) {
    const requestOnce = () => request({ kind: "attribution", ...row });
    player.row.append(drawAttribution(player.screen, requestOnce, media));
  }
  if (matrix.neighbours && png.byteLength) {
    // At the end of the card, so that nothing above moves when the list opens.
    const list = make("div", { className: "neighbours", hidden: true });
    card.append(list);
    const requestOnce = () => request({ kind: "neighbours", ...row });
    player.row.append(drawNeighbours(list, requestOnce, tools));
  }
  return card;
}

/* The checkbox that lays the attribution map over the mel-spectrogram, with its legend. */
function drawAttribution(screen, requestOnce, media) {
  const overlay = make("img", { className: "attribution", alt: "", hidden: true });
  const legend = make("div", { className: "legend", hidden: true, data: { role: "status" } });
  screen.insertBefore(overlay, screen.lastChild);
  screen.append(legend);
  return drawSwitch("Attribution", requestOnce, (on, answer) => {
    if (!overlay.src) overlay.src = media.url(answer.buffers[0], "image/png");
    overlay.hidden = legend.hidden = !on;
    screen.classList.toggle("attributed", on);
    legend.replaceChildren(...answer.genres.map((genre, i) =>
      make("span", { className: i ? "for-true" : "for-predicted", textContent: `■ for ${genre} ` })));
  });
}

/* The checkbox that lists the nearest training clips. */
function drawNeighbours(list, requestOnce, tools) {
  return drawSwitch("Nearest training clips", requestOnce, (on, answer) => {
    if (!list.childElementCount) {
      list.append(...answer.clips.map((clip, i) => drawClip(clip, answer.buffers[i], tools)));
    }
    list.hidden = !on;
    if (!on) for (const audio of list.querySelectorAll("audio")) audio.pause();
  });
}

/* The clips of the selection, as many as have been loaded, and the button that loads more. */
function drawClips(model, root, request) {
  const matrix = model.get("matrix");
  const urls = [];
  const media = {
    root,
    player: null, // the audio element that was started last
    url(content, type) {
      if (typeof content === "string") return content; // an address: see page.html
      const url = URL.createObjectURL(new Blob([content], { type }));
      urls.push(url);
      return url;
    },
  };
  const heading = make("h2", { data: { "aria-live": "polite" } });
  const list = make("div", {});
  const more = make("button", { type: "button", hidden: true });
  let shown = 0;

  async function loadClips() {
    const selection = model.get("selection");
    const start = shown;
    const answer = await request({ kind: "clips", selection, start });
    // The selection has changed, or another answer has come first: this one is not needed.
    if (String(selection) !== String(model.get("selection")) || start !== shown) return;
    if (answer.error) { heading.textContent = answer.error; return; }
    heading.textContent = cellLabel(matrix, ...selection);
    list.append(...answer.clips.map((clip, i) =>
      drawClip(clip, answer.buffers[i], { request, media, matrix })));
    shown += answer.clips.length;
    more.hidden = shown >= answer.total;
    more.textContent = `More (${clipCount(answer.total - shown)})`;
  }
  function clear() {
    for (const audio of list.querySelectorAll("audio")) audio.pause();
    list.replaceChildren();
    urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
    shown = 0;
    more.hidden = true;
  }
  function showSelection() {
    clear();
    const selected = model.get("selection").some((genre) => genre !== null);
    heading.textContent = selected ? "Loading …" : "";
    if (selected) loadClips();
  }
  more.addEventListener("click", loadClips);
  const section = make("section", { className: "clips", data: { "aria-label": "Clips" } },
    heading, list, more);
  return { section, showSelection, clear };
}

function render({ model, el }) {
  const { request, close } = connect(model);
  const root = make("div", { className: "melgenre-confusion" });
  const releaseKeys = keepKeys(root);
  const liveRegion = make("div", { className: "live", data: { "aria-live": "polite" } });
  liveRegion.textContent =
    "Select a cell with the mouse or the arrow keys; a click or Enter shows its clips.";
  const grid = drawMatrix(model, liveRegion);
  const clips = drawClips(model, root, request);
  const normalize = make("input", { type: "checkbox" });
  normalize.addEventListener("change", () => grid.setNormalize(normalize.checked));
  const onSelection = () => { grid.markSelection(); clips.showSelection(); };
  model.on("change:selection", onSelection);
  root.append(
    make("div", { className: "matrix" }, grid.overview,
      make("div", { className: "scroller" }, grid.table),
      make("label", {}, normalize, " Percentages of each row"), liveRegion),
    clips.section);
  el.append(root);
  onSelection();
  return () => {
    model.off("change:selection", onSelection);
    close();
    releaseKeys();
    clips.clear();
  };
}

export default { render };
