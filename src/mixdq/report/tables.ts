/** The chosen configuration in numbers: by group, and by type of layer. */
import { escape, short, table } from "./html.ts";
import { format, formatSum, SUM_NAMES, widthsOf, type ReportInput } from "./input.ts";
import { groupBy, inNetworkOrder, placeOf } from "./place.ts";
import { METRIC_OF } from "../allocation/sensitivity.ts";

export function groupTable({ allocation }: ReportInput): string {
  const { chosen, programs } = allocation.weights;
  return table(
    ["group", "layers", "weights", "metric", "budget", "average bits", "sum", "bound", "gap"],
    chosen.groups.map(({ group, budget, averageBits, objective, bound, gap }, i) => [
      group,
      `${programs[i].candidates.length}`,
      short(programs[i].elements),
      SUM_NAMES[programs[i].metric],
      budget.toFixed(4),
      averageBits.toFixed(4),
      formatSum(programs[i].metric, objective),
      formatSum(programs[i].metric, bound),
      gap === 0 ? "0" : gap.toExponential(1),
    ]),
  );
}

export function typeTable(input: ReportInput): string {
  const { sensitivity, allocation } = input;
  const hasFloat = allocation.layers.size < sensitivity.layers.size;
  const widths = [...widthsOf(input), ...(hasFloat ? [16] : [])];
  const widthOf = (path: string): number => allocation.layers.get(path)?.weightBits ?? 16;
  const byType = groupBy(inNetworkOrder(sensitivity.layers.keys()), (path) => placeOf(path).type);
  return table(
    ["type", "layers", "weights", ...widths.map((width) => `at ${width}`), "average bits", "MB", "metric, mean"],
    Array.from(byType, ([type, paths]) => {
      const layers = paths.map((path) => ({ bits: widthOf(path), layer: sensitivity.layers.get(path)! }));
      const weights = layers.reduce((sum, { layer }) => sum + layer.weights, 0);
      const cost = layers.reduce((sum, { layer, bits }) => sum + layer.weights * bits, 0);
      const { group } = layers[0].layer;
      const values = layers.flatMap(({ layer, bits }) => layer.weight.get(METRIC_OF[group])?.get(bits) ?? []);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return [
        type,
        `${paths.length}`,
        short(weights),
        ...widths.map((width) => `${layers.filter(({ bits }) => bits === width).length || "–"}`),
        (cost / weights).toFixed(2),
        (cost / 8e6).toFixed(cost < 8e7 ? 2 : 1),
        values.length === 0 ? "–" : `${format(group, mean)}${group === "content" ? "" : " dB"}`,
      ];
    }),
  );
}

export function protectedText({ allocation: { protectedLayers, layers } }: ReportInput): string {
  if (protectedLayers.length === 0) return "";
  const what = protectedLayers.some((path) => layers.has(path)) ? "Inputs" : "Weights and inputs";
  const list = protectedLayers.map((path) => `<code>${escape(path)}</code>`).join(", ");
  return `<p class="caption">${what} in 16-bit float, because 8 bits cost them most: ${list}.</p>`;
}
