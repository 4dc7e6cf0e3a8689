/** The figures of a set of pictures, with their intervals: as the judge reads them, and beside another run's pictures. */
import { countByAttribute, shareFound, type Attributes } from "./alignment.ts";
import { bootstrap, bootstrapMean, seededRandom, type Estimate } from "./bootstrap.ts";
import { frechetFloor, frechetTo, type Gaussian } from "./frechet.ts";
import type { JudgeDescription } from "./judge.ts";
import type { Picture } from "./picture.ts";
import { psnr, psnrCeiling } from "./psnr.ts";
import type { Reading } from "./reader.ts";
import { ssim, ssim11 } from "./ssim.ts";

/** One picture: what its prompt states, and what the judge sees. */
export interface Judged extends Reading {
  readonly stated: Attributes;
}

/** Each takes the eigenvalues of a matrix of F x F: 8 ms for 64 features. */
export const FRECHET_RESAMPLES = 400;

/** Over at least two pictures. */
export function judgedFigures(
  pictures: readonly Judged[],
  statistics: Gaussian,
): { alignment: Estimate; frechet: Estimate } {
  const vectors = pictures.map(({ features }) => features);
  return {
    alignment: alignmentFigure(pictures),
    frechet: bootstrap(pictures.length, frechetTo(statistics, vectors), {
      resamples: FRECHET_RESAMPLES,
      centred: true,
    }),
  };
}

/** Of any number of pictures; a small part of the work that a Fréchet distance is. */
export function alignmentFigure(pictures: readonly Judged[]): Estimate {
  return bootstrapMean(pictures.map(alignmentOf));
}

/** How much better aligned than others of the same prompts; prompt by prompt, so that hard prompts cancel out. */
export function alignmentAgainst(others: readonly Judged[], pictures: readonly Judged[]): Estimate {
  return bootstrapMean(pictures.map((picture, i) => alignmentOf(picture) - alignmentOf(others[i])));
}

const alignmentOf = ({ stated, attributes }: Judged): number => shareFound(stated, attributes);

/** What to hold the figures against: true pictures' own distance at this count, and the judge's own errors. */
export function judgedDetails(
  pictures: readonly Judged[],
  statistics: Gaussian,
  { accuracy }: Pick<JudgeDescription, "accuracy">,
) {
  const counts = countByAttribute(pictures.map(({ stated, attributes }) => ({ stated, seen: attributes })));
  return {
    frechetFloor: frechetFloor(statistics, pictures.length, seededRandom(0)),
    attributes: Object.fromEntries(
      Object.entries(counts).map(([name, { stated, found }]) => [
        name,
        { alignment: found / stated, stated, found, judgeAccuracy: accuracy[name] ?? null },
      ]),
    ),
  };
}

/** How close a picture is to another of the same prompt and seed. */
export interface Closeness {
  readonly ssim: number;
  readonly ssim11: number;
  readonly psnr: number;
}

export type ComparedFigures = Record<keyof Closeness, Estimate>;

/** Throws `invalid-input` for pictures of different sizes. */
export function closenessOf(reference: Picture, picture: Picture): Closeness {
  return { ssim: ssim(reference, picture), ssim11: ssim11(reference, picture), psnr: psnr(reference, picture) };
}

export function comparedFigures(pictures: readonly Closeness[]): ComparedFigures {
  const of = (measure: keyof Closeness): Estimate => bootstrapMean(pictures.map((closeness) => closeness[measure]));
  return { ssim: of("ssim"), ssim11: of("ssim11"), psnr: of("psnr") };
}

/** Of a run that is compared with itself. */
export function figuresOfEqual(size: Pick<Picture, "width" | "height">): ComparedFigures {
  const exactly = (value: number): Estimate => ({ value, low: value, high: value });
  return { ssim: exactly(1), ssim11: exactly(1), psnr: exactly(psnrCeiling(size)) };
}
