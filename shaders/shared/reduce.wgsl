// Sum of one value per invocation over a workgroup of THREADS (a power of two); every invocation gets the result.

var<workgroup> reduce_values: array<vec2<f32>, THREADS>;

fn sum_over_workgroup(value: vec2<f32>, local: u32) -> vec2<f32> {
  reduce_values[local] = value;
  workgroupBarrier();
  for (var width = THREADS / 2u; width > 0u; width = width / 2u) {
    if (local < width) { reduce_values[local] += reduce_values[local + width]; }
    workgroupBarrier();
  }
  let result = reduce_values[0];
  workgroupBarrier(); // nobody may overwrite the values before all have read
  return result;
}
