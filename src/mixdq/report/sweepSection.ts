/** The sweep of budgets and ratios, its Pareto front, and the baselines. */
import { axis, colorOf, MUTED, type Chart, type DrawChart } from "./charts.ts";
import { table } from "./html.ts";
import { formatSum, RANGE_NAMES, SUM_NAMES, type ReportInput } from "./input.ts";
import { lossScale } from "./lossScale.ts";
import { others, ours, placeLabels, scatter } from "./marks.ts";
import { paretoFront } from "../allocation/sweep.ts";

const SIZE = { width: 560, height: 400 };
const GRID = { left: 58, right: 24, top: 24, bottom: 46 };

export function sweepSection(input: ReportInput, draw: DrawChart): string {
  const { points, allocation } = input;
  if (points.length === 0) return "";
  const isPair = allocation.weights.programs.length === 2;
  const charts = [frontChart(input), ...(isPair ? [planeChart(input)] : [])];
  const budgets = isPair ? "budgets and ratios of content to quality" : "budgets";
  const rule = isPair
    ? " Sums of two metrics cannot be added, so an allocation counts by the group that keeps less."
    : "";
  const next = isPair && input.choice ? " Which of the front’s splits was taken, pictures decided: see below." : "";
  return `<section><h2>The sweep, its front, and the baselines</h2>
<div class="pair">${charts.map((chart) => `<figure>${draw(chart)}</figure>`).join("")}</div>
<p class="caption">${points.length} ${budgets}. A group’s sum of its metric lies between what its layers have at their
smallest and at their best widths: 0 and 100 % kept.${rule} The front is of those that no other beats with as few bits.${next}</p>
${comparison(input)}</section>`;
}

const percent = (share: number): number => 100 * share;

/** An axis of shares, in percent: stretched where some keep nearly all. */
const shareScale = (shares: readonly number[]) =>
  lossScale(
    shares.map((value) => ({ value, low: value, high: value })),
    (share) => `${Number(percent(share).toFixed(6))}`,
  );

/** Bits against what is kept. */
function frontChart({ points, baselines, allocation, weightBits }: ReportInput): Chart {
  const { chosen, programs } = allocation.weights;
  const front = paretoFront(points);
  const scale = shareScale([...points, ...baselines, chosen].map(({ score }) => score));
  const named = (name: string, { averageBits, score }: { averageBits: number; score: number }) => ({
    value: [averageBits, scale.at(score)],
    name,
  });
  const sets = [
    points.map((point) => ({ ...point, name: `budget ${point.budget.toFixed(3)}, ratio ${point.ratio.toFixed(3)}` })),
    front.map((point) => ({
      ...point,
      name: `front: budget ${point.budget.toFixed(3)}, ratio ${point.ratio.toFixed(3)}`,
    })),
    [{ ...chosen, name: "chosen" }],
    baselines,
  ];
  const place = placeLabels(SIZE, GRID).beside(["right"]);
  // Baselines may be well below the budget: no wider uniform width may fit.
  const least = sets.flat().reduce((bits, { averageBits }) => Math.min(bits, averageBits), weightBits);
  return {
    ...SIZE,
    name: "sweep",
    title: "Bits against what is kept",
    option: {
      grid: { ...GRID, right: 108 },
      xAxis: axis("bits a weight", {
        ...{ type: "value", min: Math.floor(least * 20) / 20, max: weightBits, nameGap: 30 },
        axisLabel: { color: MUTED, fontSize: 11, formatter: (bits: number) => `${Number(bits.toFixed(2))}` },
      }),
      yAxis: axis(programs.length === 2 ? "kept by the group that keeps less (%)" : "kept (%)", {
        ...{ type: "value", nameGap: 40, ...scale.axis },
      }),
      series: [
        scatter(
          sets[0].map((point) => named(point.name, point)),
          { symbolSize: 5, itemStyle: { color: MUTED, opacity: 0.4 } },
        ),
        {
          type: "line",
          data: front.map((point) => named("front", point)),
          symbol: "circle",
          symbolSize: 5,
          lineStyle: { color: colorOf(8), width: 1.5 },
          itemStyle: { color: colorOf(8) },
        },
        ours(named("chosen", chosen), place),
        others(
          baselines.map((point) => named(point.name, point)),
          place,
        ),
      ],
    },
    hint: (series, index) => {
      const point = sets[series]?.[index];
      return point && `${point.name}\n${point.averageBits.toFixed(4)} bits, ${percent(point.score).toFixed(2)} % kept`;
    },
  };
}

/** What both groups keep, at the budget itself. */
function planeChart({ points, baselines, allocation, weightBits }: ReportInput): Chart {
  const { chosen, programs } = allocation.weights;
  const ranges = programs.map(({ metric }) => RANGE_NAMES[metric]);
  const shares = (objectives: readonly number[]): number[] => objectives.map((sum, i) => programs[i].shareOf(sum));
  const sharesOf = (groups: readonly { objective: number }[]): number[] =>
    shares(groups.map(({ objective }) => objective));
  const place = placeLabels(SIZE, GRID);
  const at = points.filter(({ budget }) => Math.abs(budget - weightBits) < 1e-9);
  const all = [
    ...at.map(({ groups }) => sharesOf(groups)),
    ...baselines.map(({ objectives }) => shares(objectives)),
    sharesOf(chosen.groups),
  ];
  const scales = programs.map((_, i) => shareScale(all.map((values) => values[i])));
  const onAxes = (values: readonly number[]): number[] => values.map((share, i) => scales[i].at(share));
  return {
    ...SIZE,
    name: "plane",
    title: "Content against quality, at the budget",
    option: {
      grid: GRID,
      xAxis: axis(`${ranges[0]} range kept by content (%)`, { type: "value", nameGap: 30, ...scales[0].axis }),
      yAxis: axis(`${ranges[1]} range kept by quality (%)`, { type: "value", nameGap: 40, ...scales[1].axis }),
      series: [
        {
          type: "line",
          data: at.map(({ groups }) => onAxes(sharesOf(groups))),
          symbol: "circle",
          symbolSize: 6,
          lineStyle: { color: MUTED, width: 1, opacity: 0.5 },
          itemStyle: { color: MUTED },
        },
        // Above and to the right of the front there is nothing.
        ours(
          { name: "chosen", value: onAxes(sharesOf(chosen.groups)) },
          place.beside(["right", "above", "left", "below"]),
        ),
        others(
          baselines.map(({ name, objectives }) => ({ name, value: onAxes(shares(objectives)) })),
          place.beside(["left", "right", "above", "below"]),
        ),
      ],
    },
    hint: (series, index) => {
      if (series === 0) return at[index] && `ratio ${at[index].ratio.toFixed(3)}`;
      return series === 1 ? "chosen" : baselines[index]?.name;
    },
  };
}

function comparison({ baselines, allocation }: ReportInput): string {
  const { chosen, programs } = allocation.weights;
  const rows = [
    { ...chosen, name: "chosen", objectives: chosen.groups.map(({ objective }) => objective) },
    ...baselines,
  ];
  return table(
    ["", "bits", ...programs.map(({ metric }) => `sum of ${SUM_NAMES[metric]}`), "kept (%)"],
    rows.map(({ name, averageBits, score, objectives }) => [
      name,
      averageBits.toFixed(4),
      ...objectives.map((sum, i) => formatSum(programs[i].metric, sum)),
      percent(score).toFixed(1),
    ]),
    "compared",
  );
}
