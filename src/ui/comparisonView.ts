/** What the side by side mode shows: the pair under its divider, the three prints, and the numbers. */
import type { GeneratedImage } from "../index.ts";
import { isSoftware } from "../base/adapter.ts";
import type { Precision } from "../base/types.ts";
import { amplifiedDifference, likenessOf, type Side, type SideName, type Sides } from "./comparison.ts";
import { byId, show } from "./dom.ts";
import { formatBytes, formatMs } from "./format.ts";
import { explain, showError } from "./view.ts";

const SIDES: readonly SideName[] = ["left", "right"];

const element = (id: string): HTMLElement => byId(id, HTMLElement);
const write = (id: string, text: string): void => void (element(id).textContent = text);

let shown: Sides = {};
const downloads = new Map<SideName, string>();

/** Of one comparison: what an earlier one left goes. */
export function showSides(sides: Sides, prompt: string): void {
  shown = sides;
  const { left, right } = sides;
  for (const name of SIDES) showPrint(name, sides[name], prompt);
  for (const name of SIDES) showHalf(name, sides[name], prompt);
  const hasBoth = Boolean(left?.image && right?.image);
  element("pair").classList.toggle("whole", !hasBoth);
  for (const id of ["split", "divider"]) show(id, hasBoth);
  for (const name of SIDES) show(`${name}-name`, Boolean(sides[name]?.image));
  showLikeness();
  showDifference(byId("amplify", HTMLInputElement).valueAsNumber);
  showSplit(byId("split", HTMLInputElement).valueAsNumber);
  showCosts(left, right);
}

/** Why a side has no picture; the other may have one. What is wrong with both alike is said once. */
export function showSideErrors(sides: Sides): void {
  const failed = SIDES.map((name) => sides[name]).filter((side) => side?.error !== undefined);
  if (failed.length === 2 && String(failed[0]?.error) === String(failed[1]?.error)) {
    showError(failed.pop()!.error);
    failed.pop();
  }
  element("side-errors").replaceChildren(
    ...failed.map((side) => {
      const { precision, error } = side!;
      const { code, title, message, advice } = explain(error);
      const box = document.createElement("div");
      box.className = "error";
      box.role = "alert";
      box.dataset.code = code;
      box.dataset.precision = precision;
      box.append(
        Object.assign(document.createElement("h2"), { textContent: `${precision}: ${title}` }),
        ...[message, advice].map((text) => Object.assign(document.createElement("p"), { textContent: text })),
      );
      return box;
    }),
  );
}

/** `percent` of the width belongs to fp16. */
export function showSplit(percent: number): void {
  element("pair").style.setProperty("--split", `${percent}%`);
  const names = SIDES.map((name) => shown[name]?.precision ?? name);
  const split = byId("split", HTMLInputElement);
  split.setAttribute("aria-label", `Divider between ${names.join(" and ")}`);
  split.setAttribute("aria-valuetext", `${percent} % ${names[0]}, ${100 - percent} % ${names[1]}`);
}

export function showDifference(factor: number): void {
  write("amplify-value", `× ${factor}`);
  const [a, b] = [shown.left?.image, shown.right?.image];
  const canvas = byId("difference", HTMLCanvasElement);
  canvas.hidden = !a || !b;
  if (!a || !b) return;
  canvas.setAttribute("aria-label", `What differs between the two pictures, ${factor} times as bright`);
  draw(canvas, { ...sizeOf(a), data: amplifiedDifference(a, b, factor) });
}

function showHalf(name: SideName, side: Side | undefined, prompt: string): void {
  const canvas = byId(name, HTMLCanvasElement);
  canvas.hidden = !side?.image;
  if (!side?.image) return;
  describe(canvas, side.precision, prompt);
  draw(canvas, side.image);
  element("pair").style.setProperty("--ratio", String(side.image.width / side.image.height));
  write(`${name}-name`, side.precision);
}

function showPrint(name: SideName, side: Side | undefined, prompt: string): void {
  const print = document.querySelector<HTMLElement>(`.tile[data-side="${name}"]`)!;
  const canvas = print.querySelector("canvas")!;
  const title = print.querySelector("b")!;
  const link = print.querySelector("a")!;
  URL.revokeObjectURL(downloads.get(name) ?? "");
  downloads.delete(name);
  canvas.hidden = link.hidden = !side?.image;
  title.textContent = side?.precision ?? "";
  if (!side?.image) return;
  element("tiles").style.setProperty("--ratio", String(side.image.width / side.image.height));
  describe(canvas, side.precision, prompt);
  draw(canvas, side.image);
  link.href = URL.createObjectURL(side.image.toBlob());
  link.download = `mixdq-${side.image.seed}-${side.precision}.png`;
  link.setAttribute("aria-label", `Download the ${side.precision} picture as PNG`);
  downloads.set(name, link.href);
}

function showLikeness(): void {
  const [a, b] = [shown.left?.image, shown.right?.image];
  show("closeness", Boolean(a && b));
  if (!a || !b) return;
  const { ssim, ssim11, psnr } = likenessOf(a, b);
  const figure = (value: number | undefined): string => (value === undefined ? "picture too small" : value.toFixed(3));
  const rows: [id: string, name: string, text: string, help: string][] = [
    ["ssim", "SSIM", figure(ssim), "Over nearly the whole picture, as MixDQ measures it; 1 is equal."],
    ["ssim11", "SSIM 11 × 11", figure(ssim11), "The usual form, in small windows: stricter about detail; 1 is equal."],
    [
      "psnr",
      "PSNR",
      psnr === undefined ? "no difference" : `${psnr.toFixed(1)} dB`,
      "Over 8-bit colours; more is closer.",
    ],
  ];
  element("closeness").replaceChildren(
    ...rows.map(([id, name, text, help]) => {
      const row = document.createElement("div");
      row.title = help;
      row.append(Object.assign(document.createElement("dt"), { textContent: name }));
      row.append(Object.assign(document.createElement("dd"), { id, textContent: text }));
      return row;
    }),
  );
}

interface Cost {
  readonly id: string;
  readonly name: string;
  readonly of: (image: GeneratedImage) => number;
  readonly format: (value: number) => string;
}

const COSTS: readonly Cost[] = [
  { id: "unet", name: "UNet", of: ({ stats }) => stats.unetMs, format: formatMs },
  { id: "total", name: "Whole picture", of: ({ stats }) => stats.totalMs - stats.compileMs, format: formatMs },
  { id: "weights", name: "Weights, all parts", of: ({ stats }) => stats.weightBytes, format: formatBytes },
  {
    id: "peak",
    name: "Peak GPU memory",
    of: ({ stats }) => stats.weightBytes + stats.activationBytes,
    format: formatBytes,
  },
];

function showCosts(left: Side | undefined, right: Side | undefined): void {
  const some = left?.image ?? right?.image;
  show("costs", Boolean(some));
  show("context", Boolean(some));
  if (!some) return;
  const [head, body] = ["thead", "tbody"].map((tag) => document.querySelector<HTMLElement>(`#costs ${tag}`)!);
  const columns: string[] = SIDES.map((name) => shown[name]?.precision ?? "");
  if (left?.image && right?.image) columns.push(`${right.precision} of ${left.precision}`);
  const titles = columns.map((text) => heading(text, "col"));
  head!.replaceChildren(row("", titles));
  body!.replaceChildren(
    ...COSTS.map(({ id, name, of, format }) => {
      const [a, b] = [left?.image, right?.image].map((image) => image && of(image));
      const cells = [a, b].map((value) => cell(value === undefined ? "–" : format(value)));
      if (a && b) cells.push(Object.assign(cell(`${Math.round((100 * b) / a)} %`), { className: "share" }));
      return row(name, cells, id);
    }),
  );
  write("context", contextOf(some, left?.info?.adapter ?? right?.info?.adapter ?? ""));
}

function contextOf({ stats }: GeneratedImage, adapter: string): string {
  const steps = stats.steps === 1 ? "one step" : `${stats.steps} steps`;
  const times = isSoftware(adapter)
    ? `${adapter} is a software adapter: times here say nothing about a GPU.`
    : `Times are the clock's, of ${steps}, of this one run, without compiling; the first after loading also warms up.`;
  return `${times} Bytes are of the whole pipeline (text encoders, UNet, decoder), counted by the engine's own allocator: peak is weights and working memory.`;
}

function row(name: string, cells: readonly HTMLElement[], id?: string): HTMLElement {
  const tr = document.createElement("tr");
  if (id) tr.id = `cost-${id}`;
  tr.append(name === "" ? cell("") : heading(name, "row"), ...cells);
  return tr;
}

function heading(text: string, scope: string): HTMLElement {
  return Object.assign(document.createElement("th"), { textContent: text, scope });
}

function cell(text: string): HTMLElement {
  return Object.assign(document.createElement("td"), { textContent: text });
}

function describe(canvas: HTMLCanvasElement, precision: Precision, prompt: string): void {
  canvas.setAttribute("aria-label", `${precision} picture of: ${prompt}`);
}

const sizeOf = ({ width, height }: GeneratedImage) => ({ width, height });

function draw(
  canvas: HTMLCanvasElement,
  { width, height, data }: { width: number; height: number; data: Uint8ClampedArray<ArrayBuffer> },
): void {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d")?.putImageData(new ImageData(data, width, height), 0, 0);
}
