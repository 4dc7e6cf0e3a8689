/**
 * DPMSolverMultistepScheduler: DPM-Solver (Lu et al. 2022, arXiv 2206.00927), DPM-Solver++ (arXiv 2211.01095) and their
 * stochastic forms, orders 1 to 3. Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { combine, exp32, f32, log32, sqrt32, type Term } from "./float32.ts";
import {
  History,
  makeSchedule,
  noisedTo,
  orderAt,
  readSolver,
  toLimitedEpsilon,
  type Level,
  type SolverModel,
} from "./multistep.ts";
import { toEpsilon } from "./prediction.ts";
import type { Family, Run, SchedulerConfig } from "./schedulerConfig.ts";
import { linspace } from "./sigmas.ts";

const ALGORITHMS = ["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] as const;
type Algorithm = (typeof ALGORITHMS)[number];
/** Of other solvers' configs, from which this class may be made: diffusers reads them as its own default. */
const OTHER_SOLVERS = ["logrho", "bh1", "bh2"] as const;

/** DPMSolverMultistepScheduler; the stochastic algorithms draw noise at every step. */
export function makeDpmSolver(config: SchedulerConfig): Family {
  const model = readSolver(config, { zeroSnr: true });
  const asked = config.choice<Algorithm | "deis">("algorithm_type", "dpmsolver++", [...ALGORITHMS, "deis"]);
  const algorithm = asked === "deis" ? "dpmsolver++" : asked;
  const solver = config.choice("solver_type", "midpoint", ["midpoint", "heun", ...OTHER_SOLVERS]);
  const solverType = solver === "heun" ? "heun" : "midpoint";
  const final = config.choice("final_sigmas_type", "zero", ["zero", "sigma_min"]);
  const eulerAtFinal = config.flag("euler_at_final");
  const predictsClean = algorithm.endsWith("++");
  // "deis", of that solver's configs, is read as dpmsolver++, but diffusers refuses it here all the same.
  if (!asked.endsWith("++") && final === "zero")
    throw config.unsupported("final_sigmas_type", `"sigma_min" for algorithm_type "${asked}"`);
  if (!predictsClean && model.prediction === "flow_prediction")
    throw config.unsupported("prediction_type", `another for algorithm_type "${algorithm}"`);
  if (algorithm === "sde-dpmsolver" && model.order === 3)
    throw config.unsupported("solver_order", 'at most 2 for algorithm_type "sde-dpmsolver"');
  config.choice("variance_type", "none", ["none"]);
  const isLu = config.flag("use_lu_lambdas");
  const rounds = config.text("beta_schedule", "linear") !== "squaredcos_cap_v2";
  const last = firstClipped(model, config.limit("lambda_min_clipped"));
  if (last < 1) throw config.invalid("lambda_min_clipped", "a number below the largest log(alpha / sigma)");
  const { kind } = model.spread;

  return ({ steps, timesteps: given }) => {
    const usesLu = isLu && kind !== "karras";
    const { timesteps, levels } = makeSchedule(model, {
      steps,
      timesteps: given,
      last,
      sigmas: usesLu ? luSigmas(model, steps) : undefined,
      times: usesLu || given ? undefined : flowTimes(model, steps),
      rounds: rounds && (kind === "karras" || isLu),
      final,
    });
    const history = new History(model.order);
    const convert = (output: Float32Array, sample: Float32Array, level: Level): Float32Array => {
      if (predictsClean) return model.toClean(output, sample, level);
      if (config.flag("thresholding")) return toLimitedEpsilon(model, output, sample, level);
      return toEpsilon(model.prediction as "epsilon", output, sample, level);
    };
    const run: Run = {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noisedTo(levels[call], clean, noise),
      denoised: (output, call, sample) => model.toClean(output, sample, levels[call]),
      step(output, call, sample, noise) {
        history.add(convert(output, sample, levels[call]));
        // The last step of spread noise levels that end at their least is one of nothing.
        const isStill = levels[call + 1].lambda === levels[call].lambda;
        const known = history.outputs.length;
        const order = isStill ? 1 : orderAt(model, call, timesteps.length, known, eulerAtFinal || final === "zero");
        const fresh = algorithm.startsWith("sde") ? noise() : undefined;
        // From the level to be reached back over those that the earlier outputs belong to.
        const path = Array.from({ length: order + 1 }, (_, i) => levels[call + 1 - i]);
        const { sample: own, outputs, noise: factor } = factors(algorithm, solverType, path);
        const terms = differences(history.outputs, path).map((values, i): Term => [outputs[i], values]);
        return combine([own, sample], ...terms, ...(fresh ? [[factor, fresh] as Term] : []));
      },
    };
    return run;
  };
}

/** D0, D1, D2 of the papers: the newest output and its divided differences over lambda. */
function differences(outputs: readonly Float32Array[], path: readonly Level[]): readonly Float32Array[] {
  const [m0, m1, m2] = outputs as [Float32Array, ...Float32Array[]];
  if (path.length === 2) return [m0];
  const [t, s0, s1, s2] = path as [Level, Level, Level, Level?];
  const h = f32(t.lambda - s0.lambda);
  const r0 = f32(f32(s0.lambda - s1.lambda) / h);
  const slope = (ratio: number, a: Float32Array, b: Float32Array): Float32Array => {
    const factor = f32(1 / ratio);
    return a.map((value, i) => factor * f32(value - b[i]));
  };
  const near = slope(r0, m0, m1!);
  if (!s2) return [m0, near];
  const r1 = f32(f32(s1.lambda - s2.lambda) / h);
  const far = slope(r1, m1!, m2!);
  const bend = combine([1, near], [-1, far]);
  const sum = f32(r0 + r1);
  return [m0, combine([1, near], [f32(r0 / sum), bend]), combine([f32(1 / sum), bend])];
}

/** What the sample, the differences and the noise are multiplied by. */
function factors(algorithm: Algorithm, solverType: "midpoint" | "heun", path: readonly Level[]) {
  const [t, s0] = path as [Level, Level, ...Level[]];
  const h = f32(t.lambda - s0.lambda);
  const isThird = path.length === 4;
  const isHeun = solverType === "heun" || isThird;
  switch (algorithm) {
    case "dpmsolver++": {
      const e = f32(exp32(-h) - 1);
      const first = f32(t.alpha * e);
      const second = isHeun ? f32(t.alpha * f32(f32(e / h) + 1)) : -f32(0.5 * first);
      const third = -f32(t.alpha * f32(f32(f32(e + h) / f32(h * h)) - 0.5));
      return { sample: f32(t.sigma / s0.sigma), outputs: [-first, second, third], noise: 0 };
    }
    case "dpmsolver": {
      const e = f32(exp32(h) - 1);
      const first = f32(t.sigma * e);
      const second = isHeun ? -f32(t.sigma * f32(f32(e / h) - 1)) : -f32(0.5 * first);
      const third = -f32(t.sigma * f32(f32(f32(e - h) / f32(h * h)) - 0.5));
      return { sample: f32(t.alpha / s0.alpha), outputs: [-first, second, third], noise: 0 };
    }
    case "sde-dpmsolver++": {
      const k = f32(1 - exp32(-2 * h));
      const first = f32(t.alpha * k);
      const second = isHeun ? f32(t.alpha * f32(f32(k / f32(-2 * h)) + 1)) : f32(0.5 * first);
      const third = f32(t.alpha * f32(f32(f32(k - f32(2 * h)) / f32(f32(2 * h) ** 2)) - 0.5));
      const noise = f32(t.sigma * sqrt32(k));
      return { sample: f32(f32(t.sigma / s0.sigma) * exp32(-h)), outputs: [first, second, third], noise };
    }
    case "sde-dpmsolver": {
      const e = f32(exp32(h) - 1);
      const first = f32(t.sigma * e);
      const second = isHeun ? -f32(2 * f32(t.sigma * f32(f32(e / h) - 1))) : -first;
      const noise = f32(t.sigma * sqrt32(f32(exp32(2 * h) - 1)));
      return { sample: f32(t.alpha / s0.alpha), outputs: [-f32(2 * first), second], noise };
    }
  }
}

/** How many of the training timesteps have a lambda of at least `least`. */
function firstClipped({ alphasCumprod }: SolverModel, least: number): number {
  const lambda = (a: number): number => f32(log32(sqrt32(a)) - log32(sqrt32(f32(1 - a))));
  return alphasCumprod.filter((a) => lambda(a) >= least).length;
}

/** Evenly spaced in log(sigma), over all of the training schedule. Lu et al. 2022, arXiv 2211.01095. */
function luSigmas({ table }: SolverModel, steps: number): readonly number[] {
  const [from, to] = [log32(table.at(-1)!), log32(table[0])];
  return linspace(0, 1, steps).map((ramp) => Math.exp(from + ramp * (to - from)));
}

/** Of a rectified flow, where no other spread is asked for. DEIS has the same. */
export function flowTimes({ flow, spread, spacing }: SolverModel, steps: number): readonly number[] | undefined {
  if (!flow || spread.kind !== "none") return undefined;
  return linspace(1, 1 / spacing.trainTimesteps, steps + 1)
    .map((alpha) => 1 - alpha)
    .map((sigma) => (flow.shift * sigma) / (1 + (flow.shift - 1) * sigma))
    .reverse()
    .slice(0, -1);
}
