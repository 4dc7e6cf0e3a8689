/** How pictures decided between the allocations of the sweep: the measured SSIM, and all figures in a table. */
import type { DrawChart } from "./charts.ts";
import { choiceChart, opacityOf } from "./choiceChart.ts";
import { table } from "./html.ts";
import type { ReportInput } from "./input.ts";
import { cellOf, measuresOf } from "./measured.ts";
import { roundsOf, type Choice, type Trial } from "../allocation/choice.ts";

export function choiceSection(input: ReportInput, draw: DrawChart): string {
  const { choice } = input;
  if (!choice) return "";
  return `<section><h2>Choice by pictures</h2>${keys(choice)}
<figure>${draw(choiceChart(input, choice))}</figure>
<p class="caption">${caption(choice)}</p>
${trialTable(choice)}</section>`;
}

function keys(choice: Choice): string {
  const [chosen, ...candidates] = choice.trials as [Trial, ...Trial[]];
  const key = (className: string, text: string, opacity = 1): string =>
    `<span class="key ${className}"><i style="opacity:${opacity}"></i>${text}</span>`;
  const drawn = new Map(candidates.map((trial) => [trial.scores.prompts, opacityOf(trial, chosen)]));
  return `<p class="keys">${[
    key("ours", "chosen"),
    ...(choice.baselines.length > 0 ? [key("others", "baselines")] : []),
    ...[...drawn].map(([prompts, opacity]) => key("trial", `candidates, ${prompts} pictures`, opacity)),
  ].join("")}</p>`;
}

function caption({ trials }: Choice): string {
  const { prompts } = trials[0].scores;
  const [first, second, last] = roundsOf(trials.length, prompts);
  const how =
    trials.length === 1
      ? `One allocation of the sweep beats all others; it was drawn for ${prompts} prompts.`
      : `The ${trials.length} allocations of the sweep that no other one beats in both groups were drawn and held against
FP16’s pictures of the same prompts and seeds, by successive halving: a quarter of the prompts (${first!.prompts}) for all
${first!.contenders}, half (${second!.prompts}) for the better ${second!.contenders}, all (${last!.prompts}) for the better
${last!.contenders} of those. The highest SSIM at the end was chosen; as the best of several on these prompts, it is a little
flattered.`;
  return `${how} Whiskers and ranges are 95 % intervals over prompts.`;
}

function trialTable({ trials, baselines }: Choice): string {
  const [chosen, ...candidates] = trials as [Trial, ...Trial[]];
  const measures = measuresOf([...trials, ...baselines]);
  const rows = [{ ...chosen, name: `chosen: ${chosen.name}` }, ...baselines, ...candidates];
  return table(
    ["", "bits", "pictures", ...measures.map(({ name }) => name)],
    rows.map(({ name, averageBits, scores }) => [
      name,
      averageBits.toFixed(4),
      `${scores.prompts}`,
      ...measures.map((measure) => cellOf(scores, measure)),
    ]),
    "compared measured",
  );
}
