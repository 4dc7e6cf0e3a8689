/** How far a long command is, and when it will be done: a bar on a terminal, a line now and then in a log. */
import { progressLine } from "./progress.ts";

export interface ProgressBar {
  /**
   * `done` of `total`, fractions allowed; a first call says where the run begins. `share`: of the whole work, where some
   * of the units take longer than others.
   */
  show(done: number, total: number, share?: number): void;
  end(): void;
}

/** Milliseconds between two drawings on a terminal, and between two lines in a log. */
const DRAW_MS = 100;
const LOG_MS = 30_000;
const WIDTH = 24;

/** `what` is done, in `units`: "calibrate" and "prompts". */
export function progressBar(what: string, units: string): ProgressBar {
  const line = progressLine();
  const interval = process.stderr.isTTY ? DRAW_MS : LOG_MS;
  let begin: { at: number; share: number } | undefined;
  let shown = performance.now() - (process.stderr.isTTY ? interval : 0);
  return {
    show(done, total, share = done / total) {
      const now = performance.now();
      begin ??= { at: now, share };
      if (now - shown < interval) return;
      shown = now;
      const left = remaining(now - begin.at, share - begin.share, 1 - share);
      const text = `${what} ${describeProgress(done, total, units, left)}`;
      if (process.stderr.isTTY) line.show(text);
      else console.error(text);
    },
    end: () => line.end(),
  };
}

/** Milliseconds for what is left at the speed so far, or undefined where nothing tells. */
export function remaining(elapsedMs: number, done: number, left: number): number | undefined {
  return done > 0 && elapsedMs > 0 ? (elapsedMs * left) / done : undefined;
}

/** "[######------------------] 25 %, 8 of 32 prompts, 1 min 20 s left". */
export function describeProgress(done: number, total: number, units: string, leftMs: number | undefined): string {
  const share = total > 0 ? Math.min(1, done / total) : 1;
  const filled = Math.floor(share * WIDTH);
  const bar = "#".repeat(filled) + "-".repeat(WIDTH - filled);
  const count = `${Math.floor(done).toLocaleString("en")} of ${total.toLocaleString("en")} ${units}`;
  const left = leftMs === undefined ? "" : `, ${describeDuration(leftMs)} left`;
  return `[${bar}] ${Math.floor(100 * share)} %, ${count}${left}`;
}

/** "9 s", "1 min 20 s", "2 h 5 min". */
export function describeDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
