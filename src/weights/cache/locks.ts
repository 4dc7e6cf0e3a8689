/** Who may write or delete what, among all tabs of an origin: Web Locks, and turns within this program where there are none. */
import { MixdqError, throwIfAborted } from "../../base/errors.ts";

export type Release = () => void;

/** Waits for a lock. Throws `aborted`. */
export async function hold(name: string, mode: LockMode, signal?: AbortSignal): Promise<Release> {
  throwIfAborted(signal);
  return (await request(`mixdq-cache ${name}`, mode, false, signal))!;
}

/** Alone or not at all. */
export function holdIfFree(name: string): Promise<Release | undefined> {
  return request(`mixdq-cache ${name}`, "exclusive", true, undefined);
}

function request(
  name: string,
  mode: LockMode,
  ifAvailable: boolean,
  signal?: AbortSignal,
): Promise<Release | undefined> {
  const locks = (globalThis.navigator as Navigator | undefined)?.locks as LockManager | undefined;
  return new Promise((resolve, reject) => {
    const use = (lock: Lock | null): Promise<void> | undefined => {
      if (!lock) return void resolve(undefined);
      return new Promise((release) => resolve(release));
    };
    const options = { mode, ifAvailable, ...(signal && !ifAvailable && { signal }) };
    (locks ?? inThisProgram).request(name, options, use).catch((error: unknown) => {
      reject(signal?.aborted ? new MixdqError("aborted", "The run was cancelled.") : error);
    });
  });
}

/** Node 20 has no navigator.locks, nor have pages without https: then there is no other tab's storage either. */
const inThisProgram = {
  held: new Map<string, { readonly mode: LockMode; readonly end: Promise<void> }[]>(),
  async request(
    name: string,
    { mode, ifAvailable, signal }: { mode: LockMode; ifAvailable: boolean; signal?: AbortSignal },
    use: (lock: Lock | null) => Promise<void> | undefined,
  ): Promise<void> {
    for (;;) {
      throwIfAborted(signal);
      const others = this.held.get(name) ?? [];
      const isFree = others.every((other) => mode === "shared" && other.mode === "shared");
      if (isFree) break;
      if (ifAvailable) return void use(null);
      await Promise.race(others.map(({ end }) => end));
    }
    const end = Promise.resolve(use({ name, mode }));
    const own = { mode, end };
    this.held.set(name, [...(this.held.get(name) ?? []), own]);
    await end;
    const left = this.held.get(name)!.filter((each) => each !== own);
    if (left.length > 0) this.held.set(name, left);
    else this.held.delete(name);
  },
};
