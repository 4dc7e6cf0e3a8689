/**
 * Put before the engine's worker, and into the page: counts devices and buffers that live, and makes an allocation fail
 * when told. Plain JavaScript: it is not built.
 */
{
  const live = { devices: 0, buffers: new Set(), bytes: 0, calls: 0, failing: undefined };
  self.gpuLive = {
    get counts() {
      return { devices: live.devices, buffers: live.buffers.size, bytes: live.bytes };
    },
    /** Buffers whose label has this in it find no memory, until told otherwise. */
    fail: (text) => void (live.failing = text),
  };
  if (self.GPUAdapter) {
    const requestDevice = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (descriptor) {
      const device = await requestDevice.call(this, descriptor);
      live.devices++;
      void device.lost.then(() => {
        live.devices--;
        for (const buffer of [...live.buffers]) if (buffer.of === device) forget(buffer);
      });
      return device;
    };
    const forget = (entry) => {
      if (live.buffers.delete(entry)) live.bytes -= entry.size;
    };
    const entries = new WeakMap();
    const scopes = new WeakMap();
    const createBuffer = GPUDevice.prototype.createBuffer;
    const { pushErrorScope, popErrorScope } = GPUDevice.prototype;
    GPUDevice.prototype.pushErrorScope = function (filter) {
      if (!scopes.has(this)) scopes.set(this, []);
      scopes.get(this).push({ filter });
      return pushErrorScope.call(this, filter);
    };
    GPUDevice.prototype.popErrorScope = async function () {
      const { message } = scopes.get(this).pop();
      const error = await popErrorScope.call(this);
      return message === undefined ? error : { message };
    };
    GPUDevice.prototype.createBuffer = function (descriptor) {
      if (live.failing !== undefined && descriptor.label?.includes(live.failing)) {
        const scope = scopes.get(this)?.findLast(({ filter }) => filter === "out-of-memory");
        if (!scope) throw new Error(`${descriptor.label} was allocated outside of any error scope`);
        scope.message = `no memory for ${descriptor.label}`;
        pushErrorScope.call(this, "validation");
        const invalid = createBuffer.call(this, { ...descriptor, usage: 0 });
        void popErrorScope.call(this);
        return invalid;
      }
      const buffer = createBuffer.call(this, descriptor);
      const entry = { of: this, size: descriptor.size };
      entries.set(buffer, entry);
      live.buffers.add(entry);
      live.bytes += descriptor.size;
      return buffer;
    };
    const destroy = GPUBuffer.prototype.destroy;
    GPUBuffer.prototype.destroy = function () {
      if (entries.has(this)) forget(entries.get(this));
      return destroy.call(this);
    };
  }
}
