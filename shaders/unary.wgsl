// An elementwise function of a whole tensor, one quad per invocation:
// SILU; SOFT_CLAMP 3 tanh(x / 3) (TAESD's bound on latents); AFFINE scale x + shift.

#import storage
#import activation
#import grid

@group(0) @binding(0) var<storage, read> x: array<in4>;
@group(0) @binding(1) var<storage, read_write> y: array<out4>;

override QUADS: u32;
override SCALE: f32 = 1.0;
override SHIFT: f32 = 0.0;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let i = number_of(group, groups) * 64u + local;
  if (i >= QUADS) { return; }
  var v = load_in(x[i]);
#ifdef SOFT_CLAMP
  v = 3.0 * tanh(clamp(v / 3.0, vec4<f32>(-10.0), vec4<f32>(10.0))); // tanh overflows on some drivers; 10 is already 1
#endif
#ifdef AFFINE
  v = SCALE * v + SHIFT;
#endif
  y[i] = store_out(activate(v));
}
