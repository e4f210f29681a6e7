#include "comigs/comm/agreement.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <regex>

#include "comigs/base/log.hpp"

namespace comigs::comm {

namespace {

constexpr double patience_of_a_failed_rank_seconds = 5.0;

// Who failed stands in front of a message that did not come from everyone.
void print_failures(const Communicator& communicator, const std::vector<std::string>& messages) {
  std::map<std::string, std::vector<std::string>> origins;
  for (std::size_t rank = 0; rank < messages.size(); ++rank)
    if (!messages[rank].empty())
      origins[messages[rank]].push_back(communicator.name_of(static_cast<int>(rank)));
  for (const auto& [message, ranks] : origins) {
    if (ranks.size() == messages.size()) {
      spdlog::error("{}", message);
    } else {
      spdlog::error("{}: {}", fmt::join(ranks, ", "), message);
    }
  }
}

// By rising gravity: bad input outranks the failures that it causes elsewhere, and both a request to stop.
int gravity(std::int64_t code) {
  constexpr std::array order = {ExitCode::done, ExitCode::interrupted, ExitCode::failed, ExitCode::bad_input};
  const auto found = std::find(order.begin(), order.end(), static_cast<ExitCode>(code));
  return static_cast<int>(found - order.begin());
}

// Allocators, LibTorch's and model's, say "... you tried to allocate 1234 bytes. ..." and "Tried to
// allocate 2.00 GiB.
// ...". Empty: it is another error.
std::string memory_wanted(const std::string& text) {
  const std::regex words("ried to allocate ([0-9.]+) (bytes|[KMGT]iB)");
  std::smatch found;
  if (!std::regex_search(text, found, words)) return {};
  if (found[2] != "bytes") return fmt::format("{} {}", found[1].str(), found[2].str());
  return fmt::format("{:.2f} GiB", std::stod(found[1]) / (1 << 30));
}

void all_meet(const Communicator& communicator, const std::optional<Failure>& failure) {
  if (!failure || failure->exit_code == ExitCode::interrupted) return communicator.all_meet();
  try {
    communicator.all_meet(patience_of_a_failed_rank_seconds);
  } catch (const CommError&) {
    throw Error(failure->exit_code, failure->message);
  }
}

}  // namespace

std::optional<Failure> capture(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const Error& error) {
    return Failure{error.exit_code(), error.what()};
  } catch (const std::bad_alloc&) {
    return Failure{ExitCode::failed, "out of memory"};
  } catch (const std::exception& error) {
    const std::string text = first_line(error);
    if (const std::string wanted = memory_wanted(text); !wanted.empty())
      return Failure{
          ExitCode::failed,
          fmt::format("out of memory: {} more were wanted; 'comigs plan' says what a run takes", wanted)};
    return Failure{ExitCode::failed, text.empty() ? "an error without a message" : text};
  }
}

void all_agree_on(const Communicator& communicator, const std::optional<Failure>& failure) {
  // A failure counts as one, whatever code it claims: 0 would let this rank go on without a result.
  const std::int64_t code =
      failure ? std::max<std::int64_t>(static_cast<std::int64_t>(failure->exit_code), 1) : 0;
  all_meet(communicator, failure);
  const std::vector<std::int64_t> codes = communicator.all_gather(std::span(&code, 1));
  const std::int64_t gravest = *std::max_element(
      codes.begin(), codes.end(), [](std::int64_t a, std::int64_t b) { return gravity(a) < gravity(b); });
  if (gravest == 0) return;
  const std::vector<std::string> messages =
      communicator.all_gather(failure ? failure->message : std::string());
  if (communicator.is_first()) print_failures(communicator, messages);
  throw PeerError(static_cast<ExitCode>(gravest));
}

}  // namespace comigs::comm
