// comigs methods: the table of methods as a person reads it.
#include "comigs/federation/method.hpp"

#include <fmt/format.h>

#include "comigs/base/output.hpp"
#include "command.hpp"

namespace comigs::app {

namespace {

std::string experts(const federation::Method& method) {
  if (!method.experts) return "by user";
  return *method.experts == 0 ? "none" : std::to_string(*method.experts);
}

const char* gate(const federation::Method& method) {
  switch (method.gate) {
    case adapter::Gate::none:
      return "-";
    case adapter::Gate::equal:
      return "equal";
    case adapter::Gate::top_k:
      return "top-k";
  }
  return "";
}

const char* shared_experts(const federation::Method& method) {
  if (method.gate == adapter::Gate::none) return "-";
  switch (method.experts_shared) {
    case federation::Sharing::none:
      return "none";
    case federation::Sharing::first:
      return "expert 0";
    case federation::Sharing::chosen:
      return "by user";
    case federation::Sharing::all:
      return "all";
  }
  return "";
}

std::string rule(const federation::Method& method) {
  if (!method.attention_shared && method.experts_shared == federation::Sharing::none) return "-";
  const char* factors = method.shared == adapter::Factors::A   ? " of A"
                        : method.shared == adapter::Factors::B ? " of B"
                                                               : "";
  return fmt::format("{}{}", method.rule.averaged, factors);
}

const char* router(const federation::Method& method) {
  switch (method.router_training) {
    case train::RouterTraining::none:
      return "-";
    case train::RouterTraining::joint:
      return "jointly";
    case train::RouterTraining::alternating:
      return "in turn";
  }
  return "";
}

const char* router_data(const federation::Method& method) {
  if (method.router_training == train::RouterTraining::none) return "-";
  return method.router_data == federation::RouterData::validation ? "validation" : "training";
}

}  // namespace

int methods(int&, char**&, const std::vector<std::string>&) {
  constexpr const char* row = "{:<15} {:<8} {:<6} {:<9} {:<10} {:<10} {:<8} {:<11} {:<13} {}\n";
  print_out(row, "method", "experts", "gate", "experts", "attention", "averaged", "router", "router's",
            "CoMiGS paper", "what it is");
  print_out(row, "", "", "", "shared", "LoRA", "", "trained", "data", "", "");
  for (const federation::Method& method : federation::methods())
    print_out(row, method.name, experts(method), gate(method), shared_experts(method),
              method.gate == adapter::Gate::none ? "-" : (method.attention_shared ? "shared" : "own"),
              rule(method), router(method), router_data(method), method.paper, method.summary);
  print_out(
      "\nexperts 'by user': [user] experts, 2 unless set. averaged 'mean': over the users who hold a part, "
      "uniform or by\ntokens ([method] averaging); 'gradients': at every step; 'by user': each user has "
      "weights of its own;\n'padded', 'SVD': LoRA ranks may differ. Routers are never averaged.\n");
  return 0;
}

}  // namespace comigs::app
