/** The page's story: settings from the URL, a picture when asked for, everything else in view.ts. */
import { checkSupport } from "../index.ts";
import { MixdqError } from "../errors.ts";
import { byId } from "./dom.ts";
import { findMistake, readForm, showDefaults, writeForm } from "./form.ts";
import { Session } from "./session.ts";
import { EXAMPLES, randomSeed, readSettings, writeSettings } from "./settings.ts";
import * as view from "./view.ts";

const form = byId("controls", HTMLFormElement);
const prompt = byId("prompt", HTMLTextAreaElement);
const pixelated = byId("pixelated", HTMLInputElement);
const session = new Session();
const { debug } = readSettings(location.search);
let running: AbortController | undefined;
let looking: AbortController | undefined;

async function generate(): Promise<void> {
  if (running) return;
  looking?.abort(); // what it would say is about to be known better
  const mistake = findMistake();
  if (mistake) {
    view.showError(new MixdqError("invalid-input", mistake.message));
    mistake.field.focus();
    return;
  }
  const settings = readForm(debug);
  rememberInUrl();
  byId("frame", HTMLElement).scrollIntoView({ block: "nearest", behavior: "smooth" });
  running = new AbortController();
  const { signal } = running;
  let cancelledAt = 0;
  signal.addEventListener("abort", () => (cancelledAt = performance.now()));
  view.showState("loading");
  view.showLoading({ status: "config", loadedBytes: 0, totalBytes: 0, progress: 0 });
  try {
    const image = await session.picture(settings, {
      signal,
      onProgress: view.showLoading,
      onReady: (info) => {
        showDefaults(info);
        view.showEngine(info);
        view.showState("generating");
      },
      onStep: view.showStep,
    });
    view.showState("idle");
    view.showImage(image, settings.prompt, pixelated.checked);
  } catch (error) {
    view.showState("idle");
    if (error instanceof MixdqError && error.code === "aborted") view.showCancelled(performance.now() - cancelledAt);
    else view.showError(error);
  } finally {
    running = undefined;
  }
}

function rememberInUrl(): void {
  const query = writeSettings(readForm(debug));
  history.replaceState(null, "", `${location.pathname}${query}${location.hash}`);
}

/** What the browser offers and what the model weighs, before anything large is fetched. */
async function lookAround(): Promise<void> {
  looking?.abort();
  looking = new AbortController();
  const { signal } = looking;
  const { model, backend, precision } = readForm(debug);
  try {
    const support = await checkSupport({ model, backend, precision, signal });
    if (signal.aborted || running) return;
    view.showMachine(support);
    if (support.ok) view.hideError();
    else view.showUnsupported(support);
  } catch (error) {
    if (!signal.aborted) view.showError(error);
  }
}

function showExamples(): void {
  const chips = EXAMPLES.map((text) => {
    const chip = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    chip.addEventListener("click", () => {
      prompt.value = text;
      rememberInUrl();
      prompt.focus();
    });
    return chip;
  });
  byId("examples", HTMLElement).replaceChildren(...chips);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void generate();
});
// A field in the closed part could not show what is wrong with it.
form.addEventListener(
  "invalid",
  (event) => (event.target as Element).closest("details")?.setAttribute("open", ""),
  true,
);
form.addEventListener("change", (event) => {
  rememberInUrl();
  const { name, id } = event.target as HTMLInputElement;
  if (["model", "backend"].includes(id) || name === "precision") void lookAround();
});
prompt.addEventListener("keydown", (event) => {
  // Shift+Enter is a new line; Enter while an input method composes belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void generate();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
byId("cancel", HTMLButtonElement).addEventListener("click", () => running?.abort());
byId("dice", HTMLButtonElement).addEventListener("click", () => {
  byId("seed", HTMLInputElement).value = String(randomSeed());
  rememberInUrl();
});
byId("use-wasm", HTMLButtonElement).addEventListener("click", () => {
  byId("backend", HTMLSelectElement).value = "ort-wasm";
  rememberInUrl();
  void generate();
});
pixelated.addEventListener("change", () => view.setPixelated(pixelated.checked));
// A page kept for the back button would keep its GPU memory too; the next picture loads the model again.
window.addEventListener("pagehide", () => void session.dispose());

writeForm(readSettings(location.search));
showExamples();
void lookAround();
