// comigs methods: the table of methods as a person reads it.
#include "comigs/federation/method.hpp"

#include <fmt/format.h>

#include "command.hpp"

namespace comigs::app {

namespace {

std::string experts(const federation::Method& method) {
  if (!method.experts) return "by user";
  return *method.experts == 0 ? "none" : std::to_string(*method.experts);
}

const char* gate(const federation::Method& method) {
  switch (method.gate) {
    case model::Gate::none:
      return "-";
    case model::Gate::equal:
      return "equal";
    case model::Gate::top_k:
      return "top-k";
  }
  return "";
}

const char* sharing(const federation::Method& method) {
  if (method.gate == model::Gate::none) return "-";
  switch (method.experts_shared) {
    case federation::Sharing::none:
      return "own";
    case federation::Sharing::first:
      return "0 averaged";
    case federation::Sharing::all:
      return "averaged";
  }
  return "";
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
  return method.router_data == train::RouterData::validation ? "validation" : "training";
}

}  // namespace

int methods(int&, char**&, const std::vector<std::string>&) {
  constexpr const char* row = "{:<15} {:<8} {:<6} {:<11} {:<10} {:<8} {:<11} {:<13} {}\n";
  fmt::print(row, "method", "experts", "gate", "experts", "attention", "router", "router's", "CoMiGS paper",
             "what it is");
  fmt::print(row, "", "", "", "shared", "LoRA", "trained", "data", "", "");
  for (const federation::Method& method : federation::methods())
    fmt::print(row, method.name, experts(method), gate(method), sharing(method),
               method.gate == model::Gate::none ? "-" : (method.attention_shared ? "averaged" : "own"),
               router(method), router_data(method), method.paper, method.summary);
  fmt::print(
      "\nexperts 'by user': [user] experts, 2 unless set. Averages are uniform over the users who hold a "
      "part.\n"
      "Routers are never averaged.\n");
  return 0;
}

}  // namespace comigs::app
