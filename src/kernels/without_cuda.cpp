// The launchers of a build without CUDA.
#include "comigs/kernels/adamw.hpp"
#include "comigs/kernels/cross_entropy.hpp"
#include "comigs/kernels/device.hpp"
#include "comigs/kernels/gate.hpp"
#include "comigs/kernels/mixture.hpp"
#include "comigs/kernels/norm.hpp"
#include "comigs/kernels/rank_sum.hpp"

namespace comigs::kernels {

namespace {

[[noreturn]] void fail(const char* kernel) { fail_launch(kernel, "comigs was built without CUDA"); }

}  // namespace

void rank_sum_device(const RankSum&, void*) { fail("rank_sum"); }

void adamw_device(const AdamwSlice&, const AdamwStep&, void*) { fail("adamw"); }

template <class Number>
void cross_entropy_rows_device(const LogitRows<Number>&, void*) {
  fail("cross_entropy");
}
template void cross_entropy_rows_device(const LogitRows<float>&, void*);
template void cross_entropy_rows_device(const LogitRows<Bfloat16>&, void*);

void gate_forward_device(const GateForward&, void*) { fail("gate_forward"); }
void gate_backward_device(const GateBackward&, void*) { fail("gate_backward"); }
void gate_load_device(const GateForward&, const GateLoad&, void*) { fail("gate_load"); }

template <class Number>
void mixture_forward_device(const MixtureInputs<Number>&, const MixtureOutputs<Number>&, void*, void*) {
  fail("mixture_forward");
}
template <class Number>
void mixture_backward_device(const MixtureInputs<Number>&, const MixtureGradients<Number>&, void*, void*) {
  fail("mixture_backward");
}
template void mixture_forward_device(const MixtureInputs<float>&, const MixtureOutputs<float>&, void*, void*);
template void mixture_forward_device(const MixtureInputs<Bfloat16>&, const MixtureOutputs<Bfloat16>&, void*,
                                     void*);
template void mixture_backward_device(const MixtureInputs<float>&, const MixtureGradients<float>&, void*,
                                      void*);
template void mixture_backward_device(const MixtureInputs<Bfloat16>&, const MixtureGradients<Bfloat16>&,
                                      void*, void*);

template <class Number>
void norm_forward_device(const NormForward<Number>&, void*) {
  fail("norm_forward");
}
template <class Number>
void norm_backward_device(const NormBackward<Number>&, void*) {
  fail("norm_backward");
}
template void norm_forward_device(const NormForward<float>&, void*);
template void norm_forward_device(const NormForward<Bfloat16>&, void*);
template void norm_backward_device(const NormBackward<float>&, void*);
template void norm_backward_device(const NormBackward<Bfloat16>&, void*);

}  // namespace comigs::kernels
