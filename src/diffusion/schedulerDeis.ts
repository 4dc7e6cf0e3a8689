/**
 * DEISMultistepScheduler: exponential integrators with polynomials in log(rho), rho = sigma / alpha. Zhang & Chen 2023, arXiv
 * 2204.13902. Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { combine, exp32, f32, log32 } from "./float32.ts";
import { History, makeSchedule, noisedTo, orderAt, readSolver, toLimitedEpsilon, type Level } from "./multistep.ts";
import type { Family, SchedulerConfig } from "./schedulerConfig.ts";
import { flowTimes } from "./schedulerDpmSolver.ts";

/** DEISMultistepScheduler. Never draws noise. */
export function makeDeis(config: SchedulerConfig): Family {
  const model = readSolver(config, { zeroSnr: false });
  // What other solvers' configs say is read as DEIS's own, as diffusers does.
  config.choice("algorithm_type", "deis", ["deis", "dpmsolver", "dpmsolver++"]);
  config.choice("solver_type", "logrho", ["logrho", "midpoint", "heun", "bh1", "bh2"]);
  return ({ steps }) => {
    const { timesteps, levels } = makeSchedule(model, {
      steps,
      times: flowTimes(model, steps),
      rounds: model.spread.kind === "karras",
      final: "last",
    });
    const history = new History(model.order);
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noisedTo(levels[call], clean, noise),
      denoised: (output, call, sample) => model.toClean(output, sample, levels[call]),
      step(output, call, sample) {
        history.add(toLimitedEpsilon(model, output, sample, levels[call]));
        const order = orderAt(model, call, timesteps.length, history.outputs.length, false);
        const path = Array.from({ length: order + 1 }, (_, i) => levels[call + 1 - i]);
        return order === 1 ? firstOrder(sample, history.outputs[0], path) : higherOrder(sample, history.outputs, path);
      },
    };
  };
}

function firstOrder(sample: Float32Array, epsilon: Float32Array, [t, s0]: readonly Level[]): Float32Array {
  const h = f32(t!.lambda - s0!.lambda);
  return combine([f32(t!.alpha / s0!.alpha), sample], [-f32(t!.sigma * f32(exp32(h) - 1)), epsilon]);
}

function higherOrder(sample: Float32Array, outputs: readonly Float32Array[], path: readonly Level[]): Float32Array {
  const [to, ...points] = path.map(({ sigma, alpha }) => f32(sigma / alpha));
  const integral = points.length === 2 ? integral2 : integral3;
  const [t, s0] = path as [Level, Level];
  let sum: Float32Array = sample.map((value) => value / s0.alpha);
  points.forEach((_, i) => {
    // The polynomial that is 1 at point i and 0 at the others, integrated from the present level to the next.
    const own = [...points.slice(i), ...points.slice(0, i)] as [number, number, number];
    sum = combine([1, sum], [f32(integral(to!, ...own) - integral(points[0], ...own)), outputs[i]]);
  });
  return combine([t.alpha, sum]);
}

/** Antiderivative at t of the line through 1 at b and 0 at c, in log(t). */
function integral2(t: number, b: number, c: number): number {
  return f32(f32(t * f32(f32(-log32(c) + log32(t)) - 1)) / f32(log32(b) - log32(c)));
}

/** Antiderivative at t of the parabola through 1 at b and 0 at c and d, in log(t). */
function integral3(t: number, b: number, c: number, d: number): number {
  const [lt, lb, lc, ld] = [t, b, c, d].map(log32) as [number, number, number, number];
  const first = f32(lc * f32(f32(ld - lt) + 1));
  const inner = f32(f32(f32(f32(f32(first - f32(ld * lt)) + ld) + f32(lt * lt)) - f32(2 * lt)) + 2);
  return f32(f32(t * inner) / f32(f32(lb - lc) * f32(lb - ld)));
}
