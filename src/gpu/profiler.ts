/** Milliseconds per dispatch: by GPU timestamps where the device has them, else by wall clock, one submit each. */
import type { GpuContext } from "./context.ts";
import { record, submitAlone, type Encoded } from "./submit.ts";

export interface ProfileRow {
  readonly path: string;
  readonly kind: string;
  readonly shader: string;
  readonly work: number;
  readonly ms: number;
}

export class Profiler {
  readonly #context: GpuContext;

  constructor(context: GpuContext) {
    this.#context = context;
  }

  async run(encoded: readonly Encoded[], aborted: Promise<never>): Promise<ProfileRow[]> {
    const times = this.#context.gpu.timestamps
      ? await Promise.race([this.#byTimestamps(encoded), aborted])
      : await this.#byClock(encoded, aborted);
    return encoded.map(({ dispatch: { path, kind, shader, work } }, i) => ({
      path,
      kind,
      shader,
      work,
      ms: times[i],
    }));
  }

  async #byTimestamps(encoded: readonly Encoded[]): Promise<number[]> {
    const times: number[] = [];
    // A query set holds at most 4096 queries: two per dispatch.
    for (let first = 0; first < encoded.length; first += 2048) {
      times.push(...(await this.#timed(encoded.slice(first, first + 2048))));
    }
    return times;
  }

  async #timed(part: readonly Encoded[]): Promise<number[]> {
    const { device } = this.#context;
    const querySet = device.createQuerySet({ type: "timestamp", count: 2 * part.length });
    const size = 16 * part.length;
    const resolved = device.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    const staging = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    try {
      const commands = device.createCommandEncoder();
      part.forEach((encoded, i) => {
        const pass = commands.beginComputePass({
          label: encoded.dispatch.path,
          timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 },
        });
        record(pass, encoded);
        pass.end();
      });
      commands.resolveQuerySet(querySet, 0, 2 * part.length, resolved, 0);
      commands.copyBufferToBuffer(resolved, 0, staging, 0, size);
      device.queue.submit([commands.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const stamps = new BigInt64Array(staging.getMappedRange());
      return part.map((_, i) => Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6);
    } finally {
      for (const thing of [querySet, resolved, staging]) thing.destroy();
    }
  }

  async #byClock(encoded: readonly Encoded[], aborted: Promise<never>): Promise<number[]> {
    const { device } = this.#context;
    const times: number[] = [];
    for (const one of encoded) {
      const started = performance.now();
      submitAlone(device, one);
      await Promise.race([device.queue.onSubmittedWorkDone(), aborted]);
      times.push(performance.now() - started);
    }
    return times;
  }
}

/** Sums rows by a key, slowest first: `kind`, `shader` or anything else about a row. */
export function summarize(
  rows: readonly ProfileRow[],
  key: (row: ProfileRow) => string,
): { key: string; count: number; ms: number; work: number }[] {
  const sums = new Map<string, { key: string; count: number; ms: number; work: number }>();
  for (const row of rows) {
    const sum = sums.get(key(row)) ?? { key: key(row), count: 0, ms: 0, work: 0 };
    sum.count++;
    sum.ms += row.ms;
    sum.work += row.work;
    sums.set(sum.key, sum);
  }
  return [...sums.values()].sort((a, b) => b.ms - a.ms);
}
