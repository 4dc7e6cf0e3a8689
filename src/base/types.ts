/**
 * The types of the public API: what the pipeline, the worker, the page and an embedding app all agree on.
 * Names follow diffusers (in camelCase) and transformers.js' options. Nothing here exists at run time.
 */
import type { Seed } from "./seed.ts";

export type { Seed } from "./seed.ts";

/**
 * fp32: f32 weights and arithmetic. fp16: f16 storage, f32 accumulation. w8a8 and w4a8: the UNet's layers in integers, 8
 * or 4 bits a weight and 8 an activation, as a bit-width configuration says layer by layer; fp16 elsewhere.
 */
export type Precision = "fp32" | "fp16" | "w8a8" | "w4a8";

/** webgpu: our kernels. ort-*: the same graphs on onnxruntime-web's WebGPU or WebAssembly provider. */
export type Backend = "webgpu" | "ort-webgpu" | "ort-wasm";

/**
 * What is happening while a model loads, and before a picture of another size: config (reading the description), download
 * (weights), compile (the driver makes programs of the kernels), ready. `progress` is 0..100 over all bytes, as
 * transformers.js has it.
 */
export interface LoadProgress {
  /** The phase; download and compile come in turns, part by part of the model. */
  readonly status: "config" | "download" | "compile" | "ready";
  /** With download: the file being read, relative to the model. */
  readonly file?: string;
  /** Bytes of weights read so far, of all parts of the model together. */
  readonly loadedBytes: number;
  /** Bytes of weights of all parts, 2 a parameter where the server does not tell; 0 while unknown. */
  readonly totalBytes: number;
  /** Percent, 0..100, by bytes; 100 only with ready. */
  readonly progress: number;
  /** With compile: so many of `pipelines` of one part of the model are compiled. */
  readonly compiled?: number;
  /** With compile: the GPU pipelines that the part needs. */
  readonly pipelines?: number;
}

/** What `createEngine` takes: which model, in which numbers, on what. An unknown name is refused with the right one's. */
export interface EngineOptions {
  /** URL of a diffusers folder (or of a Hugging Face `resolve/<revision>` folder), or of a pack. */
  model: string;
  /** Default: fp16; of a pack, what it was made for (fp16 and fp32 it cannot do). */
  precision?: Precision;
  /**
   * URL of a bit-width configuration (mixdq.json). Default for w8a8 and w4a8: mixdq.w8a8.json or mixdq.w4a8.json of the
   * model. With fp16 or fp32, that is how layers run that the configuration does not name.
   */
  config?: string;
  /** Default: webgpu. */
  backend?: Backend;
  /** Hears of loading, and of compiling before a picture of another size. */
  onProgress?: (progress: LoadProgress) => void;
  /** Ends loading with `aborted`, within 250 ms. Pictures have signals of their own. */
  signal?: AbortSignal;
  /**
   * Milliseconds without a byte from the server after which loading ends with `network`. Default: 60,000. Half of it into
   * the silence the file is asked for anew, from where it stopped.
   */
  stallMs?: number;
  /** false runs on the calling thread. Default: true where Worker exists. */
  worker?: boolean;
  /**
   * URL of a copy of the package's lib/worker.js on the page's own origin. Default: the file that the bundler emits, else
   * the copy within the package, which a Content-Security-Policy without `worker-src blob:` refuses.
   */
  workerUrl?: string;
  /**
   * URL of the folder with onnxruntime-web's modules (its `dist`), which the built package does not carry; for the ort-*
   * backends in a browser.
   */
  ortUrl?: string;
  /** What is printed to the console. 0: nothing; 1: choices and times; 2: kernel by kernel; 3: every tensor. Default: 0. */
  debug?: number;
}

/** A picture as bytes, as ImageData has them: red, green, blue and alpha of each pixel, row by row from the top. */
export interface PixelData {
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  /** width * height * 4 bytes. */
  readonly data: Uint8ClampedArray | Uint8Array;
}

/**
 * A picture that a request brings along: pixels, a PNG file's bytes, an address, and in a browser whatever it decodes (PNG,
 * JPEG, WebP) or draws (a canvas, a video frame). Turned upright as its camera says; alpha is dropped.
 */
export type ImageInput = PixelData | Blob | ArrayBuffer | Uint8Array | URL | string | CanvasImageSource;

/** A request for a picture. Names and defaults are those of diffusers' pipelines. */
export interface GenerateOptions {
  /** What the picture shows. CLIP reads 77 tokens; what does not fit is cut off and told in the image's `warnings`. */
  prompt: string;
  /**
   * The picture to begin with, resized to width and height (Lanczos). Default of these: its own, rounded down to a multiple
   * of the VAE's scale. The seed then gives the encoder's sample first, the noise that is added second, as diffusers'
   * pipelines do.
   */
  image?: ImageInput;
  /**
   * How much of the picture is given up, above 0 up to 1: so large a part of the steps is taken. Default: 0.8, SDXL 0.3;
   * with a mask 1, SDXL 0.9999; as diffusers' pipelines. Where no number of steps is given, there are enough for one.
   */
  strength?: number;
  /** White where the picture is repainted, black where it is kept; of the picture's size. */
  mask?: ImageInput;
  /** With a mask: what is black in it stays as it is in the picture, byte for byte, instead of as the VAE gives it back. */
  keepUnmasked?: boolean;
  /**
   * With a mask: only its surroundings, so many pixels wider, are drawn, at full width and height, and laid over the picture
   * (diffusers' padding_mask_crop). The result has the picture's own size.
   */
  maskPadding?: number;
  /** Of models that edit pictures as told (InstructPix2Pix): how much the picture counts, from 1 on. Default 1.5. */
  imageGuidanceScale?: number;
  /** What the picture does not show. Used where `guidanceScale` is above 1; default: empty, zeros in SDXL. */
  negativePrompt?: string;
  /**
   * Any 64-bit seed that PyTorch takes, -2^63 .. 2^64 - 1, beyond 2^53 as a bigint or as text; the start noise equals
   * torch.Generator("cpu").manual_seed(seed). Default: random.
   */
  seed?: Seed | string;
  /**
   * Default: 1 for a model whose scheduler has `timestep_spacing: trailing` (Turbo), 4 for LCM, TCD and PeRFlow, else 50, as
   * diffusers' pipelines.
   */
  numInferenceSteps?: number;
  /** The timesteps themselves instead of a number of steps, noisiest first, where the scheduler takes them. */
  timesteps?: readonly number[];
  /**
   * Another scheduler class of diffusers' (such as "DDIMScheduler"), made of the model's scheduler config as diffusers'
   * `from_config` makes it. Default: the model's own.
   */
  scheduler?: string;
  /** How much noise DDIM and TCD put back at each step, 0..1. Default 0. */
  eta?: number;
  /**
   * Classifier-free guidance above 1. Default: 0, none, for models distilled to few steps (as above), 8.5 where the UNet has a
   * guidance embedding (LCM), else 7.5, SDXL 5, as diffusers' pipelines.
   */
  guidanceScale?: number;
  /** How far guidance is brought back to the deviation without it, 0..1 (arXiv 2305.08891). Default 0. */
  guidanceRescale?: number;
  /** Pixels, a multiple of 8. Default: the size the model was trained for. */
  width?: number;
  /** Pixels, a multiple of 8. Default: the size the model was trained for. */
  height?: number;
  /** Ends this picture with `aborted`, within 250 ms. */
  signal?: AbortSignal;
  /** Hears of each stage as it begins. */
  onStep?: (event: StepEvent) => void;
}

/** Everything of GenerateOptions that can be cloned: signals and callbacks stay on their side of a worker. */
export interface GenerateRequest extends Omit<GenerateOptions, "signal" | "onStep" | "image" | "mask"> {
  /** As bytes. */
  image?: PixelData;
  /** As bytes. */
  mask?: PixelData;
}

/** A stage has begun: encode, every step, decode. */
export type StepEvent =
  | {
      /** The text encoders read the prompt. */
      readonly type: "encode";
    }
  | {
      /** The UNet denoises. */
      readonly type: "step";
      /** Which step, from 1. */
      readonly step: number;
      /** Of how many. */
      readonly steps: number;
    }
  | {
      /** The VAE makes pixels of the latents. */
      readonly type: "decode";
    };

/** Milliseconds by stage, wall clock, readback included; bytes as counted by our own allocator. */
export interface GenerateStats {
  /** Planning this size and waiting for the driver to compile its kernels, near 0 where that was done before. In no stage's time. */
  readonly compileMs: number;
  /** Text encoders; near 0 where the prompt is that of the picture before. */
  readonly encodeMs: number;
  /** All denoising steps: the UNet and the scheduler. */
  readonly unetMs: number;
  /** The VAE's decoder. */
  readonly decodeMs: number;
  /** From the request to the decoded picture: all of the above together. */
  readonly totalMs: number;
  /** Denoising steps that were made. */
  readonly steps: number;
  /** Bytes that the weights of all parts take in memory. */
  readonly weightBytes: number;
  /** Bytes that activations take in memory after the picture, kept for the next one. */
  readonly activationBytes: number;
}

/** What crosses the worker boundary: RGBA pixels and everything needed to make them again. */
export interface RawImage {
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  /** RGBA, row by row from the top: width * height * 4 bytes, alpha 255. */
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  /** As it was asked for; a bigint beyond 2^53. */
  readonly seed: Seed;
  /** How long it took, and in how much memory. */
  readonly stats: GenerateStats;
  /** Things the user should know, e.g. the part of the prompt that did not fit into 77 tokens. */
  readonly warnings: readonly string[];
  /** Generation parameters, written into the PNG as text chunks. */
  readonly parameters: Readonly<Record<string, string>>;
}

/** What the model is and where it runs; the page shows it. */
export interface EngineInfo {
  /** Its address without password and query, or its folder. */
  readonly model: string;
  /** What it runs in: as asked for, of a pack what it was made for. */
  readonly precision: Precision;
  /** What computes. */
  readonly backend: Backend;
  /** Vendor, architecture and description, as far as the browser tells. */
  readonly adapter: string;
  /** WebGPU features in use, such as `shader-f16`. */
  readonly features: readonly string[];
  /** Pixels, where a request names no width. */
  readonly defaultWidth: number;
  /** Pixels, where a request names no height. */
  readonly defaultHeight: number;
  /** Denoising steps, where a request names none. */
  readonly defaultSteps: number;
  /** Guidance, where a request names none; up to 1 there is none. */
  readonly defaultGuidanceScale: number;
  /** Channels of the latents: 4 in the Stable Diffusion family. */
  readonly latentChannels: number;
  /** Pixels per latent, along each axis. */
  readonly vaeScale: number;
  /** Bytes that the weights of all parts take in memory. */
  readonly weightBytes: number;
}
