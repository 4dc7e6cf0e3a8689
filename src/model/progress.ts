/** Bytes over all components: what their files say, or two bytes a parameter where a server does not tell. */
import type { LoadProgress } from "../base/types.ts";

export class LoadProgressSum {
  readonly #loaded: number[];
  readonly #totals: number[];
  readonly #onProgress: ((progress: LoadProgress) => void) | undefined;

  /** `estimates`: bytes of each component. */
  constructor(estimates: readonly number[], onProgress: ((progress: LoadProgress) => void) | undefined) {
    this.#totals = [...estimates];
    this.#loaded = estimates.map(() => 0);
    this.#onProgress = onProgress;
  }

  /** `loaded` bytes of component `index` have come, the last of them from `file`. */
  report(index: number, loaded: number, file: string): void {
    this.#loaded[index] = loaded;
    this.#totals[index] = Math.max(this.#totals[index], loaded);
    const [loadedBytes, totalBytes] = [sum(this.#loaded), sum(this.#totals)];
    const progress = Math.min(99, (100 * loadedBytes) / totalBytes);
    this.#onProgress?.({ status: "download", file, loadedBytes, totalBytes, progress });
  }

  /** Of `pipelines` of one component, `compiled` are. */
  compile(compiled: number, pipelines: number): void {
    const [loadedBytes, totalBytes] = [sum(this.#loaded), sum(this.#totals)];
    const progress = Math.min(99, (100 * loadedBytes) / totalBytes);
    this.#onProgress?.({ status: "compile", loadedBytes, totalBytes, progress, compiled, pipelines });
  }

  finish(): void {
    const loadedBytes = sum(this.#loaded);
    this.#onProgress?.({ status: "ready", loadedBytes, totalBytes: loadedBytes, progress: 100 });
  }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
