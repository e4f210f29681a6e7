// comigs methods: the table of methods as a person or a program reads it.
#include "comigs/adapter/kind.hpp"
#include "comigs/federation/method.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comigs/base/output.hpp"
#include "command.hpp"
#include "json_text.hpp"

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
    case adapter::Gate::sequence:
      return "sequence";
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

bool shares(const federation::Method& method) {
  return method.attention_shared || method.experts_shared != federation::Sharing::none;
}

std::string rule(const federation::Method& method) {
  if (!shares(method)) return "-";
  const char* of = method.shared == adapter::Factors::A   ? " of A"
                   : method.shared == adapter::Factors::B ? " of B"
                                                          : "";
  return fmt::format("{}{}", method.rule.averaged, of);
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

const char* factors(adapter::Factors some) {
  switch (some) {
    case adapter::Factors::A:
      return "A";
    case adapter::Factors::B:
      return "B";
    case adapter::Factors::both:
      return "AB";
  }
  return "";
}

using Json = nlohmann::ordered_json;

// The columns as they stand in the table, null where a method has none of it.
Json as_json(const federation::Method& method) {
  const auto unless = [](bool absent, const Json& value) { return absent ? Json() : value; };
  const bool untrained = method.gate == adapter::Gate::none,
             unrouted = method.router_training == train::RouterTraining::none;
  return {{"name", method.name},
          {"experts", method.experts ? Json(*method.experts) : Json("by user")},
          {"adapter", unless(untrained, method.adapter.name)},
          {"gate", unless(untrained, gate(method))},
          {"experts_shared", unless(untrained, shared_experts(method))},
          {"routers_shared", unless(unrouted, method.routers_shared)},
          {"attention_shared", unless(untrained, method.attention_shared)},
          {"factors_trained", unless(untrained, factors(method.trained))},
          {"factors_shared", unless(!shares(method), factors(method.shared))},
          {"averaged", unless(!shares(method), method.rule.averaged)},
          {"router_training", unless(unrouted, router(method))},
          {"router_data", unless(unrouted, router_data(method))},
          {"paper", unless(std::string(method.paper) == "-", method.paper)},
          {"summary", method.summary}};
}

std::vector<std::string> sharing_routers() {
  std::vector<std::string> names;
  for (const federation::Method& method : federation::methods())
    if (method.routers_shared) names.emplace_back(method.name);
  return names;
}

const char* attention(const federation::Method& method) {
  if (method.gate == adapter::Gate::none || !adapter::reads(method.adapter, "attention_sharing")) return "-";
  return method.attention_shared ? "shared" : "own";
}

}  // namespace

int methods(int&, char**&, const std::vector<std::string>& arguments) {
  if (std::ranges::find(arguments, "--json") != arguments.end()) {
    Json rows = Json::array();
    for (const federation::Method& method : federation::methods()) rows.push_back(as_json(method));
    print_out(json_text({{"methods", rows}}));
    return 0;
  }
  constexpr const char* row = "{:<18} {:<8} {:<8} {:<9} {:<10} {:<10} {:<8} {:<11} {:<13} {}\n";
  print_out(row, "method", "experts", "gate", "experts", "attention", "averaged", "router", "router's",
            "CoMiGS paper", "what it is");
  print_out(row, "", "", "", "shared", "adapter", "", "trained", "data", "", "");
  for (const federation::Method& method : federation::methods())
    print_out(row, method.name, experts(method), gate(method), shared_experts(method), attention(method),
              rule(method), router(method), router_data(method), method.paper, method.summary);
  print_out(
      "\nexperts 'by user': [user] experts, 2 unless set. averaged 'mean': over the users who hold a part, "
      "uniform, by tokens\nor by examples ([method] averaging); 'gradients': at every step; 'by user': each "
      "user has weights of its own;\n'padded', 'SVD': ranks may differ. gate 'sequence': of groups of "
      "soft prompts, for each sequence.\nRouters are the user's own, but in {}.\n",
      fmt::join(sharing_routers(), " and "));
  return 0;
}

}  // namespace comigs::app
