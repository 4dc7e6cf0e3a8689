// The activation functions of the model family, in f32.

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
  // The clamp keeps exp finite: WGSL compilers may assume there are no infinities.
  return 1.0 / (1.0 + exp(min(-x, vec4<f32>(80.0))));
}

fn silu(x: vec4<f32>) -> vec4<f32> { return x * sigmoid(x); }

fn quick_gelu(x: vec4<f32>) -> vec4<f32> { return x * sigmoid(1.702 * x); }

// erf by Abramowitz & Stegun 7.1.26, |error| <= 1.5e-7.
fn erf(x: vec4<f32>) -> vec4<f32> {
  let a = abs(x);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return sign(x) * (1.0 - poly * exp(max(-a * a, vec4<f32>(-80.0))));
}

fn gelu(x: vec4<f32>) -> vec4<f32> { return 0.5 * x * (1.0 + erf(x * 0.7071067811865476)); }

fn activate(x: vec4<f32>) -> vec4<f32> {
#ifdef SILU
  return silu(x);
#endif
#ifdef RELU
  return select(x, vec4<f32>(), x < vec4<f32>()); // max() would turn NaN into 0 and hide it
#endif
#ifdef GELU
  return gelu(x);
#endif
#ifdef QUICK_GELU
  return quick_gelu(x);
#endif
#ifdef LINEAR
  return x;
#endif
}
