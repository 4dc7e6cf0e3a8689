/**
 * A GPU in Node that counts what its devices do, and fails when told: out of memory at a certain allocation, a process
 * that dies at a certain call, drivers that compile slowly. Failures look as they do in a browser: an error in the
 * innermost scope and an object that is no good; calls that reject without a type, and `lost` a little later.
 */
type Call =
  "createBuffer" | "writeBuffer" | "submit" | "compile" | "mapAsync" | "popErrorScope" | "onSubmittedWorkDone";

export class FaultyGpu {
  /** To be given as `gpu`, or as navigator.gpu. */
  readonly gpu: GPU;
  /** Calls since `reset`. */
  calls = 0;
  /** Buffers and uploads since `reset`. */
  allocations = 0;
  /** Which of them, from 0, finds no memory. */
  failingAllocation = -1;
  /** What that one was for, once it was asked for. */
  failed: string | undefined;
  /** Is told of every call, with its number from 1. */
  onCall: (call: Call, n: number) => void = () => {};
  /** Every compilation takes so long. */
  compileMs = 0;
  readonly #devices: Watched[] = [];

  constructor(real: GPU) {
    const requestAdapter: GPU["requestAdapter"] = async (options) => {
      const adapter = (await real.requestAdapter(options))!;
      const requestDevice = adapter.requestDevice.bind(adapter);
      adapter.requestDevice = async (descriptor) => {
        const device = await requestDevice(descriptor);
        this.#devices.push(new Watched(this, device));
        return device;
      };
      return adapter;
    };
    this.gpu = {
      requestAdapter,
      get wgslLanguageFeatures() {
        return real.wgslLanguageFeatures;
      },
    } as GPU;
  }

  reset(): void {
    const onCall = (): void => {};
    Object.assign(this, { calls: 0, allocations: 0, failingAllocation: -1, failed: undefined, compileMs: 0, onCall });
  }

  /** Devices that were made and not destroyed. */
  get liveDevices(): number {
    return this.#devices.filter(({ isOver }) => !isOver).length;
  }

  /** Labels of buffers of live devices that were not destroyed. */
  get liveBuffers(): string[] {
    return this.#devices.flatMap(({ isOver, buffers }) => (isOver ? [] : [...buffers.values()]));
  }

  /** The process of all live devices dies; `lost` says so `afterMs` later, when calls have failed already. */
  crash(afterMs = 30): void {
    for (const device of this.#devices) device.crash(afterMs);
  }
}

class Watched {
  isOver = false;
  readonly buffers = new Map<GPUBuffer, string>();
  readonly #of: FaultyGpu;
  readonly #device: GPUDevice;
  /** Of each error scope the message of an error that we made. */
  readonly #scopes: { filter: GPUErrorFilter; message?: string }[] = [];
  #isDead = false;
  #tellLost = (_: GPUDeviceLostInfo): void => {};

  constructor(of: FaultyGpu, device: GPUDevice) {
    this.#of = of;
    this.#device = device;
    const lost = new Promise<GPUDeviceLostInfo>((resolve) => (this.#tellLost = resolve));
    void device.lost.then((info) => {
      this.isOver = true;
      if (!this.#isDead) this.#tellLost(info);
    });
    Object.defineProperty(device, "lost", { get: () => lost });
    this.#watchScopes();
    this.#watchBuffers();
    const { queue } = device;
    const [submit, done] = [queue.submit.bind(queue), queue.onSubmittedWorkDone.bind(queue)];
    const write = queue.writeBuffer.bind(queue) as (...args: unknown[]) => undefined;
    queue.writeBuffer = (...args: unknown[]) => {
      this.#call("writeBuffer");
      if (!this.#hasMemory(`a copy for ${(args[0] as GPUBuffer).label}`)) return;
      return write(...args);
    };
    queue.submit = (commands) => {
      this.#call("submit");
      return submit(commands);
    };
    queue.onSubmittedWorkDone = () => this.#promised("onSubmittedWorkDone", () => done());
    Object.defineProperty(device, "queue", { get: () => queue });
    const compile = device.createComputePipelineAsync.bind(device);
    device.createComputePipelineAsync = (descriptor) =>
      this.#promised("compile", async () => {
        if (of.compileMs > 0) await new Promise((resolve) => setTimeout(resolve, of.compileMs));
        return compile(descriptor);
      });
  }

  crash(afterMs: number): void {
    if (this.#isDead || this.isOver) return;
    this.#isDead = true;
    setTimeout(() => {
      this.isOver = true;
      this.#tellLost({ reason: "unknown", message: "The GPU process died." } as GPUDeviceLostInfo);
      this.#device.destroy();
    }, afterMs);
  }

  #watchScopes(): void {
    const device = this.#device;
    const [push, pop] = [device.pushErrorScope.bind(device), device.popErrorScope.bind(device)];
    device.pushErrorScope = (filter) => {
      this.#scopes.push({ filter });
      return push(filter);
    };
    device.popErrorScope = () => {
      const message = this.#scopes.pop()?.message;
      return this.#promised("popErrorScope", async () => {
        const error = await pop();
        return message === undefined ? error : ({ message } as GPUError);
      });
    };
  }

  #watchBuffers(): void {
    const device = this.#device;
    const create = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      this.#call("createBuffer");
      const label = descriptor.label ?? "a buffer";
      if (!this.#hasMemory(label)) return this.#invalid(() => create({ ...descriptor, usage: 0 }));
      const buffer = create(descriptor);
      this.buffers.set(buffer, label);
      const [destroy, map] = [buffer.destroy.bind(buffer), buffer.mapAsync.bind(buffer)];
      buffer.destroy = () => {
        this.buffers.delete(buffer);
        return destroy();
      };
      buffer.mapAsync = (mode) => this.#promised("mapAsync", () => map(mode));
      return buffer;
    };
  }

  /** What a call returns that found no memory: an object that every use of is a validation error. */
  #invalid<T>(make: () => T): T {
    this.#device.pushErrorScope("validation");
    const result = make();
    void this.#device.popErrorScope();
    return result;
  }

  #hasMemory(what: string): boolean {
    if (this.#of.allocations++ !== this.#of.failingAllocation) return true;
    const scope = this.#scopes.findLast(({ filter }) => filter === "out-of-memory");
    if (!scope) throw new Error(`${what} was allocated outside of any error scope`);
    scope.message = `no memory for ${(this.#of.failed = what)}`;
    return false;
  }

  #call(call: Call): void {
    this.#of.onCall(call, ++this.#of.calls);
  }

  async #promised<T>(call: Call, work: () => Promise<T>): Promise<T> {
    this.#call(call);
    const die = (): never => {
      throw new DOMException("The instance was dropped.", "OperationError");
    };
    if (this.#isDead) die();
    const result = await work();
    return this.#isDead ? die() : result;
  }
}
