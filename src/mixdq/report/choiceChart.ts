/** The measured SSIM of every allocation that pictures were made with, by how it splits the budget. */
import { axis, colorOf, INK, type Chart } from "./charts.ts";
import { RANGE_NAMES, type ReportInput } from "./input.ts";
import { others, ours, placeLabels, scatter } from "./marks.ts";
import { lossScale } from "./lossScale.ts";
import type { Choice, Contender, Trial } from "../allocation/choice.ts";
import type { GroupProgram } from "../allocation/groups.ts";

const SIZE = { width: 1140, height: 380 };
const GRID = { left: 70, right: 24, top: 20, bottom: 46 };
const WHISKER = 3;
const SIDES = ["right", "left", "above", "below"] as const;
/** The palest mark. */
const PALEST = 0.3;

export function choiceChart({ allocation }: ReportInput, { trials, baselines }: Choice): Chart {
  const { programs } = allocation.weights;
  const [chosen, ...candidates] = trials as [Trial, ...Trial[]];
  const all = [chosen, ...candidates, ...baselines];
  const scale = lossScale(all.map(({ scores }) => scores.ssim));
  const isPair = programs.length === 2;
  const across = (trial: Contender): number => (isPair ? splitOf(programs, trial) : 100 * trial.shares[0]);
  const mark = (trial: Trial, name = trial.name) => ({
    name,
    value: [across(trial), scale.at(trial.scores.ssim.value)],
  });
  const opacity = (trial: Trial): number => opacityOf(trial, chosen);
  const strokes = [colorOf(8), ...candidates.map(() => INK), ...baselines.map(() => colorOf(2))];
  const place = placeLabels(SIZE, GRID);
  return {
    ...SIZE,
    name: "choice",
    title: "SSIM of the pictures, by the split of the budget",
    option: {
      grid: GRID,
      xAxis: axis(
        isPair
          ? "bits of content layers over bits of quality layers"
          : `${RANGE_NAMES[programs[0].metric]} range kept (%)`,
        { type: "value", scale: true, nameGap: 30, ...(isPair && roundRange(all.map(across))) },
      ),
      yAxis: axis("SSIM against FP16", { type: "value", nameGap: 50, ...scale.axis }),
      series: [
        {
          type: "custom",
          data: all.map((trial) => [across(trial), ...ends(trial).map(scale.at)]),
          encode: { x: 0, y: [1, 2] },
          renderItem: ({ dataIndex }: { dataIndex: number }, api: WhiskerApi) => {
            const [[x, low], [, high]] = [1, 2].map((end) => api.coord([api.value(0), api.value(end)])) as Pixel[];
            const ends = [low, high].map((y) => `M${x - WHISKER} ${y}h${2 * WHISKER}`).join("");
            place.avoid({ x: x - WHISKER, y: high, width: 2 * WHISKER, height: low - high });
            const style = { fill: "none", stroke: strokes[dataIndex], lineWidth: 1, opacity: opacity(all[dataIndex]) };
            return { type: "path", shape: { pathData: `${ends}M${x} ${low}V${high}` }, style };
          },
        },
        ours(mark(chosen, "chosen"), place.beside(SIDES)),
        others(
          baselines.map((trial) => mark(trial)),
          place.beside(SIDES),
        ),
        scatter(
          candidates.map((trial) => ({ ...mark(trial), itemStyle: { color: INK, opacity: opacity(trial) } })),
          { symbolSize: 7 },
        ),
      ],
    },
    hint: (series, index) => {
      const trial = [[], [chosen], baselines, candidates][series]?.[index];
      return trial && hintOf(trial, programs);
    },
  };
}

type Pixel = [x: number, y: number];

interface WhiskerApi {
  value(dimension: number): number;
  coord(data: readonly number[]): Pixel;
}

/** Fewer pictures are paler; against the chosen one, which was drawn for all prompts. */
export function opacityOf({ scores }: Trial, chosen: Trial): number {
  return Number(Math.max(PALEST, (scores.prompts / chosen.scores.prompts) ** 0.7).toFixed(2));
}

const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5];
const MOST_STEPS = 12;

/** Out to whole steps, with some room for marks. (ECharts' own begins at 0.2 for 0.43.) */
function roundRange(values: readonly number[]): { min: number; max: number; interval: number } {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const interval = STEPS.find((step) => (most - least) / step <= MOST_STEPS) ?? most - least;
  const inSteps = (count: number): number => Number((count * interval).toFixed(2));
  return { min: inSteps(Math.floor(least / interval - 0.2)), max: inSteps(Math.ceil(most / interval + 0.2)), interval };
}

/** Content's average bits over quality's, float weights counted with 16. */
function splitOf(programs: readonly GroupProgram[], { bits }: Contender): number {
  const [content, quality] = ["content", "quality"].map((name) => {
    const { candidates, elements, floatElements } = programs.find(({ group }) => group === name)!;
    const own = candidates.reduce((sum, layer) => sum + bits.get(layer.path)! * layer.elements, 0);
    return (own + 16 * floatElements) / elements;
  });
  return content! / quality!;
}

function hintOf(
  { name, averageBits, shares, scores: { prompts, ssim } }: Trial,
  programs: readonly GroupProgram[],
): string {
  const kept = programs.map(({ group }, i) => `${group} keeps ${(100 * shares[i]).toFixed(1)} %`);
  const interval = `${ssim.low.toFixed(4)} to ${ssim.high.toFixed(4)}`;
  return [
    name,
    `SSIM ${ssim.value.toFixed(4)} (${interval}), ${prompts} pictures`,
    `${averageBits.toFixed(4)} bits, ${kept.join(", ")}`,
  ].join("\n");
}

const ends = ({ scores: { ssim } }: Trial): [low: number, high: number] => [ssim.low, ssim.high];
