/** The measured SSIM of every allocation that pictures were made with, by how it splits the budget. */
import { axis, colorOf, INK, MUTED, type Chart } from "./charts.ts";
import { METRIC_NAMES, type ReportInput } from "./input.ts";
import { others, ours, placeLabels, scatter } from "./marks.ts";
import type { Choice, Contender, Trial } from "../choice.ts";
import type { GroupProgram } from "../groups.ts";

const SIZE = { width: 1140, height: 380 };
const GRID = { left: 70, right: 24, top: 20, bottom: 46 };
const WHISKER = 3;
/** The palest mark. */
const PALEST = 0.25;

export function choiceChart({ allocation }: ReportInput, { trials, baselines }: Choice): Chart {
  const { programs } = allocation.weights;
  const [chosen, ...candidates] = trials as [Trial, ...Trial[]];
  const all = [chosen, ...candidates, ...baselines];
  const scale = ssimScale(all);
  const isPair = programs.length === 2;
  const across = (trial: Contender): number => (isPair ? splitOf(programs, trial) : 100 * trial.shares[0]!);
  const mark = (trial: Trial, name = trial.name) => ({
    name,
    value: [across(trial), scale.at(trial.scores.ssim.value)],
  });
  const opacity = (trial: Trial): number => opacityOf(trial, chosen);
  const strokes = [colorOf(8), ...candidates.map(() => INK), ...baselines.map(() => colorOf(2))];
  const place = placeLabels(SIZE);
  return {
    ...SIZE,
    name: "choice",
    title: "SSIM of the pictures, by the split of the budget",
    option: {
      grid: GRID,
      xAxis: axis(
        isPair
          ? "bits of content layers over bits of quality layers"
          : `${METRIC_NAMES[programs[0]!.group]} range kept (%)`,
        { type: "value", scale: true, nameGap: 30 },
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
            const style = { fill: "none", stroke: strokes[dataIndex], lineWidth: 1, opacity: opacity(all[dataIndex]!) };
            return { type: "path", shape: { pathData: `${ends}M${x} ${low}V${high}` }, style };
          },
        },
        ours(mark(chosen, "chosen"), place(["right", "above", "left", "below"])),
        others(
          baselines.map((trial) => mark(trial)),
          place(["right", "left"]),
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
  return Math.max(PALEST, scores.prompts / chosen.scores.prompts);
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
  const kept = programs.map(({ group }, i) => `${group} keeps ${(100 * shares[i]!).toFixed(1)} %`);
  const interval = `${ssim.low.toFixed(4)} to ${ssim.high.toFixed(4)}`;
  return [
    name,
    `SSIM ${ssim.value.toFixed(4)} (${interval}), ${prompts} pictures`,
    `${averageBits.toFixed(4)} bits, ${kept.join(", ")}`,
  ].join("\n");
}

const ends = ({ scores: { ssim } }: Trial): [low: number, high: number] => [ssim.low, ssim.high];

interface Scale {
  /** Where on the axis an SSIM is. */
  at(ssim: number): number;
  readonly axis: object;
}

/** Losses that differ by more are shown by their logarithm. */
const STRETCH_FROM = 4;
const TICKS = [[7, 5, 3, 2, 1], [5, 2, 1], [1]];
const MOST_TICKS = 9;

/**
 * What matters between 0.99 and 0.98 would be lost beside a baseline at 0.6: where the losses, 1 - SSIM, differ that much,
 * the axis is logarithmic in them, with SSIM at its ticks.
 */
function ssimScale(trials: readonly Trial[]): Scale {
  const loss = (ssim: number): number => 1 - ssim;
  const values = trials.map(({ scores }) => loss(scores.ssim.value)).filter((value) => value > 0);
  const most = Math.max(...trials.map(({ scores }) => loss(scores.ssim.low)));
  // An interval that reaches 1 has no end on a logarithmic axis: it is cut where it is clear of all values.
  const cut = Math.min(...values) / STRETCH_FROM;
  const least = Math.max(cut, Math.min(...trials.map(({ scores }) => loss(scores.ssim.high))));
  if (!(most > STRETCH_FROM * least)) return { at: (ssim) => ssim, axis: { scale: true } };
  const at = (ssim: number): number => -Math.log10(Math.max(loss(ssim), least));
  const [min, max] = [at(1 - 1.15 * most), at(1 - least) + 0.05];
  const ticks = TICKS.map((digits) =>
    [0, 1, 2, 3, 4, 5, 6]
      .flatMap((power) => digits.map((digit) => Number((1 - digit / 10 ** power).toFixed(power))))
      .filter((ssim) => ssim < 1 && loss(ssim) > least && at(ssim) >= min && at(ssim) <= max),
  );
  const chosen = ticks.find((list) => list.length <= MOST_TICKS) ?? ticks.at(-1)!;
  const labels = new Map(chosen.map((ssim) => [at(ssim).toFixed(6), `${ssim}`]));
  const customValues = chosen.map(at);
  const formatter = (value: number): string => labels.get(value.toFixed(6)) ?? "";
  return {
    at,
    axis: { min, max, axisTick: { customValues }, axisLabel: { color: MUTED, fontSize: 11, customValues, formatter } },
  };
}
