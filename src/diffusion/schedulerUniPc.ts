/**
 * UniPCMultistepScheduler: a predictor and a corrector of one form, B(h), orders 1 to 3. Zhao et al. 2023, arXiv 2302.04867.
 * Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { combine, f32, type Term } from "./float32.ts";
import { History, makeSchedule, noisedTo, readSolver, type Level, type SolverModel } from "./multistep.ts";
import { toEpsilon } from "./prediction.ts";
import type { Family, SchedulerConfig } from "./schedulerConfig.ts";
import { linspace, spreadSigmas } from "./sigmas.ts";

const expm1 = (x: number): number => f32(Math.expm1(x));

/** UniPCMultistepScheduler. Never draws noise. */
export function makeUniPc(config: SchedulerConfig): Family {
  const model = readSolver(config, { zeroSnr: true });
  const type =
    config.choice("solver_type", "bh2", ["bh1", "bh2", "midpoint", "heun", "logrho"]) === "bh1" ? "bh1" : "bh2";
  const final = config.choice("final_sigmas_type", "zero", ["zero", "sigma_min"]);
  const predictsClean = config.flag("predict_x0", true);
  if (!model.lowerOrderFinal && model.order > 1 && final === "zero")
    throw config.unsupported("lower_order_final", 'true where final_sigmas_type is "zero"');
  if (!predictsClean && final === "zero")
    throw config.unsupported("final_sigmas_type", '"sigma_min" where predict_x0 is false');
  if (!predictsClean && model.prediction === "flow_prediction")
    throw config.unsupported("prediction_type", "another where predict_x0 is false");
  config.refuse("use_dynamic_shifting");
  if (config.optionalNumber("solver_p") !== undefined) throw config.unsupported("solver_p", "null");
  const uncorrected = new Set(config.numbers("disable_corrector"));
  const terminal = config.optionalNumber("shift_terminal", 0, 0.99);
  if (terminal !== undefined && !model.flow) throw config.unsupported("shift_terminal", "null without use_flow_sigmas");

  return ({ steps }) => {
    const { timesteps, levels } = makeSchedule(model, {
      steps,
      times: flowTimes(model, steps, terminal),
      rounds: model.spread.kind === "karras",
      final: final === "sigma_min" ? "last" : final,
    });
    const history = new History(model.order);
    const convert = (output: Float32Array, sample: Float32Array, level: Level): Float32Array =>
      predictsClean
        ? model.toClean(output, sample, level)
        : toEpsilon(model.prediction as "epsilon", output, sample, level);
    const solver = { type, predictsClean } as const;
    let before: { readonly sample: Float32Array; readonly order: number } | undefined;
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noisedTo(levels[call], clean, noise),
      denoised: (output, call, sample) => model.toClean(output, sample, levels[call]),
      step(output, call, predicted) {
        const converted = convert(output, predicted, levels[call]);
        const path = (from: number, order: number): readonly Level[] =>
          Array.from({ length: order + 1 }, (_, i) => levels[from - i]);
        const isCorrected = before !== undefined && !uncorrected.has(call - 1);
        const sample = isCorrected
          ? update(solver, before!.sample, path(call, before!.order), history.outputs, converted)
          : predicted;
        history.add(converted);
        const most = model.lowerOrderFinal ? Math.min(model.order, timesteps.length - call) : model.order;
        const order = Math.min(most, history.outputs.length);
        before = { sample, order };
        return update(solver, sample, path(call + 1, order), history.outputs, undefined);
      },
    };
  };
}

/**
 * From path[1] to path[0], by the outputs at path[1], path[2], ...; with `reached`, the output at path[0], the corrector.
 */
function update(
  { type, predictsClean }: { readonly type: "bh1" | "bh2"; readonly predictsClean: boolean },
  sample: Float32Array,
  path: readonly Level[],
  outputs: readonly Float32Array[],
  reached: Float32Array | undefined,
): Float32Array {
  const [t, s0, ...earlier] = path as [Level, Level, ...Level[]];
  const order = path.length - 1;
  const h = f32(t.lambda - s0.lambda);
  // The last step of spread noise levels that end at their least: there is nothing to do.
  if (h === 0) return sample.slice();
  const hh = predictsClean ? -h : h;
  const phi = expm1(hh);
  const b = type === "bh1" ? hh : phi;
  const ratios = earlier.map(({ lambda }) => f32(f32(lambda - s0.lambda) / h));
  const slopes = ratios.map((ratio, i) => outputs[i + 1].map((value, j) => f32(value - outputs[0][j]) / ratio));
  const [own, scale, other] = predictsClean
    ? [f32(t.sigma / s0.sigma), t.alpha, f32(t.alpha * phi)]
    : [f32(t.alpha / s0.alpha), t.sigma, f32(t.sigma * phi)];
  const straight = combine([own, sample], [-other, outputs[0]]);
  if (reached) slopes.push(reached.map((value, j) => f32(value - outputs[0][j])));
  if (slopes.length === 0) return straight;

  const isShort = reached ? order === 1 : order === 2;
  const unknowns = slopes.length;
  const weights = isShort ? [0.5] : solve(...momentEquations([...ratios, 1].slice(0, unknowns), hh, phi, b));
  const residual = combine(...(slopes.map((slope, i): Term => [weights[i], slope]) as [Term, ...Term[]]));
  return combine([1, straight], [-f32(scale * b), residual]);
}

/** The conditions on the weights under which the method has its order: rows of powers of the ratios, and their values. */
function momentEquations(
  ratios: readonly number[],
  hh: number,
  phi: number,
  b: number,
): [rows: number[][], values: number[]] {
  const rows: number[][] = [];
  const values: number[] = [];
  let phiK = f32(f32(phi / hh) - 1);
  let factorial = 1;
  for (let i = 1; i <= ratios.length; i++) {
    rows.push(ratios.map((ratio) => f32(ratio ** (i - 1))));
    values.push(f32(f32(phiK * factorial) / b));
    factorial *= i + 1;
    phiK = f32(f32(phiK / hh) - f32(1 / factorial));
  }
  return [rows, values];
}

/** Gauss with partial pivoting. [n][n], [n] -> [n]. */
function solve(rows: readonly (readonly number[])[], values: readonly number[]): number[] {
  const system = rows.map((row, i) => [...row, values[i]]);
  const n = system.length;
  for (let k = 0; k < n; k++) {
    const rest = system.slice(k);
    const pivot = rest.reduce((best, row, i) => (Math.abs(row[k]) > Math.abs(rest[best][k]) ? i : best), 0) + k;
    [system[k], system[pivot]] = [system[pivot], system[k]];
    for (let i = k + 1; i < n; i++) {
      const factor = system[i][k] / system[k][k];
      for (let j = k; j <= n; j++) system[i][j] -= factor * system[k][j];
    }
  }
  const x = new Array<number>(n).fill(0);
  for (let i = n - 1; i >= 0; i--) {
    const known = x.slice(i + 1).reduce((sum, value, j) => sum + value * system[i][i + 1 + j], 0);
    x[i] = (system[i][n] - known) / system[i][i];
  }
  return x;
}

/** Of a rectified flow, shifted, and stretched to end at `terminal`; with Karras' spread, that spread's. */
function flowTimes(
  { flow, spread, spacing, table }: SolverModel,
  steps: number,
  terminal: number | undefined,
): readonly number[] | undefined {
  if (!flow || (spread.kind !== "none" && spread.kind !== "karras")) return undefined;
  if (spread.kind === "karras") {
    const ends = { first: table.at(-1)!, last: table[0] };
    return spreadSigmas({ ...spread, kind: spread.kind }, ends, steps).map((sigma) => sigma / (sigma + 1));
  }
  const shifted = linspace(1, 1 / spacing.trainTimesteps, steps + 1)
    .slice(0, -1)
    .map((sigma) => (flow.shift * sigma) / (1 + (flow.shift - 1) * sigma));
  const stretch = terminal ? (1 - shifted.at(-1)!) / (1 - terminal) : 1;
  const sigmas = shifted.map((sigma) => 1 - (1 - sigma) / stretch);
  // All noise would have no alpha to divide by.
  if (Math.abs(sigmas[0] - 1) < 1e-6) sigmas[0] -= 1e-6;
  return sigmas;
}
