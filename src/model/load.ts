/** Loads a model onto a runtime: the components' weights stream in one after the other while pipelines compile. */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { LoadProgressSum } from "./progress.ts";
import { elementCount } from "../graph/ops.ts";
import type { MixdqConfig } from "../quant/config.ts";
import type { LoadOptions, Network, Runtime } from "../runtime/network.ts";
import type { LoadProgress, Precision } from "../base/types.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findComponent } from "../weights/folder.ts";
import type { Pack } from "../weights/pack.ts";
import type { ModelDescription } from "./description.ts";
import { ModelGraphs, type ComponentGraphs } from "./graphs.ts";
import { LoadedModel } from "./loaded.ts";
import { bosOfPack } from "./quantization.ts";
import { encodePrompt, LoadedTextEncoder } from "./text.ts";
import type { LoadEncoder } from "./vae.ts";

export interface LoadModelOptions {
  readonly files: ModelFiles;
  readonly precision: Precision;
  /** Which layers of the UNet run in integers. */
  readonly config?: MixdqConfig | undefined;
  /** Where the weights come from instead of the files. */
  readonly pack?: Pack | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
}

/**
 * The model owns the runtime from then on; where loading fails, the runtime is still the caller's. Throws what reading
 * the files throws, `unsupported`, `out-of-memory`, `device-lost`, `aborted`.
 */
export async function loadModel(
  description: ModelDescription,
  runtime: Runtime,
  { files, pack, precision, config, signal, onProgress }: LoadModelOptions,
): Promise<LoadedModel> {
  const graphs = new ModelGraphs(description, precision, config);
  const components = graphs.components();
  // Found for all before the first is read: a component without weights must not cost the download of the others.
  const weights = await Promise.all(
    components.map(
      ({ component }) => pack?.component(component) ?? findComponent(files, component, { precision, signal }),
    ),
  );
  const progress = new LoadProgressSum(
    weights.map(({ bytes }, i) => bytes || 2 * parameters(components[i])),
    onProgress,
  );
  const networks: Network[] = [];
  // A pack says what its cache was computed from; here it only has to be the same.
  let bos = pack && bosOfPack(pack, config, description.unet.crossAttentionDim);
  try {
    for (const [i, component] of components.entries()) {
      // The text encoders are there by now: what they make of the first token is the same for every prompt.
      if (component.component === "unet" && config?.bos)
        bos ??= [await firstToken(description, graphs, networks, signal)];
      const hooks: Pick<LoadOptions, "onBytes" | "onPipeline"> = {
        onBytes: (loaded, file) => progress.report(i, loaded, file),
        onPipeline: (compiled, pipelines) => progress.compile(compiled, pipelines),
      };
      networks.push(await runtime.load({ ...component, weights: weights[i], bos, signal, ...hooks }));
    }
    throwIfAborted(signal); // between the last byte and here
  } catch (error) {
    for (const network of networks) await network.dispose();
    throw error;
  }
  progress.finish();
  const [unet, vae] = networks.splice(-2) as [Network, Network];
  const loadEncoder = encoderLoader(graphs, runtime, { files, pack, precision, onProgress });
  const loaded = { text: networks, unet, vae, loadEncoder };
  return new LoadedModel(description, precision, runtime, graphs, loaded, { bos, progress });
}

/** The VAE's encoder from where everything else came, when the first picture from a picture asks for it. */
function encoderLoader(
  graphs: ModelGraphs,
  runtime: Runtime,
  { files, pack, precision, onProgress }: Pick<LoadModelOptions, "files" | "pack" | "precision" | "onProgress">,
): LoadEncoder {
  return async (signal) => {
    const component = graphs.encoderComponent();
    const name = component.component;
    if (pack && !pack.manifest.components.has(name))
      throw new MixdqError(
        "unsupported",
        `${files.location}: the pack has no encoder for pictures (${name}). Write it again of a model whose VAE has one, or start from text.`,
      );
    const weights = pack?.component(name) ?? (await findComponent(files, name, { precision, signal }));
    const progress = new LoadProgressSum([weights.bytes || 2 * parameters(component)], onProgress);
    const network = await runtime.load({
      ...component,
      weights,
      signal,
      onBytes: (loaded, file) => progress.report(0, loaded, file),
      onPipeline: (compiled, pipelines) => progress.compile(compiled, pipelines),
    });
    progress.finish();
    return network;
  };
}

const parameters = ({ graphs }: ComponentGraphs): number =>
  graphs[0].build().weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);

/** The text encoders alone, for what they make of the BOS token: what a BOS cache is computed from, [channels]. */
export async function loadFirstToken(
  description: ModelDescription,
  runtime: Runtime,
  { files, precision, signal }: LoadModelOptions,
): Promise<Float32Array> {
  const graphs = new ModelGraphs(description, precision, undefined);
  const networks: Network[] = [];
  try {
    for (const component of graphs.textComponents()) {
      const weights = await findComponent(files, component.component, { precision, signal });
      networks.push(await runtime.load({ ...component, weights, signal }));
    }
    return await firstToken(description, graphs, networks, signal);
  } finally {
    for (const network of networks) await network.dispose();
  }
}

async function firstToken(
  description: ModelDescription,
  graphs: ModelGraphs,
  text: readonly Network[],
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const encoders = description.textEncoders.map(
    (encoder, i) => new LoadedTextEncoder(encoder, graphs.text(i), text[i]),
  );
  const { hidden } = await encodePrompt(encoders, description, "", { signal, warnings: [] });
  return hidden.slice(0, description.unet.crossAttentionDim);
}
