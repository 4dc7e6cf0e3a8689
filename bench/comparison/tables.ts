/** Figures of what was measured, and their tables in Markdown. */
import { bootstrap, bootstrapMean, type Estimate } from "../../src/mixdq/quality/bootstrap.ts";
import { comparedFigures, FRECHET_RESAMPLES } from "../../src/mixdq/quality/figures.ts";
import { frechetTo, type Gaussian } from "../../src/mixdq/quality/frechet.ts";
import type { Measured } from "./measure.ts";

/** One line of a table. */
export interface Line {
  readonly name: string;
  /** Bits a weight, on average over all layers, and megabytes of the UNet's weights with their scales. */
  readonly bits: number;
  readonly megabytes: number;
  readonly ssim: Estimate;
  readonly ssim11: Estimate;
  readonly psnr: Estimate;
  readonly alignment: Estimate;
  /** To true pictures, and to FP16's. */
  readonly frechet: Estimate;
  readonly frechetToFp16: Estimate;
}

/** One run less another, picture by picture of the same prompts and seeds, so that hard prompts cancel out. */
export interface Difference {
  readonly ssim: Estimate;
  readonly psnr: Estimate;
  readonly alignment: Estimate;
  readonly frechet: Estimate;
  readonly frechetToFp16: Estimate;
}

type Indices = ArrayLike<number>;

export class Figures {
  readonly #truth: Gaussian;
  readonly #fp16: Measured;
  readonly #distances = new Map<Measured, Record<"truth" | "fp16", (indices: Indices) => number>>();

  /** `truth`: the judge's features of true pictures. */
  constructor(truth: Gaussian, fp16: Measured) {
    this.#truth = truth;
    this.#fp16 = fp16;
  }

  lineOf(name: string, bits: number, megabytes: number, measured: Measured): Line {
    const { truth, fp16 } = this.#distance(measured);
    return {
      ...{ name, bits, megabytes },
      ...comparedFigures(measured.closeness),
      alignment: bootstrapMean(measured.alignment),
      frechet: centred(measured, truth),
      frechetToFp16: centred(measured, fp16),
    };
  }

  difference(one: Measured, other: Measured): Difference {
    const paired = (of: (measured: Measured) => readonly number[]): Estimate =>
      bootstrapMean(of(one).map((value, i) => value - of(other)[i]));
    const [a, b] = [this.#distance(one), this.#distance(other)];
    return {
      ssim: paired(({ closeness }) => closeness.map(({ ssim }) => ssim)),
      psnr: paired(({ closeness }) => closeness.map(({ psnr }) => psnr)),
      alignment: paired(({ alignment }) => alignment),
      frechet: centred(one, (indices) => a.truth(indices) - b.truth(indices)),
      frechetToFp16: centred(one, (indices) => a.fp16(indices) - b.fp16(indices)),
    };
  }

  #distance(measured: Measured) {
    const { features } = measured;
    const distances = this.#distances.get(measured) ?? {
      truth: frechetTo(this.#truth, features),
      fp16: remembering((indices) => {
        // The same prompts on both sides: other prompts make other pictures in FP16 too.
        const of = (all: Measured["features"]): Measured["features"] => Array.from(indices, (i) => all[i]);
        const order = Array.from(indices, (_, i) => i);
        return frechetTo(gaussianOf(of(this.#fp16.features)), of(features))(order);
      }),
    };
    this.#distances.set(measured, distances);
    return distances;
  }
}

/** Differences ask for the same draws again. */
function remembering(statistic: (indices: Indices) => number): (indices: Indices) => number {
  const known = new Map<string, number>();
  return (indices) => {
    const key = Array.from(indices).join();
    const value = known.get(key) ?? statistic(indices);
    known.set(key, value);
    return value;
  };
}

function centred({ features }: Measured, statistic: (indices: Indices) => number): Estimate {
  return bootstrap(features.length, statistic, { resamples: FRECHET_RESAMPLES, centred: true });
}

/** Mean and unbiased covariance. */
function gaussianOf(features: readonly (readonly number[])[]): Gaussian {
  const size = features[0].length;
  const mean = Float64Array.from({ length: size }, (_, i) => sum(features.map((row) => row[i])) / features.length);
  const covariance = Float64Array.from({ length: size * size }, (_, at) => {
    const [i, j] = [Math.floor(at / size), at % size];
    return sum(features.map((row) => (row[i] - mean[i]) * (row[j] - mean[j]))) / (features.length - 1);
  });
  return { mean, covariance };
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

export function interval({ value, low, high }: Estimate, digits: number): string {
  return `${value.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;
}

export function linesTable(lines: readonly Line[]): string {
  return markdown(
    ["", "bits", "MB", "SSIM", "11x11", "PSNR, dB", "alignment", "Fréchet", "Fréchet to FP16"],
    lines.map((line) => [
      line.name,
      line.bits.toFixed(2),
      line.megabytes.toFixed(2),
      interval(line.ssim, 4),
      line.ssim11.value.toFixed(4),
      line.psnr.value.toFixed(1),
      interval(line.alignment, 4),
      interval(line.frechet, 1),
      interval(line.frechetToFp16, 2),
    ]),
  );
}

export function differencesTable(rows: readonly { name: string; difference: Difference }[]): string {
  return markdown(
    ["ours less", "SSIM", "PSNR, dB", "alignment", "Fréchet", "Fréchet to FP16"],
    rows.map(({ name, difference: { ssim, psnr, alignment, frechet, frechetToFp16 } }) => [
      name,
      interval(ssim, 4),
      interval(psnr, 2),
      interval(alignment, 4),
      interval(frechet, 1),
      interval(frechetToFp16, 2),
    ]),
  );
}

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, ...rows];
  const widths = head.map((_, column) => Math.max(3, ...lines.map((cells) => cells[column].length)));
  lines.splice(
    1,
    0,
    widths.map((width) => "-".repeat(width)),
  );
  return lines.map((cells) => `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`).join("\n");
}
