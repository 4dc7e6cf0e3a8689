/** The layers of a model, found by the names that adapters give them. */
import type { Weight } from "../graph/ops.ts";
import { DIFFUSERS } from "./spellings/diffusers.ts";
import { KOHYA } from "./spellings/kohya.ts";
import { sgmNames } from "./spellings/sgm.ts";
import { COMPONENTS, type Component, type Spelling } from "./spellings/spelling.ts";

/** What an adapter may change: a component's weights. */
export interface AdaptedComponent {
  readonly component: string;
  readonly weights: readonly Weight[];
}

export interface Layer {
  readonly component: Component;
  /** diffusers' module path. */
  readonly path: string;
  readonly weight: Weight | undefined;
  readonly bias: Weight | undefined;
}

const SPELLINGS: readonly Spelling[] = [KOHYA, DIFFUSERS];

export class Layers {
  /** By component, then by name with underscores for dots: some spellings do not tell one from the other. */
  readonly #byName = new Map<Component, ReadonlyMap<string, Layer>>();

  constructor(components: readonly AdaptedComponent[]) {
    for (const { component, weights } of components) {
      const known = COMPONENTS.find((each) => each === component);
      if (known) this.#byName.set(known, layersByName(known, weights));
    }
  }

  get components(): readonly Component[] {
    return [...this.#byName.keys()];
  }

  /** Whose layer a name says that it is, and the layer if the model has it; undefined for a name in no known spelling. */
  find(name: string): { readonly components: readonly Component[]; readonly layer: Layer | undefined } | undefined {
    for (const { prefixes, modern } of SPELLINGS)
      for (const [prefix, components] of prefixes) {
        if (!name.startsWith(prefix)) continue;
        for (const component of components) {
          const rest = name.slice(prefix.length);
          const layer = this.#byName.get(component)?.get(withUnderscores(modern?.(rest, component) ?? rest));
          if (layer) return { components, layer };
        }
        return { components, layer: undefined };
      }
    return undefined;
  }
}

const withUnderscores = (name: string): string => name.replaceAll(".", "_");

function layersByName(component: Component, weights: readonly Weight[]): ReadonlyMap<string, Layer> {
  const byPath = new Map<string, { weight?: Weight; bias?: Weight; aliases: readonly string[] }>();
  for (const weight of weights) {
    const [, path, kind] = /^(.+)\.(weight|bias)$/.exec(weight.name) ?? [];
    if (path === undefined || weight.derivedFrom !== undefined) continue;
    const aliases = (weight.aliases ?? []).map((alias) => alias.replace(/\.(weight|bias)$/, ""));
    byPath.set(path, { ...(byPath.get(path) ?? { aliases }), [kind as "weight" | "bias"]: weight });
  }
  const layers = new Map<string, Layer>();
  const sgm = component === "unet" ? sgmNames([...byPath.keys()]) : new Map<string, string>();
  for (const [path, { weight, bias, aliases }] of byPath)
    for (const name of [path, ...aliases, ...(sgm.has(path) ? [sgm.get(path)!] : [])])
      layers.set(withUnderscores(name), { component, path, weight, bias });
  return layers;
}
