/** What an allocation was: for the terminal, and for those who want to make it again. */
import type { Allocation, AllocateOptions } from "../../mixdq/allocation/allocate.ts";
import type { Choice, Trial } from "../../mixdq/allocation/choice.ts";
import type { Metric } from "../../mixdq/allocation/groups.ts";
import type { Sensitivity } from "../../mixdq/allocation/sensitivity.ts";

/** How the bits were chosen, for mixdq.json. */
export function provenanceOf(allocation: Allocation, options: AllocateOptions): Record<string, unknown> {
  const sideOf = ({ chosen, quantizedBits, certified }: Allocation["weights"], budget: number) => ({
    budget,
    ...(chosen.groups.length > 1 && { ratio: chosen.ratio }),
    averageBits: chosen.averageBits,
    averageQuantizedBits: quantizedBits,
    groups: Object.fromEntries(
      chosen.groups.map(({ group, budget: own, averageBits, objective, bound, gap, solver }) => [
        group,
        { budget: own, averageBits, objective, bound, gap, solver, certifiedBy: certified.get(group) ?? null },
      ]),
    ),
  });
  return {
    weights: { candidates: options.candidates, sum: options.sum, ...sideOf(allocation.weights, options.weightBits) },
    ...(allocation.activations && { activations: sideOf(allocation.activations, options.actBits!) }),
    averageActBits: allocation.averageActBits ?? null,
    protected: { as: options.protectedAs, layers: allocation.protectedLayers },
  };
}

/** A few lines: what was chosen, how good it is by each group's metric, and who proved that there is nothing better. */
export function describe(out: string, { layers }: Sensitivity, allocation: Allocation): string {
  const { chosen, averageBits, quantizedBits, certified } = allocation.weights;
  const count = (test: (bits: number) => boolean, of: "weightBits" | "actBits"): number =>
    [...allocation.layers.values()].filter((layer) => test(layer[of])).length;
  const weights = [...layers.values()].reduce((sum, layer) => sum + layer.weights, 0);
  const widthsUsed = [...new Set([...allocation.layers.values()].map(({ weightBits }) => weightBits))].sort(
    (a, b) => a - b,
  );
  const rows = [
    ["group", "layers", "metric", "budget", "average", "objective", "bound", "gap", "proven by"],
    ...chosen.groups.map(({ group, budget, averageBits: own, objective, bound, gap, solver }, i) => [
      group,
      `${allocation.weights.programs[i].candidates.length}`,
      METRIC_NAMES[allocation.weights.programs[i].metric],
      budget.toFixed(4),
      own.toFixed(4),
      describeSum(objective),
      describeSum(bound),
      gap === 0 ? "0" : gap.toExponential(1),
      [solver, ...(certified.has(group) ? [certified.get(group)!] : [])].join(", "),
    ]),
  ];
  const float = layers.size - allocation.layers.size;
  return [
    `${out}: ${averageBits.toFixed(4)} bits a weight, ${((weights * averageBits) / 8e6).toFixed(1)} MB` +
      (float > 0 ? `; ${quantizedBits.toFixed(4)} without the ${float} layers in 16-bit float` : "") +
      (chosen.groups.length > 1 ? `; content to quality ${chosen.ratio.toFixed(4)}` : ""),
    ...aligned(rows),
    `weights: ${widthsUsed.map((bits) => `${count((b) => b === bits, "weightBits")} layers at ${bits}`).join(", ")} bits; ` +
      `inputs: ${count((b) => b === 16, "actBits") + float} in float` +
      (allocation.averageActBits === undefined ? "" : `, ${allocation.averageActBits.toFixed(4)} bits on average`),
  ].join("\n");
}

const METRIC_NAMES: Readonly<Record<Metric, string>> = { ssim: "SSIM", sqnr: "SQNR, dB", noise: "-noise/signal" };

/** With the digits that differ. */
const describeSum = (sum: number): string => (Math.abs(sum) < 0.1 ? sum.toExponential(6) : sum.toFixed(6));

/** The chosen allocation's pictures, and those of the baselines with as many bits. */
export function describeChoice({ trials, baselines }: Choice): string {
  const [chosen] = trials;
  const row = (name: string, { averageBits, scores }: Trial): string[] => {
    const { ssim, ssim11, psnr, alignment } = scores;
    return [
      name,
      averageBits.toFixed(4),
      `${ssim.value.toFixed(4)} (${ssim.low.toFixed(4)} to ${ssim.high.toFixed(4)})`,
      ssim11.value.toFixed(4),
      psnr.value.toFixed(2),
      alignment?.value.toFixed(4) ?? "",
    ];
  };
  return [
    `pictures: ${chosen!.name} of ${trials.length}, by ${chosen!.scores.prompts} pictures each of the best`,
    ...aligned([
      ["", "bits", "SSIM", "11x11", "PSNR", "alignment"],
      row("chosen", chosen!),
      ...baselines.map((trial) => row(trial.name, trial)),
    ]),
  ].join("\n");
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const columns = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(columns[column]))
      .join("  ")
      .trimEnd(),
  );
}
