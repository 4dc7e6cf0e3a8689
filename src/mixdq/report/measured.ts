/** What the pictures of an allocation measured, in words and cells. */
import { table, type Cell } from "./html.ts";
import type { Choice, PictureScores, Trial } from "../allocation/choice.ts";

type Figure = Exclude<keyof PictureScores, "prompts">;

interface Measure {
  readonly figure: Figure;
  readonly name: string;
  readonly digits: number;
}

const MEASURES: readonly Measure[] = [
  { figure: "ssim", name: "SSIM", digits: 4 },
  { figure: "ssim11", name: "SSIM 11x11", digits: 4 },
  { figure: "psnr", name: "PSNR (dB)", digits: 1 },
  { figure: "alignment", name: "alignment", digits: 3 },
  { figure: "frechet", name: "Fréchet distance", digits: 1 },
];

/** The figures that at least one of them has. */
export function measuresOf(trials: readonly Trial[]): Measure[] {
  return MEASURES.filter(({ figure }) => trials.some(({ scores }) => scores[figure] !== undefined));
}

/** "0.9860", and "0.9843 to 0.9876". */
export function cellOf(scores: PictureScores, { figure, digits }: Measure): Cell {
  const estimate = scores[figure];
  if (!estimate) return "–";
  const { value, low, high } = estimate;
  return { text: value.toFixed(digits), note: `${low.toFixed(digits)} to ${high.toFixed(digits)}` };
}

/** The chosen one's SSIM, PSNR and alignment. */
export function measuredTiles({ trials }: Choice): [value: string, text: string][] {
  const { scores } = trials[0];
  const words: Partial<Record<Figure, { unit: string; text: string }>> = {
    ssim: { unit: "", text: `SSIM against FP16, ${scores.prompts} pictures` },
    psnr: { unit: " dB", text: "PSNR against FP16" },
    alignment: { unit: "", text: "alignment with the prompts" },
  };
  return measuresOf(trials.slice(0, 1)).flatMap((measure): [string, string][] => {
    const found = words[measure.figure];
    const cell = cellOf(scores, measure);
    if (!found || typeof cell === "string") return [];
    return [[`${cell.text}${found.unit}`, `${found.text} (${cell.note})`]];
  });
}

export function measuredTable({ trials }: Choice): string {
  const { scores } = trials[0];
  const measures = measuresOf(trials.slice(0, 1));
  return table(
    ["pictures", ...measures.map(({ name }) => name)],
    [[`${scores.prompts}`, ...measures.map((measure) => cellOf(scores, measure))]],
  );
}
