/**
 * What an allocation did and why, as one HTML page that needs no network and no scripts: bits by layer on a map of the
 * UNet, the sweep with its Pareto front and the baselines, sensitivities, tables, and pictures where there are some.
 */
import { loadCharts } from "./charts.ts";
import { choiceSection } from "./choiceSection.ts";
import { escape, short } from "./html.ts";
import { format, METRIC_NAMES, RANGE_NAMES, widthsOf, type ReportInput, type SamplePicture } from "./input.ts";
import { unetMap, type MapLayer } from "./map.ts";
import { measuredTable, measuredTiles } from "./measured.ts";
import { sensitivityCharts } from "./sensitivitySection.ts";
import { STYLE } from "./style.ts";
import { sweepSection } from "./sweepSection.ts";
import { groupTable, protectedText, typeTable } from "./tables.ts";
import type { Allocation } from "../allocation/allocate.ts";
import { METRIC_OF } from "../allocation/sensitivity.ts";

export type { ReportInput, SamplePicture };

/** The page's text. The same input gives the same page, byte for byte. */
export async function renderReport(input: ReportInput): Promise<string> {
  const { sensitivity, allocation, weightBits, pictures = [], choice } = input;
  const draw = await loadCharts();
  const name = escape(sensitivity.model || "a model");
  const charts = sensitivityCharts(input).map(
    (chart) => `<h3>${escape(chart.title)}</h3><figure>${draw(chart)}</figure>`,
  );
  const samples = sensitivity.samples > 0 ? `Sensitivities are means over ${sensitivity.samples} samples.` : "";
  const notes = allocation.notes.map((note) => `Note: ${note}. `).join("");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Bit-widths of ${name} at ${weightBits} bits</title><style>${STYLE}</style></head><body><main>
<header><p class="kicker">mixdq allocate</p><h1>Bit-widths of ${name}</h1>${tiles(figures(input))}${choice ? tiles(measuredTiles(choice)) : ""}</header>
<section><h2>Bits by layer</h2>${legend(input)}
<div class="scroll">${unetMap(mapLayers(input))}</div>
<p class="caption">One cell a layer; a column is a resnet (r0, r1, …) or a transformer block, from top to bottom as it runs (self-attention
q k v out, cross-attention q k v out, feed-forward). Point at a cell for its name and numbers.</p></section>
${sweepSection(input, draw)}
${choiceSection(input, draw)}
<section><h2>The chosen configuration</h2>${choice ? measuredTable(choice) : ""}${groupTable(input)}${typeTable(input)}${protectedText(input)}</section>
<section><h2>Sensitivity</h2>
<p class="caption">Each mark is one layer whose weights alone have so many bits; full marks are what was chosen. Higher is
better.</p>
${charts.join("\n")}</section>
${picturesSection(pictures)}
<footer>${escape(`${notes}${samples}`)}</footer>
</main></body></html>
`;
}

function figures({ sensitivity, allocation, weightBits }: ReportInput): [value: string, text: string][] {
  const { chosen, averageBits, programs } = allocation.weights;
  const weights = [...sensitivity.layers.values()].reduce((sum, layer) => sum + layer.weights, 0);
  const gap = Math.max(...chosen.groups.map((solution) => solution.gap));
  return [
    [averageBits.toFixed(3), `bits a weight (budget ${weightBits})`],
    [
      `${((weights * averageBits) / 8e6).toFixed(1)} MB`,
      `for ${short(weights)} weights, ${((weights * 2) / 1e6).toFixed(1)} MB in FP16`,
    ],
    [`${allocation.layers.size} of ${sensitivity.layers.size}`, "layers in integers"],
    ...chosen.groups.map(({ group, objective }, i): [string, string] => [
      `${(100 * programs[i].shareOf(objective)).toFixed(1)} %`,
      `of ${group}’s ${RANGE_NAMES[programs[i].metric]} range kept`,
    ]),
    [gap === 0 ? "optimal" : `gap ${gap.toExponential(1)}`, provenBy(allocation)],
  ];
}

function tiles(all: readonly [value: string, text: string][]): string {
  return `<div class="tiles">${all
    .map(([value, text]) => `<div><b>${escape(value)}</b><span>${escape(text)}</span></div>`)
    .join("")}</div>`;
}

function provenBy({ weights: { certified, chosen } }: Allocation): string {
  const own = [...new Set(chosen.groups.map(({ solver }) => solver))];
  const others = [...new Set(certified.values())].filter(() => certified.size === chosen.groups.length);
  return `by ${[...own, ...others].join(", and by ")}`;
}

function legend(input: ReportInput): string {
  const { layers, protectedLayers } = input.allocation;
  const swatch = (className: string, text: string): string => `<span class="key ${className}"><i></i>${text}</span>`;
  const keys = widthsOf(input).map((width) => swatch(`b${width}`, `${width} bits`));
  if (layers.size < input.sensitivity.layers.size) keys.push(swatch("b16", "16-bit float"));
  if (protectedLayers.some((path) => layers.has(path))) keys.push(swatch("dot", "input in 16-bit float"));
  return `<p class="keys">${keys.join("")}</p>`;
}

function mapLayers({ sensitivity, allocation }: ReportInput): ReadonlyMap<string, MapLayer> {
  return new Map(
    Array.from(sensitivity.layers, ([path, { group, weight, weights }]) => {
      const { weightBits = 16, actBits = 16 } = allocation.layers.get(path) ?? {};
      const value = weight.get(METRIC_OF[group])?.get(weightBits);
      const measured = value === undefined ? "" : `, ${METRIC_NAMES[group]} ${format(group, value)}`;
      const bits = weightBits === 16 ? "16-bit float" : `${weightBits}-bit weights, ${actBits}-bit input`;
      return [path, { weightBits, actBits, note: `${bits}\n${group}${measured}\n${short(weights)} weights` }];
    }),
  );
}

function picturesSection(pictures: readonly SamplePicture[]): string {
  if (pictures.length === 0) return "";
  const image = (bytes: Uint8Array, alt: string): string =>
    `<img alt="${escape(alt)}" src="data:image/png;base64,${base64(bytes)}">`;
  const items = pictures.map(
    ({ title, reference, quantized }) =>
      `<figure><div>${image(reference, `${title}, FP16`)}${image(quantized, `${title}, quantized`)}</div>` +
      `<figcaption>${escape(title)}</figcaption></figure>`,
  );
  return `<section><h2>Pictures: FP16, and quantized</h2><div class="pictures">${items.join("\n")}</div></section>`;
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
