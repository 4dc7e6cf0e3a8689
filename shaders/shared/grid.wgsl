// Which part of the result a workgroup makes. Workgroups are counted through, because a grid that is too long for the
// device is folded into two dimensions (`spread` in src/kernels/kernel.ts). Folding can leave some over at the end, which
// must do nothing: their number is the number of parts, or more.

fn number_of(group: vec3<u32>, groups: vec3<u32>) -> u32 { return group.y * groups.x + group.x; }

// The same as a place in a grid that is nx parts wide and ny high; workgroups left over get a z beyond the grid's.
fn place_of(group: vec3<u32>, groups: vec3<u32>, nx: u32, ny: u32) -> vec3<u32> {
  let i = number_of(group, groups);
  return vec3<u32>(i % nx, i / nx % ny, i / (nx * ny));
}
