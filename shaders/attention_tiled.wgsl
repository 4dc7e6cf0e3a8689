// softmax(q k^T / sqrt(d)) v by tiles in workgroup memory, as FlashAttention does it (Dao et al. 2022, arXiv 2205.14135).
// One workgroup of 64 makes 32 query rows x DV4 quads of one head. It walks over the keys 32 at a time: scores of the
// tile (4x4 per invocation, over 8 quads of the head at a time), new row maxima, weights through workgroup memory,
// then weights times values. Heads wider than DV4 quads are split over workgroups, which then repeat the scores.
//
// q [B, TQ, QS], k [B, TK, KS], v [B, TK, VS] hold the heads' channels from quads QO, KO, VO on; y [B, TQ, HEADS D].

#import attention
#import grid

const ROWS = 32u;
const CHUNK = 8u; // quads of the head staged at a time
const PARTS = D4 / DV4 + select(0u, 1u, D4 % DV4 != 0u);
const STEPS = (DV4 + CHUNK - 1u) / CHUNK;

var<workgroup> stage_q: array<vec4<f32>, 256>; // [quad of 8][row of 32]
var<workgroup> stage_kv: array<vec4<f32>, 256>; // [quad of 8][key of 32]
var<workgroup> weights: array<f32, 1056>; // [row of 32][key of 32, padded to 33]
var<workgroup> partial: array<f32, 256>; // [column group of 8][row of 32]

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let place = place_of(group, groups, (TQ + ROWS - 1u) / ROWS, HEADS * PARTS);
  let image = place.z;
  if (image >= BATCH) { return; }
  let head = place.y / PARTS;
  let part = place.y % PARTS * DV4;
  let row_first = place.x * ROWS;
  let tr = local / 8u; // rows tr, tr + 8, tr + 16, tr + 24
  let tc = local % 8u; // keys tc, tc + 8, tc + 16, tc + 24, and quad tc of each chunk of the values

  var greatest = array<f32, 4>(LOWEST, LOWEST, LOWEST, LOWEST);
  var total: array<f32, 4>;
  var sum: array<vec4<f32>, 4u * STEPS>; // [chunk][row]

  let last_row = min(row_first + ROWS, TQ) - 1u;
  for (var tile = 0u; tile < (TK + 31u) / 32u; tile++) {
    let key_first = tile * 32u;
    if (key_first >= keys_for(last_row)) { break; }

    // One lane per key. The initialiser is needed: Tint as of Dawn in webgpu 0.6.2 does not zero it in every round.
    var score = array<vec4<f32>, 4>();
    for (var chunk = 0u; chunk < (D4 + CHUNK - 1u) / CHUNK; chunk++) {
      for (var i = 0u; i < 4u; i++) {
        let slot = local + i * 64u;
        let c = chunk * CHUNK + slot % CHUNK;
        let row = min(row_first + slot / CHUNK, TQ - 1u);
        let key = min(key_first + slot / CHUNK, TK - 1u);
        var a = vec4<f32>();
        var b = vec4<f32>();
        if (c < D4) {
          a = load_in(q[(image * TQ + row) * QS + QO + head * D4 + c]) * scale();
          b = load_in(k[(image * TK + key) * KS + KO + head * D4 + c]);
        }
        stage_q[slot % CHUNK * 32u + slot / CHUNK] = a;
        stage_kv[slot % CHUNK * 32u + slot / CHUNK] = b;
      }
      workgroupBarrier();
      for (var c = 0u; c < CHUNK; c++) {
        let b0 = stage_kv[c * 32u + tc];
        let b1 = stage_kv[c * 32u + tc + 8u];
        let b2 = stage_kv[c * 32u + tc + 16u];
        let b3 = stage_kv[c * 32u + tc + 24u];
        for (var i = 0u; i < 4u; i++) {
          let a = stage_q[c * 32u + tr + i * 8u];
          score[i] += vec4<f32>(dot(a, b0), dot(a, b1), dot(a, b2), dot(a, b3));
        }
      }
      workgroupBarrier();
    }

    // Row maxima over the tile: each invocation over its four keys, then over the eight column groups.
    for (var i = 0u; i < 4u; i++) {
      let seen = keys_for(min(row_first + tr + i * 8u, TQ - 1u));
      let keys = vec4<u32>(tc, tc + 8u, tc + 16u, tc + 24u) + key_first;
      score[i] = select(vec4<f32>(LOWEST), score[i], keys < vec4<u32>(seen));
      partial[tc * 32u + tr + i * 8u] = max(max(score[i].x, score[i].y), max(score[i].z, score[i].w));
    }
    workgroupBarrier();
    var fade: array<f32, 4>;
    for (var i = 0u; i < 4u; i++) {
      var now = greatest[i];
      for (var j = 0u; j < 8u; j++) { now = max(now, partial[j * 32u + tr + i * 8u]); }
      fade[i] = exp2(greatest[i] - now);
      greatest[i] = now;
      let e = exp2(score[i] - now) * select(vec4<f32>(), vec4<f32>(1.0), score[i] > vec4<f32>(LOWEST));
      total[i] = total[i] * fade[i] + e.x + e.y + e.z + e.w;
      let at = (tr + i * 8u) * 33u + tc;
      weights[at] = e.x;
      weights[at + 8u] = e.y;
      weights[at + 16u] = e.z;
      weights[at + 24u] = e.w;
    }

    for (var step = 0u; step < STEPS; step++) {
      workgroupBarrier();
      for (var i = 0u; i < 4u; i++) {
        let slot = local + i * 64u;
        let c = part + step * CHUNK + slot % CHUNK;
        let key = min(key_first + slot / CHUNK, TK - 1u);
        var b = vec4<f32>();
        if (c < D4) { b = load_in(v[(image * TK + key) * VS + VO + head * D4 + c]); }
        stage_kv[slot % CHUNK * 32u + slot / CHUNK] = b;
      }
      workgroupBarrier();
      for (var i = 0u; i < 4u; i++) { sum[step * 4u + i] *= fade[i]; }
      for (var key = 0u; key < 32u; key++) {
        let b = stage_kv[tc * 32u + key];
        for (var i = 0u; i < 4u; i++) { sum[step * 4u + i] += weights[(tr + i * 8u) * 33u + key] * b; }
      }
    }
    workgroupBarrier();
  }

  // Each invocation holds the sum of weights over its own keys: add up the eight column groups.
  for (var i = 0u; i < 4u; i++) { partial[tc * 32u + tr + i * 8u] = total[i]; }
  workgroupBarrier();
  for (var i = 0u; i < 4u; i++) {
    let row = row_first + tr + i * 8u;
    var whole = 0.0;
    for (var j = 0u; j < 8u; j++) { whole += partial[j * 32u + tr + i * 8u]; }
    for (var step = 0u; step < STEPS; step++) {
      let c = part + step * CHUNK + tc;
      if (row < TQ && c < min(part + DV4, D4)) {
        y[((image * TQ + row) * HEADS + head) * D4 + c] = store_out(sum[step * 4u + i] / whole);
      }
    }
  }
}
