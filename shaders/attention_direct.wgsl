// softmax(q k^T / sqrt(d)) v, one invocation per query row and head, keys streamed once with a running maximum and sum
// (Milakov & Gimelshein 2018, arXiv 1805.02867): the score matrix is never stored. No workgroup memory: the variant for
// software adapters, for any head width.
//
// q [B, TQ, QS], k [B, TK, KS], v [B, TK, VS] hold the heads' channels from quads QO, KO, VO on; y [B, TQ, HEADS D].

#import attention
#import grid

@compute @workgroup_size(8, 8)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let place = place_of(group, groups, (HEADS + 7u) / 8u, (TQ + 7u) / 8u);
  let image = place.z;
  let head = place.x * 8u + local.x;
  let row = place.y * 8u + local.y;
  if (image >= BATCH || head >= HEADS || row >= TQ) { return; }

  var query: array<vec4<f32>, D4>;
  var sum: array<vec4<f32>, D4>;
  let q_first = (image * TQ + row) * QS + QO + head * D4;
  for (var c = 0u; c < D4; c++) { query[c] = load_in(q[q_first + c]) * scale(); }

  var greatest = LOWEST;
  var total = 0.0;
  for (var key = 0u; key < keys_for(row); key++) {
    let k_first = (image * TK + key) * KS + KO + head * D4;
    let v_first = (image * TK + key) * VS + VO + head * D4;
    var score = 0.0;
    for (var c = 0u; c < D4; c++) { score += dot(query[c], load_in(k[k_first + c])); }
    let now = max(greatest, score);
    let fade = exp2(greatest - now);
    let weight = exp2(score - now);
    greatest = now;
    total = total * fade + weight;
    for (var c = 0u; c < D4; c++) { sum[c] = sum[c] * fade + weight * load_in(v[v_first + c]); }
  }

  let y_first = (image * TQ + row) * HEADS * D4 + head * D4;
  for (var c = 0u; c < D4; c++) { y[y_first + c] = store_out(sum[c] / total); }
}
