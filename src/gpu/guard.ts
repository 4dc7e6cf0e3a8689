/**
 * What goes wrong on a device, each as one typed error: it was lost, its memory ran out, it refused the work. GPU calls
 * report none of that by themselves: they leave errors in scopes, and when the GPU's process dies they fail in whatever
 * way each of them does, some of them before `device.lost` tells.
 */
import { MixdqError } from "../base/errors.ts";

/** How long after a call has failed without a type `device.lost` is waited for: both are messages of one dead process. */
const LOST_MS = 1000;

interface Life {
  lost: MixdqError | undefined;
  /** Told once, when it is lost. A promise to race against would keep every result of every race. */
  readonly listeners: Set<(error: MixdqError) => void>;
}

const lives = new WeakMap<GPUDevice, Life>();

function lifeOf(device: GPUDevice): Life {
  const known = lives.get(device);
  if (known) return known;
  const life: Life = { lost: undefined, listeners: new Set() };
  lives.set(device, life);
  void device.lost.then(({ reason, message }) => {
    life.lost = new MixdqError(
      "device-lost",
      `The GPU device was lost (${reason}): ${oneLine(message).replace(/\.$/, "") || "no reason given"}. Create the engine again; if it happens again, ` +
        "use a smaller size, or reload the page.",
    );
    for (const listener of [...life.listeners]) listener(life.lost);
  });
  return life;
}

/** Throws `device-lost` once the device is gone: nothing it returns can be trusted any more. */
export function assertAlive(device: GPUDevice): void {
  const { lost } = lifeOf(device);
  if (lost) throw lost;
}

/** The work's result, or `device-lost` as soon as that is known: some calls on a lost device never settle. */
export function unlessLost<T>(device: GPUDevice, work: Promise<T>): Promise<T> {
  const { lost, listeners } = lifeOf(device);
  if (lost) {
    work.catch(() => {});
    return Promise.reject(lost);
  }
  return new Promise<T>((resolve, reject) => {
    listeners.add(reject);
    work.then(resolve, reject).finally(() => listeners.delete(reject));
  });
}

/** What a failure on this device really was: an untyped one is the first sign of a lost device, or a fault of ours. */
export async function failureOn(device: GPUDevice, error: unknown): Promise<unknown> {
  const life = lifeOf(device);
  if (life.lost) return life.lost;
  if (error instanceof MixdqError) return error;
  let stop = (): void => {};
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, LOST_MS);
    const listener = (): void => resolve();
    life.listeners.add(listener);
    stop = () => {
      clearTimeout(timer);
      life.listeners.delete(listener);
    };
  });
  stop();
  return life.lost ?? error;
}

/**
 * Work that takes GPU calls and waits for them, within error scopes; validation errors must never pass silently, they
 * make black pictures. Scopes are a stack of the device's: one such work at a time, within it only `scoped`.
 * Throws `device-lost`, `out-of-memory`, `unsupported` where the GPU refused the work, else what the work throws.
 */
export async function guarded<T>(device: GPUDevice, what: string, work: () => T | Promise<T>): Promise<T> {
  assertAlive(device);
  openScopes(device);
  let result: T | undefined;
  let thrown: unknown;
  try {
    result = await unlessLost(device, Promise.resolve(work()));
  } catch (error) {
    thrown = error;
  }
  try {
    await closeScopes(device, what);
  } catch (error) {
    throw await failureOn(device, error);
  }
  if (thrown !== undefined) throw await failureOn(device, thrown);
  return result as T;
}

/** Calls that wait for nothing, within scopes that are closed again when it returns; `checked` rejects as `guarded` does. */
export function scoped<T>(device: GPUDevice, what: string, work: () => T): { result: T; checked: Promise<void> } {
  openScopes(device);
  let checked: Promise<void> | undefined;
  try {
    const result = work();
    return { result, checked: (checked = closeScopes(device, what)) };
  } finally {
    checked ??= closeScopes(device, what);
    checked.catch(() => {}); // it is for whoever waits, and the work may have thrown
  }
}

/** Buffers that are really there. Throws as `guarded`; then none of them is left. */
export async function allocate(
  device: GPUDevice,
  what: string,
  descriptors: readonly GPUBufferDescriptor[],
): Promise<GPUBuffer[]> {
  assertAlive(device);
  const buffers: GPUBuffer[] = [];
  try {
    await scoped(device, what, () => {
      for (const descriptor of descriptors) buffers.push(device.createBuffer(descriptor));
    }).checked;
    return buffers;
  } catch (error) {
    for (const buffer of buffers) buffer.destroy();
    throw await failureOn(device, asMemory(error, what));
  }
}

/** createBuffer throws a RangeError where not even the address space is left. */
function asMemory(error: unknown, what: string): unknown {
  return error instanceof RangeError ? outOfMemory(what, error.message) : error;
}

function openScopes(device: GPUDevice): void {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
}

async function closeScopes(device: GPUDevice, what: string): Promise<void> {
  const [memory, validation] = await unlessLost(device, Promise.all([device.popErrorScope(), device.popErrorScope()]));
  if (memory) throw outOfMemory(what, memory.message);
  if (validation)
    throw new MixdqError("unsupported", `${what}: the GPU refused the work: ${oneLine(validation.message)}`);
}

function outOfMemory(what: string, why: string): MixdqError {
  return new MixdqError(
    "out-of-memory",
    `${what}: the GPU has not enough memory (${oneLine(why)}). Close other tabs, or use a smaller size or precision.`,
  );
}

/** Dawn explains over several lines. */
function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, "; ");
}
