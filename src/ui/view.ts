/** What the page shows: one function per thing that can happen. No decisions are taken here. */
import type { GeneratedImage, Support } from "../index.ts";
import { MixdqError } from "../errors.ts";
import type { EngineInfo, LoadProgress, StepEvent } from "../types.ts";
import { ADVICE } from "./advice.ts";
import { byId } from "./dom.ts";
import { formatBytes, formatMs } from "./format.ts";

type State = "idle" | "loading" | "generating";

const element = (id: string): HTMLElement => byId(id, HTMLElement);
const show = (id: string, visible: boolean): void => void (element(id).hidden = !visible);
const write = (id: string, text: string): void => void (element(id).textContent = text);

let downloadUrl = "";

/** For people who do not see the picture; said once per change, unlike the progress line. */
function announce(text: string): void {
  write("live", text);
}

export function showState(state: State): void {
  element("app").dataset.state = state;
  const busy = state !== "idle";
  show("progress", busy);
  show("cancel", busy);
  byId("generate", HTMLButtonElement).disabled = busy;
  show("stages", state === "generating");
  if (busy) hideError();
}

export function showLoading({ status, file, loadedBytes, totalBytes, progress }: LoadProgress): void {
  const bar = byId("bar", HTMLProgressElement);
  const titles = {
    config: "Reading the model's description",
    download: "Loading the model",
    compile: "Preparing the GPU",
    ready: "Ready",
  };
  write("status", titles[status]);
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
  show("picture", true);
  show("empty", false);

  write("caption-prompt", prompt);
  write("caption-facts", `seed ${image.seed} · ${image.width} × ${image.height}`);
  element("caption").dataset.seed = String(image.seed);
  show("caption", true);

  URL.revokeObjectURL(downloadUrl);
  downloadUrl = URL.createObjectURL(image.toBlob());
  const link = byId("download", HTMLAnchorElement);
  link.href = downloadUrl;
  link.download = `mixdq-${image.seed}.png`;
  show("toolbar", true);

  showWarnings(image.warnings);
  showTimes(image);
  announce(`The picture is ready after ${formatMs(image.stats.totalMs)}.`);
}

export function setPixelated(pixelated: boolean): void {
  element("picture").classList.toggle("pixelated", pixelated);
}

function showWarnings(warnings: readonly string[]): void {
  const items = warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  element("warnings").replaceChildren(...items);
  show("warnings", items.length > 0);
}

function showTimes({ stats }: GeneratedImage): void {
  const other = Math.max(0, stats.totalMs - stats.encodeMs - stats.unetMs - stats.decodeMs);
  const parts: [key: string, name: string, ms: number][] = [
    ["encode", "Prompt", stats.encodeMs],
    ["unet", stats.steps === 1 ? "UNet, 1 step" : `UNet, ${stats.steps} steps`, stats.unetMs],
    ["decode", "Decoder", stats.decodeMs],
    ["other", "Other", other],
  ];
  const shown = parts.filter(([key, , ms]) => key !== "other" || ms >= 1);
  element("time-bar").replaceChildren(
    ...shown.map(([key, , ms]) => {
      const part = document.createElement("span");
      part.dataset.part = key;
      part.style.flexGrow = String(ms);
      return part;
    }),
  );
  element("time-list").replaceChildren(
    ...[...shown, ["total", "Total", stats.totalMs] as const].map(([key, name, ms]) => {
      const row = document.createElement("div");
      row.dataset.part = key;
      row.append(Object.assign(document.createElement("dt"), { textContent: name }));
      row.append(Object.assign(document.createElement("dd"), { id: `time-${key}`, textContent: formatMs(ms) }));
      return row;
    }),
  );
  show("times", true);
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
  const known = error instanceof MixdqError;
  const { title, advice } = known ? ADVICE[error.code] : UNKNOWN;
  element("error").dataset.code = known ? error.code : "unknown";
  fillError(title, known ? error.message : String(error), advice);
  show("use-wasm", known && error.code === "unsupported");
  if (!known) console.error(error);
}

const UNKNOWN = { title: "Something went wrong in the page", advice: "Reload the page; the console has the details." };

/** Before anything is loaded: what this browser lacks. */
export function showUnsupported({ reasons, backends }: Support): void {
  const modelOnly = reasons.every((reason) => reason.code === "model");
  const { title, advice } = ADVICE[modelOnly ? "invalid-model" : "unsupported"];
  element("error").dataset.code = reasons[0].code;
  fillError(
    reasons[0].code.startsWith("no-webgpu") ? "This browser has no WebGPU" : title,
    reasons.map((r) => r.message).join(" "),
    modelOnly ? advice : "",
  );
  show("use-wasm", !modelOnly && backends.includes("ort-wasm"));
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

/** Before the model is loaded. */
export function showMachine({ adapter, features, modelBytes }: Support): void {
  write("info-machine", adapter ? [adapter, describeFeatures(features)].join(" · ") : "No GPU adapter");
  write("download-size", modelBytes > 0 ? `The first picture loads the model: ${formatBytes(modelBytes)}.` : "");
}

/** Once it is. */
export function showEngine(info: EngineInfo): void {
  const features = info.backend === "ort-wasm" ? "" : describeFeatures(info.features);
  const where = [info.adapter, features, `${info.backend}, ${info.precision}`];
  write("info-machine", where.filter(Boolean).join(" · "));
  write("info-memory", `weights ${formatBytes(info.weightBytes)}`);
  write("download-size", "");
}

/** The features that change how the engine works; the full list is in the tooltip. */
function describeFeatures(features: readonly string[]): string {
  element("info-machine").title = features.join(", ");
  const shown = features.filter((name) => ["shader-f16", "subgroups", "timestamp-query"].includes(name));
  return shown.length > 0 ? shown.join(", ") : "no optional features";
}
