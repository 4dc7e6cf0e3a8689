/** How a family of trainers names the layers of a model. */

/** The components that adapters change, by diffusers' names of their folders. */
export const COMPONENTS = ["unet", "text_encoder", "text_encoder_2"] as const;
export type Component = (typeof COMPONENTS)[number];

export interface Spelling {
  /** What a layer's name begins with, longest first, and whose layer it may then be. */
  readonly prefixes: readonly (readonly [prefix: string, components: readonly Component[]])[];
  /** Older words for a module, as diffusers says it now; where nothing is to be replaced, the same. */
  readonly modern?: (layer: string, component: Component) => string;
}
