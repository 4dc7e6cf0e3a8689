/** What a GPU adapter is called, and whether it is a GPU at all. */

/** vendor, architecture, device and description, as far as the browser tells; each once. */
export function adapterName({
  vendor,
  architecture,
  device,
  description,
}: Pick<GPUAdapterInfo, "vendor" | "architecture" | "device" | "description">): string {
  const words = new Set([vendor, architecture, device, description].filter(Boolean));
  return [...words].join(" ") || "unnamed adapter";
}

/**
 * Software adapters are known by name (Chromium's, Mesa's and Windows' own): CPUs that act as a GPU, slow at what GPUs are
 * fast at (workgroup memory, barriers) and slow to compile it.
 */
export function isSoftware(adapter: string): boolean {
  return /swiftshader|llvmpipe|lavapipe|basic render|\bwarp\b|software|\bcpu\b/i.test(adapter);
}
