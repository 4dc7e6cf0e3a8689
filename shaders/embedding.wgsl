// y[b, t] = table[ids[b, t]] + positions[t]; one invocation per quad of a token.
// ids [B, TOKENS], table [vocabulary, C], positions [.., C], y [B, TOKENS, C].

#import storage

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<wgt4>;
@group(0) @binding(2) var<storage, read> positions: array<wgt4>;
@group(0) @binding(3) var<storage, read_write> y: array<out4>;

override ROWS: u32; // B TOKENS
override TOKENS: u32;
override C4: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x / C4;
  let c = id.x % C4;
  if (row >= ROWS) { return; }
  y[row * C4 + c] = store_out(load_wgt(table[ids[row] * C4 + c]) + load_wgt(positions[row % TOKENS * C4 + c]));
}
