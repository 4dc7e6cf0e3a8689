// What both attention kernels share: bindings, sizes, the scale and the mask.

#import storage

@group(0) @binding(0) var<storage, read> q: array<in4>;
@group(0) @binding(1) var<storage, read> k: array<in4>;
@group(0) @binding(2) var<storage, read> v: array<in4>;
@group(0) @binding(3) var<storage, read_write> y: array<out4>;

override BATCH: u32; // images
override TQ: u32; // queries per image
override TK: u32; // keys per image
override HEADS: u32;
override QS: u32; // quads from one token to the next
override KS: u32;
override VS: u32;
override QO: u32; // first quad of the heads
override KO: u32;
override VO: u32;

// Finite, because WGSL compilers may assume there are no infinities.
const LOWEST = -1e30;

// 1/sqrt(d), and log2(e) because exp2 is the hardware's exponential.
fn scale() -> f32 { return 1.4426950408889634 * inverseSqrt(f32(D4 * 4u)); }

// How many keys a query sees.
fn keys_for(row: u32) -> u32 {
#ifdef CAUSAL
  return min(row + 1u, TK);
#else
  return TK;
#endif
}
