// y[b] = x[b, index[b]]: one token of each sequence; one invocation per quad.
// x [B, TOKENS, C], index [B], y [B, C].

#import storage
#import grid

@group(0) @binding(0) var<storage, read> x: array<in4>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<out4>;

override BATCH: u32;
override TOKENS: u32;
override C4: u32;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let i = number_of(group, groups) * 64u + local;
  let b = i / C4;
  let c = i % C4;
  if (b >= BATCH) { return; }
  y[b * C4 + c] = store_out(load_in(x[(b * TOKENS + min(index[b], TOKENS - 1u)) * C4 + c]));
}
