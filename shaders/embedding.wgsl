// y[b, t] = table[ids[b, t]] + positions[t]; one invocation per quad of a token.
// ids [B, TOKENS], table [vocabulary, C], positions [.., C], y [B, TOKENS, C].

#import storage
#import grid

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<wgt4>;
@group(0) @binding(2) var<storage, read> positions: array<wgt4>;
@group(0) @binding(3) var<storage, read_write> y: array<out4>;

override ROWS: u32; // B TOKENS
override TOKENS: u32;
override C4: u32;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let i = number_of(group, groups) * 64u + local;
  let row = i / C4;
  let c = i % C4;
  if (row >= ROWS) { return; }
  y[row * C4 + c] = store_out(load_wgt(table[ids[row] * C4 + c]) + load_wgt(positions[row % TOKENS * C4 + c]));
}
