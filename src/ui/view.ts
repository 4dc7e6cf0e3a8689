/** What the page shows: one function per thing that can happen. No decisions are taken here. */
import type { GeneratedImage, Support } from "../index.ts";
import { MixdqError } from "../base/errors.ts";
import type { EngineInfo, LoadProgress, Precision, StepEvent } from "../base/types.ts";
import { adviceFor, adviceForReasons } from "./advice.ts";
import { byId, setBusy, show } from "./dom.ts";
import { formatBytes, formatMs } from "./format.ts";
import { isQuantized, type Mode } from "./settings.ts";

type State = "idle" | "loading" | "generating";

const element = (id: string): HTMLElement => byId(id, HTMLElement);
const write = (id: string, text: string): void => void (element(id).textContent = text);

let downloadUrl = "";

/** Which pictures are on the stage; each mode keeps its own until the next. */
const made: Record<Mode, boolean> = { picture: false, compare: false };
let mode: Mode = "picture";

export function showMode(next: Mode, precision: Precision): void {
  mode = next;
  const comparing = mode === "compare";
  element("app").dataset.mode = mode;
  write("precision-legend", comparing ? "Compare fp16 with" : "Precision");
  write("precision-help", PRECISION_HELP[precision]);
  byId("config", HTMLInputElement).placeholder =
    `mixdq.${isQuantized(precision) ? precision : "w4a8"}.json of the model`;
  write("generate-label", comparing ? "Compare" : "Generate");
  write("empty", EMPTY[mode]);
  show("side-errors", comparing);
  showStage();
}

const EMPTY: Record<Mode, string> = {
  picture: "The picture appears here.",
  compare: "Two pictures of one seed appear here.",
};

const PRECISION_HELP: Record<Precision, string> = {
  fp16: "Weights in 16-bit float.",
  fp32: "Weights in 32-bit float.",
  w8a8: "UNet in integers: weights and activations of 8 bits.",
  w4a8: "UNet in integers: weights of 4 bits on average, activations of 8.",
};

/** `has`: whether the mode at hand has something to show now. */
export function showStage(has = made[mode]): void {
  made[mode] = has;
  element("app").dataset.shown = has ? mode : "none";
  const single = has && mode === "picture";
  const pair = has && mode === "compare";
  for (const id of ["picture", "download", "times"]) show(id, single);
  for (const id of ["pair", "comparison"]) show(id, pair);
  show("empty", !has);
  show("toolbar", has);
  const { prompt, facts, seed } = captions[mode];
  write("caption-prompt", prompt);
  write("caption-facts", facts);
  element("caption").dataset.seed = seed;
  show("caption", has);
}

const NO_CAPTION = { prompt: "", facts: "", seed: "" };
const captions: Record<Mode, typeof NO_CAPTION> = { picture: NO_CAPTION, compare: NO_CAPTION };

export function setCaption(image: GeneratedImage, prompt: string): void {
  const facts = `seed ${image.seed} · ${image.width} × ${image.height}`;
  captions[mode] = { prompt, facts, seed: String(image.seed) };
}

/** For people who do not see the picture; said once per change, unlike the progress line. */
export function announce(text: string): void {
  write("live", text);
}

export function showState(state: State): void {
  element("app").dataset.state = state;
  const busy = state !== "idle";
  show("progress", busy);
  show("cancel", busy);
  setBusy(element("generate"), busy);
  for (const radio of document.querySelectorAll<HTMLInputElement>('[name="mode"]')) setBusy(radio, busy);
  show("stages", state === "generating");
  show("turn", mode === "compare");
  if (busy) write("empty", EMPTY[mode]); // not "Cancelled." any more
  if (busy) hideError();
}

/** Side by side: whose turn it is. */
export function showTurn(precision: Precision, turn: number): void {
  write("turn", `${precision} · ${turn} of 2`);
}

export function showLoading({ status, ...state }: LoadProgress): void {
  const { file, loadedBytes, totalBytes, progress, compiled = 0, pipelines = 0 } = state;
  const bar = byId("bar", HTMLProgressElement);
  const titles = {
    config: "Reading the model's description",
    download: "Loading the model",
    compile: "Compiling for this GPU",
    ready: "Ready",
  };
  write("status", titles[status]);
  if (status === "compile" && pipelines > 0) {
    bar.value = (100 * compiled) / pipelines;
    write("detail", `${compiled} of ${pipelines} kernels`);
    return;
  }
  if (totalBytes > 0) bar.value = progress;
  else bar.removeAttribute("value");
  const bytes = totalBytes > 0 ? `${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}` : formatBytes(loadedBytes);
  write("detail", status === "config" ? "" : [bytes, file].filter(Boolean).join(" · "));
}

export function showStep(event: StepEvent): void {
  const order = ["encode", "step", "decode"];
  for (const item of document.querySelectorAll<HTMLElement>("#stages li")) {
    const distance = order.indexOf(item.dataset.stage ?? "") - order.indexOf(event.type);
    item.dataset.progress = distance < 0 ? "done" : distance === 0 ? "now" : "waiting";
  }
  const titles = { encode: "Reading the prompt", step: "Denoising", decode: "Decoding the picture" };
  const counted = event.type === "step" && event.steps > 1;
  write("status", counted ? `${titles.step}: step ${event.step} of ${event.steps}` : titles[event.type]);
  write("detail", "");
  const bar = byId("bar", HTMLProgressElement);
  if (counted) bar.value = (100 * (event.step - 1)) / event.steps;
  else bar.removeAttribute("value");
}

export function showImage(image: GeneratedImage, prompt: string, pixelated: boolean): void {
  const canvas = byId("picture", HTMLCanvasElement);
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d")?.putImageData(image.toImageData(), 0, 0);
  canvas.setAttribute("aria-label", `Picture of: ${prompt}`);
  canvas.style.setProperty("--ratio", String(image.width / image.height));
  setPixelated(pixelated);

  URL.revokeObjectURL(downloadUrl);
  downloadUrl = URL.createObjectURL(image.toBlob());
  const link = byId("download", HTMLAnchorElement);
  link.href = downloadUrl;
  link.download = `mixdq-${image.seed}.png`;

  showWarnings(image.warnings);
  showTimes(image);
  setCaption(image, prompt);
  showStage(true);
  announce(`The picture is ready after ${formatMs(image.stats.totalMs)}.`);
}

export function setPixelated(pixelated: boolean): void {
  element("stage").classList.toggle("pixelated", pixelated);
}

export function showWarnings(warnings: readonly string[]): void {
  const items = warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  element("warnings").replaceChildren(...items);
  show("warnings", items.length > 0);
}

function showTimes({ stats }: GeneratedImage): void {
  const { compileMs, encodeMs, unetMs, decodeMs, totalMs } = stats;
  const other = Math.max(0, totalMs - compileMs - encodeMs - unetMs - decodeMs);
  const parts: [key: string, name: string, ms: number][] = [
    ["compile", "Compiling", compileMs],
    ["encode", "Prompt", encodeMs],
    ["unet", stats.steps === 1 ? "UNet, 1 step" : `UNet, ${stats.steps} steps`, unetMs],
    ["decode", "Decoder", decodeMs],
    ["other", "Other", other],
  ];
  const shown = parts.filter(([key, , ms]) => !["compile", "other"].includes(key) || ms >= 1);
  element("time-bar").replaceChildren(
    ...shown.map(([key, , ms]) => {
      const part = document.createElement("span");
      part.dataset.part = key;
      part.style.flexGrow = String(ms);
      return part;
    }),
  );
  element("time-list").replaceChildren(
    ...[...shown, ["total", "Total", totalMs] as const].map(([key, name, ms]) => {
      const row = document.createElement("div");
      row.dataset.part = key;
      row.append(Object.assign(document.createElement("dt"), { textContent: name }));
      row.append(Object.assign(document.createElement("dd"), { id: `time-${key}`, textContent: formatMs(ms) }));
      return row;
    }),
  );
  // onnxruntime-web does not tell.
  const working = stats.activationBytes > 0 ? `, working memory ${formatBytes(stats.activationBytes)}` : "";
  write("info-memory", `weights ${formatBytes(stats.weightBytes)}${working}`);
}

export function showCancelled(afterMs: number): void {
  write("empty", "Cancelled.");
  element("app").dataset.cancelMs = String(Math.round(afterMs));
  announce("Cancelled.");
}

export function showError(error: unknown): void {
  const { code, title, message, advice } = explain(error);
  element("error").dataset.code = code;
  fillError(title, message, advice);
  show("use-wasm", code === "unsupported" && canRunWithoutGpu());
}

/** Whether the WebAssembly backend is another way than the one that failed. It has no integers to compare with. */
const canRunWithoutGpu = (): boolean => mode === "picture" && byId("backend", HTMLSelectElement).value !== "ort-wasm";

/** An error in words; one that nobody expected goes to the console as well. */
export function explain(error: unknown): { code: string; title: string; message: string; advice: string } {
  if (error instanceof MixdqError) return { code: error.code, message: error.message, ...adviceFor(error.code) };
  console.error(error);
  return { code: "unknown", message: String(error), ...UNKNOWN };
}

const UNKNOWN = { title: "Something went wrong in the page", advice: "Reload the page; the console has the details." };

/** Before anything is loaded: what this browser lacks. */
export function showUnsupported({ reasons, backends }: Support): void {
  const { title, advice } = adviceForReasons(reasons);
  element("error").dataset.code = reasons[0].code;
  fillError(title, reasons.map((r) => r.message).join(" "), advice);
  const modelOnly = reasons.every(({ code }) => ["model", "offline", "network"].includes(code));
  show("use-wasm", !modelOnly && backends.includes("ort-wasm") && canRunWithoutGpu());
}

function fillError(title: string, message: string, advice: string): void {
  write("error-title", title);
  write("error-message", message);
  write("error-advice", advice);
  show("error", true);
}

export function hideError(): void {
  show("error", false);
}

/** What was said about the other mode's pictures. */
export function clearMessages(): void {
  hideError();
  showWarnings([]);
}

/** Before the model is loaded. */
export function showMachine({ adapter, features, modelBytes }: Support): void {
  write("info-machine", adapter ? [adapter, describeFeatures(features)].join(" · ") : "No GPU adapter");
  write("download-size", modelBytes > 0 ? `The first picture loads the model: ${formatBytes(modelBytes)}.` : "");
}

/** Once it is. */
export function showEngine(info: EngineInfo): void {
  const features = info.backend === "ort-wasm" ? "" : describeFeatures(info.features);
  const where = [info.adapter, features, mode === "picture" ? `${info.backend}, ${info.precision}` : info.backend];
  write("info-machine", where.filter(Boolean).join(" · "));
  write("info-memory", mode === "picture" ? `weights ${formatBytes(info.weightBytes)}` : "");
  write("download-size", "");
}

/** The features that change how the engine works; the full list is in the tooltip. */
function describeFeatures(features: readonly string[]): string {
  element("info-machine").title = features.join(", ");
  const shown = features.filter((name) => ["shader-f16", "subgroups", "timestamp-query"].includes(name));
  return shown.length > 0 ? shown.join(", ") : "no optional features";
}
