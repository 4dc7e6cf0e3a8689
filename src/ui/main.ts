/** The page's story: settings from the URL, a picture when asked for, everything else in view.ts. */
import { checkSupport } from "../index.ts";
import { MixdqError } from "../base/errors.ts";
import { byId } from "./dom.ts";
import { compare } from "./comparison.ts";
import * as comparisonView from "./comparisonView.ts";
import { findMistake, readForm, showDefaults, writeForm } from "./form.ts";
import { type Hooks, Session } from "./session.ts";
import { EXAMPLES, type Settings, isQuantized, randomSeed, readSettings, writeSettings } from "./settings.ts";
import * as view from "./view.ts";

const form = byId("controls", HTMLFormElement);
const prompt = byId("prompt", HTMLTextAreaElement);
const pixelated = byId("pixelated", HTMLInputElement);
const split = byId("split", HTMLInputElement);
const amplify = byId("amplify", HTMLInputElement);
const session = new Session();
const { scheduler, timesteps, eta, rescale, debug } = readSettings(location.search);
/** What only the address sets. */
const unseen = { scheduler, timesteps, eta, rescale, debug };
let running: AbortController | undefined;
let looking: AbortController | undefined;

async function generate(): Promise<void> {
  if (running && !running.signal.aborted) return;
  looking?.abort(); // the engine will say the same, and more
  const mistake = findMistake();
  if (mistake) {
    view.showError(new MixdqError("invalid-input", mistake.message));
    mistake.field.focus();
    return;
  }
  const settings = readForm(unseen);
  rememberInUrl();
  byId("frame", HTMLElement).scrollIntoView({ block: "nearest", behavior: "smooth" });
  const own = (running = new AbortController());
  const { signal } = own;
  // One that was cancelled may still be ending while the next one begins: then the page is the next one's.
  const isCurrent = (): boolean => running === own;
  let cancelledAt = 0;
  signal.addEventListener("abort", () => (cancelledAt = performance.now()));
  view.showState("loading");
  view.showLoading(NOTHING_YET);
  const hooks: Hooks = {
    signal,
    onProgress: (progress) => isCurrent() && view.showLoading(progress),
    onReady: (info) => {
      if (!isCurrent()) return;
      showDefaults(info);
      view.showEngine(info);
      view.showState("generating");
    },
    onStep: (event) => isCurrent() && view.showStep(event),
  };
  try {
    if (settings.mode === "compare") await showComparison(settings, hooks);
    else await showPicture(settings, hooks);
  } catch (error) {
    if (!isCurrent()) return;
    view.showState("idle");
    if (error instanceof MixdqError && error.code === "aborted") view.showCancelled(performance.now() - cancelledAt);
    else view.showError(error);
  } finally {
    if (isCurrent()) running = undefined;
  }
}

const NOTHING_YET = { status: "config", loadedBytes: 0, totalBytes: 0, progress: 0 } as const;

async function showPicture(settings: Settings, hooks: Hooks): Promise<void> {
  const image = await session.picture(settings, hooks);
  view.showState("idle");
  view.showImage(image, settings.prompt, pixelated.checked);
}

async function showComparison(settings: Settings, hooks: Hooks): Promise<void> {
  comparisonView.showSideErrors({});
  const sides = await compare(session, settings, {
    ...hooks,
    onTurn: (precision, turn) => {
      view.showState("loading");
      view.showLoading(NOTHING_YET);
      view.showTurn(precision, turn);
    },
    onSide: (sides) => {
      const image = sides.left?.image ?? sides.right?.image;
      if (image) view.setCaption(image, settings.prompt);
      comparisonView.showSides(sides, settings.prompt);
      view.showStage(image !== undefined);
      view.showWarnings(image?.warnings ?? []);
    },
  });
  view.showState("idle");
  comparisonView.showSideErrors(sides);
  view.announce(sides.left?.image && sides.right?.image ? "Both pictures are ready." : "The comparison has ended.");
}

function rememberInUrl(): void {
  const query = writeSettings(readForm(unseen));
  history.replaceState(null, "", `${location.pathname}${query}${location.hash}`);
}

/** What the browser offers and what the model weighs, before anything large is fetched. */
async function showSupport(): Promise<void> {
  looking?.abort();
  looking = new AbortController();
  const { signal } = looking;
  const { model, backend, precision } = readForm(unseen);
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

/** While a picture is made its mode stays: by mouse, by arrow keys and by name alike. */
for (const radio of document.querySelectorAll<HTMLInputElement>('[name="mode"]'))
  radio.addEventListener("click", (event) => {
    if (running) event.preventDefault();
  });

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
  const { name, id } = event.target as HTMLInputElement;
  if (name === "mode" || name === "precision") settle();
  rememberInUrl();
  if (name === "mode") view.clearMessages();
  if (["model", "backend"].includes(id) || name === "mode" || name === "precision") void showSupport();
});

/** Makes the form and the page agree with the mode. */
function settle(): void {
  const settings = readForm(unseen);
  writeForm(settings); // in mode compare, fp16 beside fp16 becomes fp16 beside w4a8
  view.showMode(settings.mode, settings.precision);
}

split.addEventListener("input", () => comparisonView.showSplit(split.valueAsNumber));
split.addEventListener("change", rememberInUrl);
amplify.addEventListener("input", () => comparisonView.showDifference(amplify.valueAsNumber));
amplify.addEventListener("change", rememberInUrl);

/** The divider follows a finger or a mouse anywhere on the pictures; the range input underneath is for the keyboard. */
const pair = byId("pair", HTMLElement);
function follow({ clientX }: PointerEvent): void {
  const { left, width } = pair.getBoundingClientRect();
  split.valueAsNumber = Math.round((100 * (clientX - left)) / width);
  comparisonView.showSplit(split.valueAsNumber);
}
pair.addEventListener("pointerdown", (event) => {
  if (split.hidden || event.button !== 0) return;
  event.preventDefault();
  pair.setPointerCapture(event.pointerId);
  split.focus({ preventScroll: true });
  follow(event);
});
pair.addEventListener("pointermove", (event) => {
  if (pair.hasPointerCapture(event.pointerId)) follow(event);
});
pair.addEventListener("lostpointercapture", rememberInUrl);
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
  const settings = readForm(unseen);
  // It has no integer kernels.
  writeForm({
    ...settings,
    backend: "ort-wasm",
    precision: isQuantized(settings.precision) ? "fp16" : settings.precision,
  });
  settle();
  rememberInUrl();
  void generate();
});
pixelated.addEventListener("change", () => view.setPixelated(pixelated.checked));
// A page kept for the back button would keep its GPU memory too; the next picture loads the model again.
window.addEventListener("pagehide", () => {
  running?.abort(); // an engine that is still being loaded
  looking?.abort();
  void session.dispose();
});

writeForm(readSettings(location.search));
settle();
comparisonView.showSplit(split.valueAsNumber);
comparisonView.showDifference(amplify.valueAsNumber);
showExamples();
void showSupport();
