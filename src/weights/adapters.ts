/**
 * Models saved with an adapter (a LoRA or one of its relatives) still attached: PEFT and older diffusers then keep the
 * layers under other names, beside the adapter's own tensors.
 */
import { MixdqError } from "../base/errors.ts";

/** PEFT's wrappers and tensors, diffusers' attention processors before PEFT, LyCORIS and OFT. */
const ADAPTER =
  /(^|\.)(base_layer|lora_(A|B|down|up|embedding_[AB]|magnitude_vector|layer)|to_(q|k|v|out)_lora|processor|(hada|lokr)_w\d\w*|oft_\w+)(\.|$)/;

/** Whether a tensor's name is that of an adapter, or of a layer under one. */
export function isAdapterTensor(name: string): boolean {
  return ADAPTER.test(name);
}

/** `invalid-model` that names what was found and says how the model is saved without it. */
export function adapterAttached(where: string, found: string): MixdqError {
  return new MixdqError(
    "invalid-model",
    `${where}: got ${found}, which is of a LoRA still attached to the model, expected plain weights. In diffusers call ` +
      `pipe.fuse_lora() (or leave it out, to go without the LoRA), then pipe.unload_lora_weights(), and save the model again.`,
  );
}
