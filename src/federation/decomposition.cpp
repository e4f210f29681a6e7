// FlexLoRA (Bai et al. 2024): users of different LoRA ranks, whose updates are averaged.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "comigs/federation/rank_rules.hpp"
#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

namespace {

// Side by side the factors of all ranks: B [out, sum R], A [sum R, in], float64.
struct Joined {
  at::Tensor B, A;
};

// The leading part of U S V^T = B A as sqrt(S) on both sides: left [out, k], right [k, in]. Each column of U
// has its largest entry positive, so that signs do not jump from round to round.
struct Halves {
  at::Tensor left, right;
};

Halves decompose(const Joined& joined, std::int64_t most) {
  const auto [Q_left, R_left] = at::linalg_qr(joined.B, "reduced");
  const auto [Q_right, R_right] = at::linalg_qr(joined.A.t(), "reduced");
  const auto [U, S, Vh] = at::linalg_svd(R_left.mm(R_right.t()), false);
  const std::int64_t kept = std::min(most, S.size(0));
  const at::Tensor left = Q_left.mm(U.narrow(1, 0, kept)), right = Vh.narrow(0, 0, kept).mm(Q_right.t());
  const at::Tensor largest = left.gather(0, left.abs().argmax(0, true));  // [1, k]
  const at::Tensor half = S.narrow(0, 0, kept).sqrt() * largest.sign().squeeze(0);
  return {.left = left * half, .right = half.unsqueeze(1) * right};
}

// Which of so many users decomposes LoRA `lora`.
std::size_t decomposer(std::size_t lora, std::size_t users) { return lora % users; }

// That user `user` sends: its factors, and the results of the LoRA that it decomposes.
std::int64_t bytes_sent(std::span<const adapter::Widths> loras, const std::vector<std::int64_t>& ranks,
                        std::size_t user) {
  const std::int64_t largest = std::ranges::max(ranks);
  std::int64_t count = padded_count(loras, ranks[user]);
  for (std::size_t l = 0; l < loras.size(); ++l)
    if (decomposer(l, ranks.size()) == user) count += padded_count(loras.subspan(l, 1), largest);
  return bytes_of_numbers(count);
}

at::Tensor flat(const std::vector<adapter::Lora>& loras) {
  std::vector<at::Tensor> parts;
  for (const adapter::Lora& lora : loras) {
    parts.push_back(lora.A.detach().reshape(-1));
    parts.push_back(lora.B.detach().reshape(-1));
  }
  return at::cat(parts).to(at::kCPU);
}

std::vector<adapter::Widths> widths_of(const std::vector<adapter::Lora>& loras) {
  std::vector<adapter::Widths> widths;
  for (const adapter::Lora& lora : loras) widths.push_back(adapter::widths(lora));
  return widths;
}

// Collective. Every rank's block, broadcast one after the other: their lengths differ.
std::vector<at::Tensor> all_blocks(const comm::Communicator& world, const std::vector<adapter::Lora>& loras,
                                   std::span<const adapter::Widths> widths,
                                   const std::vector<std::int64_t>& ranks) {
  std::vector<at::Tensor> blocks;
  for (int source = 0; source < world.size(); ++source) {
    const std::int64_t count = padded_count(widths, ranks[static_cast<std::size_t>(source)]);
    blocks.push_back(source == world.rank() ? flat(loras) : at::empty({count}, at::kFloat));
    world.all_broadcast(std::span(blocks.back().data_ptr<float>(), static_cast<std::size_t>(count)), source);
  }
  return blocks;
}

// Where each LoRA begins in each rank's block.
Joined join(const std::vector<at::Tensor>& blocks, const std::vector<std::int64_t>& ranks,
            const std::vector<std::int64_t>& offsets, const adapter::Lora& lora,
            std::span<const double> scales) {
  std::vector<at::Tensor> B, A;
  const std::int64_t in = lora.A.size(1), out = lora.B.size(0);
  for (std::size_t r = 0; r < blocks.size(); ++r) {
    const std::int64_t rank = ranks[r];
    A.push_back(blocks[r].narrow(0, offsets[r], rank * in).view({rank, in}).to(at::kDouble));
    B.push_back(blocks[r].narrow(0, offsets[r] + rank * in, out * rank).view({out, rank}).to(at::kDouble) *
                scales[r]);
  }
  return {.B = at::cat(B, 1), .A = at::cat(A, 0)};
}

}  // namespace

std::int64_t all_decompose(const comm::Communicator& world, const std::vector<adapter::Lora>& loras,
                           double gamma, std::span<const double> weights) {
  const std::int64_t own = loras.front().A.size(0);
  const std::vector<std::int64_t> ranks = world.all_gather(std::span(&own, 1));
  const std::vector<double> gammas = world.all_gather(std::span(&gamma, 1));
  std::vector<double> scales;
  for (std::size_t r = 0; r < ranks.size(); ++r) scales.push_back(weights[r] * gammas[r]);
  const std::int64_t most = *std::max_element(ranks.begin(), ranks.end());
  const std::vector<adapter::Widths> widths = widths_of(loras);
  const std::vector<at::Tensor> blocks = all_blocks(world, loras, widths, ranks);
  std::vector<std::int64_t> offsets(ranks.size(), 0);
  for (std::size_t l = 0; l < loras.size(); ++l) {
    const adapter::Lora& lora = loras[l];
    const int owner = static_cast<int>(decomposer(l, ranks.size()));
    at::Tensor result = at::zeros({most, lora.A.size(1) + lora.B.size(0)}, at::kFloat);
    if (owner == world.rank()) {
      const Halves halves = decompose(join(blocks, ranks, offsets, lora, scales), most);
      const std::int64_t kept = halves.right.size(0);
      result.narrow(0, 0, kept).copy_(at::cat({halves.right, halves.left.t()}, 1));
    }
    world.all_broadcast(std::span(result.data_ptr<float>(), static_cast<std::size_t>(result.numel())), owner);
    const at::Tensor mine = result.narrow(0, 0, own).div(std::sqrt(gamma));
    lora.A.detach().copy_(mine.narrow(1, 0, lora.A.size(1)));
    lora.B.detach().copy_(mine.narrow(1, lora.A.size(1), lora.B.size(0)).t());
    for (std::size_t r = 0; r < ranks.size(); ++r)
      offsets[r] += padded_count(std::span(widths).subspan(l, 1), ranks[r]);
  }
  return bytes_sent(widths, ranks, static_cast<std::size_t>(world.rank()));
}

namespace {

// With weights in proportion to users' training tokens.
class Decomposition : public Aggregation {
 public:
  explicit Decomposition(const AggregationSetup& setup)
      : setup_(setup), reduction_(setup.memory, comm::Sums::rank_order) {
    std::vector<std::int64_t> everyone(setup.users.size());
    std::iota(everyone.begin(), everyone.end(), 0);
    weights_ = shares_of_amounts(setup, everyone);
  }

  Aggregated all_aggregate(std::int64_t) override {
    const adapter::UserModel& user = setup_.parameters.user_model();
    const std::int64_t sent =
        all_decompose(setup_.world, setup_.parameters.loras(of_users_rank(user)), user.scale(), weights_);
    return {.bytes = sent + all_average_attention(setup_, reduction_), .weights = weights_};
  }
  [[nodiscard]] bool changes_parameters() const override { return true; }

 private:
  AggregationSetup setup_;
  comm::Reduction reduction_;
  std::vector<double> weights_;
};

}  // namespace

constinit const Rule rules::decomposition{
    .averaged = "SVD",
    .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
      return std::make_unique<Decomposition>(setup);
    },
    .cost = [](const RuleUser& of) -> RuleCost {
      const adapter::UserModel& user = of.users[of.user];
      return {.bytes = bytes_sent(of.layout.loras(of_users_rank(user)), ranks_of(of.users), of.user) +
                       bytes_of_attention(of.layout, user, comm::Sums::rank_order),
              .gathers = true};
    },
    .any_rank = true,
    .own_weights = true,
    .in_users_order = true};

}  // namespace comigs::federation
