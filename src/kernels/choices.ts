/** The choices that need no measuring. */
import type { DeviceFacts, Family, KernelChoice } from "./kernel.ts";
import { ATTENTION_VARIANTS } from "./attention.ts";
import { FLOAT_VARIANTS, INT8_VARIANTS } from "./gemm/variants.ts";
import { REDUCTION_VARIANTS } from "./norm.ts";
import { runsOn, type Variant } from "./variant.ts";

/**
 * What software adapters run, and what `--kernels direct` asks for: they emulate workgroup memory and barriers on a CPU,
 * and take seconds to compile the tiled kernels.
 */
export const SIMPLE: KernelChoice = {
  float: "direct",
  floatFewRows: "direct",
  int8: "direct",
  int8FewRows: "direct",
  attention: "direct",
  reduction: "narrow",
  overrides: "uniform",
};

/** What `--kernels tiled` asks for: everything as a GPU has it. */
export const TILED: KernelChoice = {
  float: "tiled",
  floatFewRows: "tiled",
  int8: "tiled",
  int8FewRows: "tiled",
  attention: "tiled",
  reduction: "wide",
  overrides: "constants",
};

const VARIANTS: Readonly<Record<Family, readonly Pick<Variant<never>, "name" | "needs">[]>> = {
  float: FLOAT_VARIANTS,
  floatFewRows: FLOAT_VARIANTS,
  int8: INT8_VARIANTS,
  int8FewRows: INT8_VARIANTS,
  attention: ATTENTION_VARIANTS,
  reduction: REDUCTION_VARIANTS,
};

/** The names of a family's variants that a device with these facts can run. */
export const variantNames = (family: Family, facts: DeviceFacts): readonly string[] =>
  VARIANTS[family].filter((variant) => runsOn(variant, facts)).map(({ name }) => name);
