/** Made-up pictures' figures for tests, seeded: better where more is kept, surer where there are more pictures. */
import type { Baseline } from "../allocation/baselines.ts";
import { chooseByPictures, contendersOf, type Choice, type PictureScores } from "../allocation/choice.ts";
import type { GroupProgram } from "../allocation/groups.ts";
import { makeRandom } from "../allocation/random.ts";
import type { Point } from "../allocation/sweep.ts";
import type { Estimate } from "../quality/bootstrap.ts";

/** Over 64 prompts; `judged`: with alignment and Fréchet distance. */
export async function sampleChoice(
  programs: readonly GroupProgram[],
  points: readonly Point[],
  baselines: readonly Baseline[],
  { seed = 0, judged = true } = {},
): Promise<Choice> {
  const random = makeRandom(seed);
  const score = (shares: readonly number[], prompts: number): PictureScores => {
    const lost = shares.reduce((sum, share, group) => sum + [0.05, 0.03][group] * (1 - share) ** 1.3, 0);
    const loss = 0.006 + lost + 0.002 * random();
    const width = Math.sqrt(16 / prompts);
    const about = (value: number, spread: number, most = Infinity): Estimate => ({
      value,
      low: value - spread * width * (1 + 0.3 * random()),
      high: Math.min(most, value + spread * width * (0.7 + 0.3 * random())),
    });
    return {
      prompts,
      ssim: about(1 - loss, 0.25 * loss, 1),
      ssim11: about(1 - 2.3 * loss, 0.3 * loss, 1),
      psnr: about(12 - 10 * Math.log10(loss), 1.2),
      ...(judged && { alignment: about(1 - loss / 20, 0.004, 1), frechet: about(170 + 400 * loss, 40) }),
    };
  };
  const contenders = await contendersOf(programs, points);
  const trials = await chooseByPictures(contenders, 64, async ({ shares }, prompts) => score(shares, prompts));
  const others = baselines.map(({ objectives, ...baseline }) => {
    const shares = objectives.map((objective, i) => programs[i].shareOf(objective));
    return { ...baseline, shares, point: undefined, scores: score(shares, 64) };
  });
  return { trials, baselines: others };
}
